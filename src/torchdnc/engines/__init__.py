"""The memory step over a whole sequence: engines of one signature, chosen by name."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
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
        return partial(fused.run, second_derivatives=name == "auto")
    if name == "fused":
        raise ValueError(f'engine "fused" cannot run this call: {reason}; use engine="reference" or "auto"')
    return reference.run


__all__ = ["ENGINES", "check_engine", "reference", "select", "unroll"]
