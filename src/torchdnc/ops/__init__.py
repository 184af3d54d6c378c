"""One step of the memory as pure functions: one equation, one function. A complete DNC to read."""

from torchdnc.ops.access import access
from torchdnc.ops.allocation import allocation_weights, retention, usage
from torchdnc.ops.content import content_weights, slot_softmax
from torchdnc.ops.interface import interface_size, oneplus, split_interface
from torchdnc.ops.links import directional_weights, link, precedence, sharpen_directional
from torchdnc.ops.location import interpolate, sharpen, shift
from torchdnc.ops.overflow import age, exists, grow, pin, released
from torchdnc.ops.reading import read_weights, read_words
from torchdnc.ops.report import MemoryReport, memory_report
from torchdnc.ops.sparse import (
    SparseInterface,
    SparseSlots,
    keep_largest,
    oldest_slot,
    sparse_access,
    sparse_content_weights,
    sparse_interface_size,
    sparse_link,
    sparse_precedence,
    sparse_write,
    sparse_write_weights,
    split_sparse_interface,
)
from torchdnc.ops.writing import deallocate, erase_and_write, write_weights, written

__all__ = [
    "MemoryReport",
    "SparseInterface",
    "SparseSlots",
    "access",
    "age",
    "allocation_weights",
    "content_weights",
    "deallocate",
    "directional_weights",
    "erase_and_write",
    "exists",
    "grow",
    "interface_size",
    "interpolate",
    "keep_largest",
    "link",
    "memory_report",
    "oldest_slot",
    "oneplus",
    "pin",
    "precedence",
    "read_weights",
    "read_words",
    "released",
    "retention",
    "sharpen",
    "sharpen_directional",
    "shift",
    "slot_softmax",
    "sparse_access",
    "sparse_content_weights",
    "sparse_interface_size",
    "sparse_link",
    "sparse_precedence",
    "sparse_write",
    "sparse_write_weights",
    "split_interface",
    "split_sparse_interface",
    "usage",
    "write_weights",
    "written",
]
