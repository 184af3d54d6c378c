"""`DNC.trace`: the states of every step, against those of calls."""

from functools import partial

import pytest
import torch

from tests.conftest import assert_close
from tests.nn.helpers import (
    EXACT,
    INPUTS,
    MODELS,
    SLOTS,
    assert_same_state,
    make_dnc,
    make_lstm,
    random,
    reached_state,
    unbatched,
)
from torchdnc import DNC

DNCS = {name: make for name, make in MODELS.items() if isinstance(make(), DNC)}
LOOKS_AHEAD = partial(make_dnc, num_layers=2, bidirectional=True)
T, B = 2 * SLOTS, 2


@pytest.mark.parametrize("make", [*DNCS.values(), LOOKS_AHEAD], ids=[*DNCS, "looks ahead"])
def test_outputs_and_the_last_state_are_those_of_a_call(make):
    model, inputs = make(), random(T, B, INPUTS)
    output, final = model(inputs)
    traced, states = model.trace(inputs)
    assert_close(traced, output, EXACT)
    assert len(states) == T
    assert_same_state(states[-1], final)


@pytest.mark.parametrize("make", DNCS.values(), ids=DNCS)
def test_every_state_is_that_of_a_call_over_the_steps_so_far(make):
    model, inputs = make(), random(T, B, INPUTS)
    start = reached_state(model)
    output, states = model.trace(inputs, start)
    for t in range(T):
        shorter, expected = model(inputs[: t + 1], start)
        assert_same_state(states[t], expected)
        assert_close(output[: t + 1], shorter, EXACT)


def test_a_model_that_looks_ahead_is_traced_over_the_whole_sequence():
    model, inputs = LOOKS_AHEAD(), random(T, B, INPUTS)
    other = torch.cat([inputs[:-1], -inputs[-1:]])
    (one, states), (two, others) = model.trace(inputs), model.trace(other)
    assert (one[0] - two[0]).abs().max() > 1e-6
    assert (states[0].memory.memory - others[0].memory.memory).abs().max() > 1e-9


def test_layouts():
    model = make_dnc(batch_first=True)
    inputs, start = random(B, T, INPUTS), reached_state(make_dnc())
    output, states = model.trace(inputs, start)
    assert_close(output, model(inputs, start)[0], EXACT)
    alone, single = model.trace(inputs[1], unbatched(start, 1))
    assert_close(alone, output[1], EXACT)
    for state, expected in zip(single, states, strict=True):
        assert_same_state(state, unbatched(expected, 1))


def test_bad_arguments_are_refused():
    model = make_dnc()
    with pytest.raises(ValueError, match=r"input must have shape \[any, 3\], got \[4\]"):
        model.trace(random(4))
    with pytest.raises(TypeError, match="state must be of type DNCState, got LSTMState"):
        model.trace(random(T, B, INPUTS), make_lstm().initial_state(B))
