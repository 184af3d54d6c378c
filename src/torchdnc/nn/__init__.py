"""Parameters and composition: the models."""

from torchdnc.nn.controllers import Controller, FeedforwardController, LSTMController
from torchdnc.nn.dnc import DNC
from torchdnc.nn.lstm import LSTM

__all__ = ["DNC", "LSTM", "Controller", "FeedforwardController", "LSTMController"]
