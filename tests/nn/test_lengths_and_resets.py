"""Rows that end early, and rows that start afresh: each equals runs of its own."""

from __future__ import annotations

import pytest
import torch
from torch.utils import _pytree as pytree

from tests.conftest import assert_close
from tests.nn.helpers import (
    EXACT,
    INPUTS,
    MODELS,
    assert_same,
    assert_same_state,
    make_dnc,
    make_dnc_with_own_controller,
    make_lstm,
    measure,
    random,
    reached_state,
    row_by_row,
    stacked,
    unbatched,
)

STEPS, BATCH = 5, 3
LENGTHS = [(5, 5, 5), (0, 5, 3), (1, 2, 0), (0, 0, 0)]
MAKERS = [make_dnc, make_lstm, make_dnc_with_own_controller]


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]()


def with_lengths(model, lengths):
    """A run that gives the outputs within each row's length, and checks that all others are zero."""

    def run(inputs, state):
        outputs, final = model(inputs, state, torch.tensor(lengths))
        for row, length in enumerate(lengths):
            assert torch.equal(outputs[length:, row], torch.zeros_like(outputs[length:, row]))
        return tuple(outputs[:length, row] for row, length in enumerate(lengths)), final

    return run


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_rows_of_several_lengths_equal_rows_run_alone(model, lengths):
    inputs, state = random(STEPS, BATCH, INPUTS), reached_state(model, BATCH)
    expected = measure(model, row_by_row(model, lengths), inputs, state)
    assert_same(measure(model, with_lengths(model, lengths), inputs, state), expected)


@pytest.mark.parametrize("junk", [float("nan"), float("inf"), -1e30])
def test_padding_is_never_read(model, junk):
    lengths = (3, 0, 5)
    clean, state = random(STEPS, BATCH, INPUTS), reached_state(model, BATCH)
    dirty = clean.clone()
    for row, length in enumerate(lengths):
        dirty[length:, row] = junk
    run = with_lengths(model, lengths)
    actual, expected = measure(model, run, dirty, state), measure(model, run, clean, state)
    for row, length in enumerate(lengths):
        assert not actual["gradient of inputs"][length:, row].any()
    assert_same(actual, expected, tolerance=0)


def test_a_row_of_length_zero_keeps_its_state_to_the_bit():
    model = make_dnc()
    state = reached_state(model, BATCH)
    _, final = model(random(STEPS, BATCH, INPUTS), state, torch.tensor([0, 5, 0]))
    assert_same_state(final[[0, 2]], state[[0, 2]], tolerance=0)
    assert not torch.equal(final.memory.memory[1], state.memory.memory[1])


def test_outputs_past_the_end_are_zero_whatever_the_bias():
    model = make_dnc()
    with torch.no_grad():
        dict(model.named_parameters())["output.bias"].fill_(7.0)
    outputs, _ = model(random(STEPS, BATCH, INPUTS), lengths=torch.tensor([2, 0, 5]))
    past = torch.arange(STEPS).unsqueeze(1) >= torch.tensor([2, 0, 5])
    assert (outputs[past] == 0).all()
    assert (outputs[~past] != 0).all()


@pytest.mark.parametrize(
    "lengths",
    [[2, 0, 5], (2, 0, 5), torch.tensor([2, 0, 5], dtype=torch.int32)],
    ids=["list", "tuple", "int32"],
)
def test_lengths_may_be_any_integers(lengths):
    model, inputs = make_dnc(), random(STEPS, BATCH, INPUTS)
    expected = model(inputs, lengths=torch.tensor([2, 0, 5]))
    assert_close(model(inputs, lengths=lengths)[0], expected[0], 0)
    assert_same_state(model(inputs, lengths=lengths)[1], expected[1], 0)


RESET_STEPS = ((), (0,), (2, 3))
"""For each row, the steps before which it starts afresh."""


def reset_mask(reset_steps):
    reset = torch.zeros(STEPS, len(reset_steps), dtype=torch.bool)
    for row, steps in enumerate(reset_steps):
        reset[list(steps), row] = True
    return reset


