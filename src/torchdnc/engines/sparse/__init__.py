"""The sparse memory over a whole sequence: its states, and engines of one signature."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from torchdnc.engines import fused
from torchdnc.engines.sparse import reference


def select_sparse(name: str, network: Any, inputs: Tensor) -> Callable[..., Any]:
    """The engine for a call of a SparseDNC: the named one, or for "auto" the fused one where it can run.

    Raises:
        ValueError: the fused engine is named and cannot run this call.
    """
    reason = _refusal(network, inputs)
    if name == "reference" or (name == "auto" and reason is not None):
        return reference.run
    if reason is not None:
        raise ValueError(f'engine "fused" cannot run this call: {reason}; use engine="reference" or "auto"')
    # It loads numba, which takes a while.
    from torchdnc.engines.fused import sparse

    return sparse.run


def _refusal(network: Any, inputs: Tensor) -> str | None:
    """Why the fused engine cannot run a call, as the end of a sentence; None if it can."""
    if not fused:
        return "it is not installed"
    reason: str | None = fused.hindrance(inputs)
    if reason is None and not fused.is_built_in(network, inputs):
        reason = "it knows the controllers that come with torchdnc only, without hooks"
    return reason
