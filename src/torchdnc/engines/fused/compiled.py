"""Kernels on demand: compiled when first needed, kept on disk, run on as many threads as PyTorch."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import sys
import types
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import torch

# A sequence that goes through fewer numbers takes some ten milliseconds at most. For about as long PyTorch's own
# threads hold on to their cores after each of its operations, and a share handed over would wait for one.
WORTH_SHARING: Final = 10_000_000


def refusal() -> str | None:
    """Why compiled kernels cannot run in this process; None if they can."""
    return None if importlib.util.find_spec("numba") else "numba is not installed"


def threads(rows: int, work: int) -> int:
    """Threads for a call: as many as PyTorch has, but one where they have nothing to share.

    Args:
        rows: of the batch; they are what threads share.
        work: numbers that the call goes through.
    """
    return 1 if work < WORTH_SHARING else min(rows, torch.get_num_threads())


def run(name: str, shares: int, *arguments: Any) -> None:
    """Runs a kernel for every share of the batch, each on a thread of its own, the first on this one.

    Python's own threads, as a kernel does without its lock: they need no library, start anew in a forked process, and
    do not wait for each other within the call, so that a busy machine makes it slower and not worse.
    """
    call = kernel(name)
    others = [_pool().submit(call, share, *arguments) for share in range(1, shares)]
    call(0, *arguments)
    for other in others:
        other.result()


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="torchdnc")


# A forked process has the pool, but not its threads.
os.register_at_fork(after_in_child=_pool.cache_clear)


@functools.cache
def kernel(name: str) -> Callable[..., None]:
    """A function of `kernels.sequence` or `kernels.steps`, compiled; one version per dtype serves every size."""
    import numba

    from torchdnc.engines.fused.kernels import sequence, steps
    from torchdnc.engines.fused.kernels.options import EXACT

    function = (vars(sequence) | vars(steps))[name]
    made = numba.njit(**EXACT)(_renamed(function, f"{name}_{_version()}"))
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
