"""Kernels on demand: compiled when first needed, kept on disk, run on as many threads as PyTorch."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.util
import os
import sys
import types
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import torch

from torchdnc.engines.fused.kernels.arrays import Team

# Below so many numbers that a call goes through, waking a thread takes longer than its share.
WORTH_SHARING: Final = 50_000

_HOME: Final = os.getpid()


def refusal() -> str | None:
    """Why compiled kernels cannot run in this process; None if they can."""
    return None if importlib.util.find_spec("numba") else "numba is not installed"


def team(work: int) -> Team:
    """Threads for a call: as many as PyTorch has, but one where there is little to share.

    Args:
        work: numbers that the call goes through.
    """
    threads = torch.get_num_threads()
    # A forked process has OpenMP's list of threads and not the threads: to call them would never return.
    if work < WORTH_SHARING or threads == 1 or os.getpid() != _HOME or not _openmp():
        return Team(1, 0, 0, 0, 0)
    return Team(threads, *_openmp())


@functools.cache
def _openmp() -> tuple[int, ...]:
    """Addresses of the functions that `Team` names, in the library that PyTorch has loaded; none where it has not."""
    names = "GOMP_parallel", "GOMP_barrier", "omp_get_thread_num", "omp_get_num_threads"
    for path in (None, *map(str, sorted(Path(torch.__file__).parent.glob("lib/lib*omp*")))):
        library = ctypes.CDLL(path)
        if all(hasattr(library, name) for name in names):
            return tuple(ctypes.cast(library[name], ctypes.c_void_p).value or 0 for name in names)
    return ()


def run(name: str, *arguments: Any) -> None:
    """Runs a kernel."""
    kernel(name)(*arguments)


@functools.cache
def kernel(name: str) -> Callable[..., None]:
    """A function of `kernels.sequence` or `kernels.steps`, compiled; one version per dtype serves every size."""
    import numba

    from torchdnc.engines.fused.kernels import sequence, steps
    from torchdnc.engines.fused.kernels.options import ENTRY

    function = (vars(sequence) | vars(steps))[name]
    made = numba.njit(**ENTRY)(_renamed(function, f"{name}_{_version()}"))
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
