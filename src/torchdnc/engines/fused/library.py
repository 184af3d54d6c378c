"""Machine code of a kernel in one piece.

Numba optimises every function and turns it into machine code, and does so again in every function that calls it, as
part of that. Of a kernel only the whole is ever run: here what it calls stays as it was written until all of it has
come together, which is optimised once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from numba.core.codegen import JITCodeLibrary, JITCPUCodegen
from numba.core.registry import cpu_target


class _Library(JITCodeLibrary):
    """What belongs to one function: with all that it calls if it can be called from Python, else to be called only."""

    @property
    def _is_whole(self) -> bool:
        return any(
            function.name.startswith("_ZN7cpython") and not function.is_declaration
            for function in self._final_module.functions
        )

    def _optimize_functions(self, module: Any) -> None:
        module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self) -> None:
        if self._is_whole:
            super()._optimize_final_module()

    def _finalize_final_module(self) -> None:
        if self._is_whole:
            super()._finalize_final_module()
        else:
            self._finalize_dynamic_globals()
            self._finalized = True


class _Codegen(JITCPUCodegen):
    _library_class = _Library

    def set_env(self, name: str, environment: Any) -> None:
        if self._engine.is_symbol_defined(name):
            super().set_env(name, environment)


PRIVATE: Final = (
    "_optimize_functions",
    "_optimize_final_module",
    "_finalize_final_module",
    "_finalize_dynamic_globals",
)
"""Methods that are numba's own affair, and replaced or called here all the same."""


@contextmanager
def in_one_piece() -> Iterator[None]:
    """Meanwhile functions are compiled so; the caller holds numba's lock. A numba made otherwise does it in its way."""
    target = cpu_target.target_context
    before = getattr(target, "_internal_codegen", None)
    if before is None or not all(hasattr(JITCodeLibrary, name) for name in PRIVATE):
        yield
        return
    target._internal_codegen = _Codegen("torchdnc")
    try:
        yield
    finally:
        target._internal_codegen = before
