"""The differentiable neural computer (Graves et al., Nature 2016) for PyTorch."""

from torchdnc import ops
from torchdnc.nn import DNC, LSTM, SuperLSTM
from torchdnc.types import DNCState, LSTMState, MemoryOptions, MemoryState

__all__ = ["DNC", "LSTM", "DNCState", "LSTMState", "MemoryOptions", "MemoryState", "SuperLSTM", "ops"]