def in_episodes(model, reset_steps, lengths=(STEPS,) * BATCH):
    """A run of every row alone, in a new call without a state wherever it starts afresh."""

    def run_row(inputs, state, starts):
        outputs = []
        for i, piece in enumerate(torch.tensor_split(inputs, starts)):
            # A start that hangs on the state keeps its gradients defined: they are zero.
            state = pytree.tree_map(lambda leaf, fresh: 0 * leaf + fresh, state, model.initial_state()) if i else state
            if len(piece):
                output, state = model(piece, state)
                outputs.append(output)
        return torch.cat(outputs), state

    def run(inputs, state):
        runs = []
        for row, (steps, length) in enumerate(zip(reset_steps, lengths, strict=True)):
            starts = [step for step in steps if step < length]
            runs.append(run_row(inputs[:length, row], unbatched(state, row), starts))
        outputs, finals = zip(*runs, strict=True)
        return outputs, stacked(finals)

    return run


def test_a_reset_equals_a_new_call(model):
    inputs, state = random(STEPS, BATCH, INPUTS), reached_state(model, BATCH)

    def with_reset(inputs, state):
        outputs, final = model(inputs, state, reset=reset_mask(RESET_STEPS))
        return tuple(outputs.unbind(1)), final

    actual = measure(model, with_reset, inputs, state)
    assert_same(actual, measure(model, in_episodes(model, RESET_STEPS), inputs, state))
    without = measure(model, lambda inputs, state: model(inputs, state), inputs, state)
    assert_close(actual["outputs"][0], without["outputs"][:, 0], EXACT)
    assert not torch.allclose(actual["outputs"][1], without["outputs"][:, 1])


@pytest.mark.parametrize("make", MAKERS)
def test_a_reset_past_the_length_is_ignored(make):
    """Lengths and resets together, with resets before, at and past the end of a row."""
    model = make()
    lengths, reset_steps = (3, 2, 5), ((1, 3, 4), (2,), (0, 4))
    inputs, state = random(STEPS, BATCH, INPUTS), reached_state(model, BATCH)
    inputs[3:, 0] = float("nan")

    def with_both(inputs, state):
        outputs, final = model(inputs, state, torch.tensor(lengths), reset_mask(reset_steps))
        return tuple(outputs[:length, row] for row, length in enumerate(lengths)), final

    expected = measure(model, in_episodes(model, reset_steps, lengths), inputs, state)
    assert_same(measure(model, with_both, inputs, state), expected)


@pytest.mark.parametrize("memory_size", [4, 9])
def test_a_reset_of_a_resized_state_keeps_its_size(memory_size):
    """A row starts afresh in as many slots as its neighbours have."""
    model, other = make_dnc(), make_dnc(memory_size=memory_size)
    inputs = random(STEPS, BATCH, INPUTS)
    state = model.resize(reached_state(model, BATCH), memory_size)
    outputs, final = model(inputs, state, reset=reset_mask(((2,), (), (2,))))
    expected, expected_state = other(inputs[2:])
    assert_close(outputs[2:, [0, 2]], expected[:, [0, 2]], EXACT)
    assert_same_state(final[[0, 2]], expected_state[[0, 2]])
    assert_close(outputs[:, 1], model(inputs, state)[0][:, 1], EXACT)


def test_a_reset_ends_what_a_broken_row_did():
    """NaN in one episode reaches neither the next one nor other rows."""
    model, inputs = make_dnc(), random(STEPS, BATCH, INPUTS)
    broken = inputs.clone()
    broken[0, 1] = float("nan")
    reset = reset_mask(((), (1,), ()))
    outputs, final = model(broken, reset=reset)
    expected, expected_state = model(inputs, reset=reset)
    assert outputs[0, 1].isnan().all()
    assert_close(outputs[1:], expected[1:], EXACT)
    assert_same_state(final, expected_state)
