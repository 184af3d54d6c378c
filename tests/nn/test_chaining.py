"""A sequence in one call, in pieces and in single steps: the same numbers, and the same gradients."""

from __future__ import annotations

import pytest
import torch
from torch.utils import _pytree as pytree

from tests.conftest import assert_close
from tests.nn.helpers import INPUTS, MODELS, assert_same, make_dnc, measure, random, reached_state

STEPS = 6


def in_pieces(model, cuts):
    def run(inputs, state):
        outputs = []
        for piece in torch.tensor_split(inputs, cuts):
            output, state = model(piece, state)
            outputs.append(output)
        return torch.cat(outputs), state

    return run


def in_steps(model):
    def run(inputs, state):
        outputs = []
        for step_input in inputs:
            output, state = model.step(step_input, state)
            outputs.append(output)
        return torch.stack(outputs), state

    return run


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]()


@pytest.mark.parametrize("cuts", [(1,), (3,), (1, 5), (2, 3, 4), (1, 2, 3, 4, 5)], ids=str)
def test_chained_calls_equal_one_call(model, cuts):
    inputs, state = random(STEPS, 2, INPUTS), reached_state(model)
    whole = measure(model, model, inputs, state)
    assert_same(measure(model, in_pieces(model, cuts), inputs, state), whole)


def test_steps_equal_one_call(model):
    inputs, state = random(STEPS, 2, INPUTS), reached_state(model)
    whole = measure(model, model, inputs, state)
    assert_same(measure(model, in_steps(model), inputs, state), whole)


def test_steps_from_no_state_equal_one_call(model):
    inputs = random(STEPS, 2, INPUTS)
    outputs, _ = model(inputs)
    first, state = model.step(inputs[0])
    rest, _ = in_steps(model)(inputs[1:], state)
    assert_close(torch.cat([first.unsqueeze(0), rest]), outputs, 1e-9)


def test_a_cut_in_the_gradient_is_noticed():
    """What the tests above compare can tell chained pieces from detached ones."""
    model = make_dnc()
    inputs, state = random(STEPS, 2, INPUTS), reached_state(model)
    whole = measure(model, model, inputs, state)

    def detached(inputs, state):
        first, state = model(inputs[:3], state)
        second, state = model(inputs[3:], state.detach())
        return torch.cat([first, second]), state

    cut = measure(model, detached, inputs, pytree.tree_map(torch.clone, state))
    assert_close(cut["outputs"], whole["outputs"], 1e-9)
    with pytest.raises(AssertionError, match="off by"):
        assert_same(cut, whole, tolerance=1e-3)


def test_reads_are_fed_back_within_a_call():
    """The controller's second step sees the word that its first step read, in one and the same call."""
    model = make_dnc(output_size=None, controller="feedforward")
    inputs, state = random(2, 3, INPUTS), reached_state(model, 3)
    features, _ = model(inputs, state)
    hidden_size = model.hidden_size
    first_read, second_hidden = features[0, :, hidden_size:], features[1, :, :hidden_size]

    layer = model.controller.layers[0]
    by_input, by_read = layer.weight.split([INPUTS, first_read.shape[1]], dim=1)
    expected = torch.tanh(inputs[1] @ by_input.T + first_read @ by_read.T + layer.bias)
    without_reads = torch.tanh(inputs[1] @ by_input.T + layer.bias)
    assert_close(second_hidden, expected)
    with pytest.raises(AssertionError, match="off by"):
        assert_close(second_hidden, without_reads, tolerance=1e-2)
