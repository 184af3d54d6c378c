"""`input_gain`: the first weights for the input alone are larger."""

import pytest
import torch

from tests.nn.helpers import HIDDEN, INPUTS, OUTPUTS, SLOTS, WORD
from torchdnc import DNC, LSTM, SparseDNC

MODELS = {
    "dnc": lambda gain: DNC(INPUTS, HIDDEN, OUTPUTS, memory_size=SLOTS, word_size=WORD, num_layers=2, input_gain=gain),
    "bidirectional": lambda gain: DNC(INPUTS, HIDDEN, OUTPUTS, bidirectional=True, num_layers=2, input_gain=gain),
    "feedforward": lambda gain: DNC(INPUTS, HIDDEN, OUTPUTS, controller="feedforward", input_gain=gain),
    "sparse": lambda gain: SparseDNC(INPUTS, HIDDEN, OUTPUTS, word_size=WORD, input_gain=gain),
    "lstm": lambda gain: LSTM(INPUTS, HIDDEN, OUTPUTS, num_layers=2, input_gain=gain),
}


def drawn(make, gain):
    """The parameters of a model when it is built, and when it is drawn anew."""
    torch.manual_seed(3)
    model = make(gain)
    built = {name: value.detach().clone() for name, value in model.named_parameters()}
    torch.manual_seed(3)
    model.reset_parameters()
    return built, dict(model.named_parameters())


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_only_the_inputs_weights_are_larger(make):
    plain, _ = drawn(make, 1.0)
    for larger in drawn(make, 7.0):
        for name, value in larger.items():
            expected = plain[name].clone()
            if name.startswith(("controller.layers", "backward_lstm")) and name.endswith(("weight", "weight_ih_l0")):
                expected[:, :INPUTS] *= 7
            torch.testing.assert_close(value.detach(), expected, rtol=1e-6, atol=0)
