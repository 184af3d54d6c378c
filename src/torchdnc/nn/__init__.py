"""Parameters and composition: the models."""

from torchdnc.nn.controllers import Controller, FeedforwardController, LSTMController
from torchdnc.nn.dnc import DNC
from torchdnc.nn.lstm import LSTM
from torchdnc.nn.ntm import NTM
from torchdnc.nn.sparse_dnc import SparseDNC
from torchdnc.nn.super_lstm import GateNetworks, SuperLSTM

__all__ = [
    "DNC",
    "LSTM",
    "NTM",
    "Controller",
    "FeedforwardController",
    "GateNetworks",
    "LSTMController",
    "SparseDNC",
    "SuperLSTM",
]
