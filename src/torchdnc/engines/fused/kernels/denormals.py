"""Numbers too small to be normal."""

from typing import Any

import llvmlite.binding  # type: ignore[import-untyped]
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils

from torchdnc.engines.fused.kernels.options import EXACT
from torchdnc.engines.fused.kernels.simd import call_llvm, intrinsic

# Bits of the x86 control register: results, and operands, too small to be normal numbers are 0.
_FLUSH = 0x8000 | 0x0040


def _control_register(name: str) -> Any:
    @intrinsic
    def access(typing: Any, state: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            room = cgutils.alloca_once_value(builder, values[0])
            call_llvm(
                builder, f"llvm.x86.sse.{name}", ir.VoidType(), [builder.bitcast(room, ir.IntType(8).as_pointer())]
            )
            return builder.load(room)

        return types.int32(types.int32), generate

    return access


_read_control, _write_control = _control_register("stmxcsr"), _control_register("ldmxcsr")
_ON_X86 = llvmlite.binding.get_process_triple().startswith(("x86_64", "i686"))


@njit(**EXACT)
def flush_denormals():
    """Takes numbers below the smallest normal one for 0, on this thread; returns what `restore_denormals` needs.

    Products of small weights come there in no time, and an x86 takes a hundred times longer over each. Elsewhere they
    cost little, and stay.
    """
    if not _ON_X86:
        return np.int32(0)
    before = _read_control(np.int32(0))
    _write_control(np.int32(before | _FLUSH))
    return before


@njit(**EXACT)
def restore_denormals(before):
    """Back to how it was."""
    if _ON_X86:
        _write_control(before)
