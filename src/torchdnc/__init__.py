"""The differentiable neural computer (Graves et al., Nature 2016) for PyTorch."""

from torchdnc import ops
from torchdnc.engines.sparse.states import SparseMemoryState, SparseState
from torchdnc.nn import DNC, LSTM, NTM, SparseDNC, SuperLSTM
from torchdnc.types import DNCState, LSTMState, MemoryOptions, MemoryState, NTMState

__all__ = [
    "DNC",
    "LSTM",
    "NTM",
    "DNCState",
    "LSTMState",
    "MemoryOptions",
    "MemoryState",
    "NTMState",
    "SparseDNC",
    "SparseMemoryState",
    "SparseState",
    "SuperLSTM",
    "ops",
]
