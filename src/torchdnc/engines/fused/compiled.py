"""Kernels on demand: compiled when first needed, kept on disk, run on as many threads as PyTorch."""

from __future__ import annotations

import ctypes
import functools
import gc
import hashlib
import importlib.util
import os
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import torch

from torchdnc.engines.fused.kernels.arrays import Team

# Below so many numbers that a call goes through, waking a thread takes longer than its share.
WORTH_SHARING: Final = 50_000

_HOME: Final = os.getpid()


@functools.cache
def refusal() -> str | None:
    """Why compiled kernels cannot run in this process; None if they can."""
    if not importlib.util.find_spec("numba"):
        return "numba is not installed"
    try:
        import numba
    except Exception as error:
        return f"numba cannot be loaded: {error}"
    return "NUMBA_DISABLE_JIT is set" if vars(numba.core.config)["DISABLE_JIT"] else None


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
        try:
            library = ctypes.CDLL(path)
        except (OSError, TypeError):  # Windows has no library without a name
            continue
        if all(hasattr(library, name) for name in names):
            return tuple(ctypes.cast(library[name], ctypes.c_void_p).value or 0 for name in names)
    return ()


def run(name: str, *arguments: Any) -> None:
    """Runs a kernel."""
    kernel(name)(*arguments)


@functools.cache
def kernel(name: str) -> Callable[..., None]:
    """A function of `kernels.sequence`, `kernels.steps` or `kernels.sparse.sequence`, compiled; one version per dtype
    serves every size."""
    import numba

    from torchdnc.engines.fused.kernels import sequence, steps
    from torchdnc.engines.fused.kernels.options import ENTRY
    from torchdnc.engines.fused.kernels.sparse import sequence as sparse

    function = (vars(sequence) | vars(steps) | vars(sparse))[name]
    made = numba.njit(**ENTRY)(_renamed(function, f"{name}_{_version()}"))
    # Where neither the package nor the user's own cache can be written, every process compiles for itself.
    with suppress(RuntimeError):
        made.enable_caching()
        _forgive(made._cache)
    _prepare(made, name)
    compiled: Callable[..., None] = made
    return compiled


def _forgive(cache: Any) -> None:
    """Has what cannot be read from the disk compiled again, and what cannot be written there, on a full one, left."""
    load, save = cache.load_overload, cache.save_overload

    def load_overload(signature: Any, context: Any) -> Any:
        try:
            return load(signature, context)
        except Exception as error:
            print(f"torchdnc: {cache.cache_path} is damaged ({error}) and is written anew", file=sys.stderr, flush=True)
            cache.flush()
            return None

    def save_overload(signature: Any, data: Any) -> None:
        with suppress(OSError):
            save(signature, data)

    cache.load_overload, cache.save_overload = load_overload, save_overload


def _prepare(made: Any, name: str) -> None:
    """Has the kernel compiled in one piece, and that said on stderr; not when it is read from the cache."""
    from numba.core import event

    from torchdnc.engines.fused.library import in_one_piece

    class Listener(event.Listener):
        def on_start(self, happening: Any) -> None:
            if happening.data["dispatcher"] is made:
                print(f"torchdnc: compiling the fused engine ({name}); this happens once", file=sys.stderr, flush=True)
                self.compiling = ExitStack()
                self.compiling.enter_context(in_one_piece())
                self.compiling.enter_context(_without_collection())

        def on_end(self, happening: Any) -> None:
            if happening.data["dispatcher"] is made:
                self.compiling.close()

    event.register("numba:compile", Listener())


@contextmanager
def _without_collection() -> Iterator[None]:
    """Meanwhile nothing is searched for garbage: a compiler has millions of objects, and needs them all to the end."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@functools.cache
def _version() -> str:
    """A digest of all kernels, and of the constants that they compile in: numba would keep a compiled kernel when only
    what it calls has changed."""
    from torchdnc.engines.sparse import pages
    from torchdnc.ops import content, sparse

    here = Path(__file__).parent
    sources = [*sorted((here / "kernels").rglob("*.py")), here / "library.py"]
    sources += [Path(str(module.__file__)) for module in (content, sparse, pages)]
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]


def _renamed(function: Any, name: str) -> Any:
    """A copy of a function: numba keeps compiled code by name, and would take the one version for the other."""
    copy = types.FunctionType(function.__code__, function.__globals__, name)
    copy.__qualname__, copy.__module__ = name, function.__module__
    return copy
