"""The memory step over a whole sequence: engines of one signature, chosen by name."""

from collections.abc import Callable
from typing import Any

from torchdnc.engines import reference
from torchdnc.engines.unroll import unroll

ENGINES: dict[str, Callable[..., Any]] = {"reference": reference.run}
"""Engines by name, fastest first."""


def check_engine(name: str) -> str:
    """The name, if an engine goes by it.

    Raises:
        ValueError: it is neither "auto" nor an engine of this version.
    """
    if name not in ("auto", *ENGINES):
        raise ValueError(f"engine must be one of {', '.join(map(repr, ['auto', *ENGINES]))}, got {name!r}")
    return name


def select(name: str) -> Callable[..., Any]:
    """The engine for a call: the named one, or for "auto" the first that is there."""
    return ENGINES[name] if name != "auto" else next(iter(ENGINES.values()))


__all__ = ["ENGINES", "check_engine", "reference", "select", "unroll"]
