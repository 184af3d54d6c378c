"""Kernels on demand: compiled when first needed, kept on disk, run on as many threads as PyTorch."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import torch

# Of what numba can make parallel only the loop over rows: the rest costs time to compile and is too small to gain.
ONLY_LOOPS: Final = {
    "prange": True,
    "comprehension": False,
    "reduction": False,
    "inplace_binop": False,
    "setitem": False,
    "numpy": False,
    "stencil": False,
    "fusion": False,
}

# A sequence that goes through fewer numbers takes about a millisecond, less than waking a thread may.
WORTH_SHARING: Final = 1_000_000

_forked = False


def _mark_fork() -> None:
    global _forked
    _forked = True


os.register_at_fork(after_in_child=_mark_fork)


def refusal() -> str | None:
    """Why compiled kernels cannot run in this process; None if they can."""
    return None if importlib.util.find_spec("numba") else "numba is not installed"


def threads(rows: int, work: int) -> int:
    """Threads for a call: as many as PyTorch has, but one where they have nothing to share or cannot be had.

    Args:
        rows: of the batch; they are what threads share.
        work: numbers that the call goes through.
    """
    if min(rows, torch.get_num_threads()) == 1 or work < WORTH_SHARING or not _has_openmp():
        return 1
    import numba

    most: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    return min(rows, torch.get_num_threads(), most)


def _has_openmp() -> bool:
    """OpenMP is not everywhere, and its threads do not survive a fork."""
    return not _forked and importlib.util.find_spec("numba.np.ufunc.omppool") is not None


@contextmanager
def using(count: int) -> Iterator[None]:
    """Parallel kernels run on so many threads meanwhile."""
    if count == 1:
        yield
        return
    import numba

    before, of_torch = numba.get_num_threads(), torch.get_num_threads()
    numba.set_num_threads(count)
    try:
        yield
    finally:
        numba.set_num_threads(before)
        # Where both share one OpenMP library, numba's start changes PyTorch's number too.
        if torch.get_num_threads() != of_torch:
            torch.set_num_threads(of_torch)


@functools.cache
def kernel(name: str, parallel: bool) -> Callable[..., None]:
    """A function of `kernels.sequence`, compiled. One version serves every size; there is one per dtype.

    The serial version is not the parallel one on a single thread: that would still wake OpenMP, whose threads wait
    for each other, and on a busy machine wait long.
    """
    import numba

    from torchdnc.engines.fused.kernels import sequence
    from torchdnc.engines.fused.kernels.options import EXACT

    function = _renamed(getattr(sequence, name), f"{name}_{'parallel' if parallel else 'serial'}_{_version()}")
    how: Any = ONLY_LOOPS if parallel else False
    made = numba.njit(parallel=how, **EXACT)(function)
    # Where neither the package nor the user's own cache can be written, every process compiles for itself.
    with suppress(RuntimeError):
        made.enable_caching()
    _announce(made, name)
    compiled: Callable[..., None] = made
    return compiled


def _announce(made: Any, name: str) -> None:
    """Has it said on stderr when the kernel is compiled, and not when it is read from the cache."""
    from numba.core import event

    class Listener(event.Listener):
        def on_start(self, happening: Any) -> None:
            if happening.data["dispatcher"] is made:
                print(f"torchdnc: compiling the fused engine ({name}); this happens once", file=sys.stderr, flush=True)

        def on_end(self, happening: Any) -> None:
            pass

    event.register("numba:compile", Listener())


@functools.cache
def _version() -> str:
    """A digest of all kernels: numba would keep a compiled kernel when only what it calls has changed."""
    sources = sorted((Path(__file__).parent / "kernels").glob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]


def _renamed(function: Any, name: str) -> Any:
    """A copy of a function: numba keeps compiled code by name, and would take the one version for the other."""
    copy = types.FunctionType(function.__code__, function.__globals__, name)
    copy.__qualname__, copy.__module__ = name, function.__module__
    return copy
