"""Kernels on demand: compiled when first needed, kept on disk, run on as many threads as PyTorch."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable

import torch

_forked = False


def _mark_fork() -> None:
    global _forked
    _forked = True


os.register_at_fork(after_in_child=_mark_fork)


def refusal() -> str | None:
    """Why compiled kernels cannot run in this process; None if they can."""
    if _forked:
        return "this process was forked, which the OpenMP library does not survive"
    try:
        import numba  # noqa: F401
    except ImportError:
        return "numba is not installed"
    return None


@functools.cache
def kernel(name: str) -> Callable[..., None]:
    """A function of `kernels.batch`, compiled. One version serves every size; there is one per dtype."""
    import numba

    from torchdnc.engines.fused.kernels import batch
    from torchdnc.engines.fused.kernels.options import FAST

    function: Callable[..., None] = numba.njit(parallel=True, **FAST)(getattr(batch, name))
    return function


def obey_torch_threads() -> None:
    """The kernels use as many threads as PyTorch does, as far as numba has them."""
    import numba

    most: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    numba.set_num_threads(min(torch.get_num_threads(), most))
