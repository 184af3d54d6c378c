"""The memory step over a whole sequence: engines of one signature, chosen by name."""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Callable
from typing import Any

from torch import Tensor

from torchdnc.checks import check_choice
from torchdnc.engines import reference
from torchdnc.engines.unroll import unroll

# The reference is complete without it.
fused: Any = (
    importlib.import_module("torchdnc.engines.fused") if importlib.util.find_spec(f"{__name__}.fused") else None
)

ENGINES = ("auto", "reference", "fused")
"""Names of engines: "auto" decides at every call."""


def check_engine(name: str) -> str:
    """The name, if an engine goes by it.

    Raises:
        ValueError: it is none of `ENGINES`.
    """
    check_choice("engine", name, ENGINES)
    return name


def select(name: str, network: reference.Network, inputs: Tensor) -> Callable[..., Any]:
    """The engine for a call: the named one; for "auto" the fused one where it can run, else the reference.

    Raises:
        ValueError: the fused engine is named and cannot run this call.
    """
    if name == "reference":
        return reference.run
    reason = fused.refusal(network, inputs) if fused else "it is not installed"
    if reason is None:
        return functools.partial(fused.run, second_derivatives=name == "auto")
    if name == "fused":
        raise ValueError(f'engine "fused" cannot run this call: {reason}; use engine="reference" or "auto"')
    if fused and reason == fused.lacking(network.options):
        _say(f'engine "auto" takes the reference, not the faster "fused": {reason}')
    return reference.run


@functools.cache
def _say(sentence: str) -> None:
    """Says it on stderr, once in a process. Not as a warning, which would end a program that makes errors of them."""
    print(f"torchdnc: {sentence}", file=sys.stderr, flush=True)


__all__ = ["ENGINES", "check_engine", "reference", "select", "unroll"]
