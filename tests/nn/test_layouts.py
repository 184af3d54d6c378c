"""Batch first, a single sequence, packed sequences: other layouts of the same numbers."""

from __future__ import annotations

import pytest
import torch
from torch.nn.utils.rnn import PackedSequence, pack_sequence, unpack_sequence
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
    unbatched,
    weighted_sum,
)

STEPS, BATCH = 5, 3
MAKERS = [make_dnc, make_lstm, make_dnc_with_own_controller]


@pytest.mark.parametrize("make", [make_dnc, make_lstm])
def test_batch_first_swaps_two_dimensions(make):
    time_first, batch_first = make(), make(batch_first=True)
    inputs, state = random(STEPS, BATCH, INPUTS), reached_state(time_first, BATCH)
    lengths, reset = torch.tensor([5, 2, 4]), random(STEPS, BATCH, seed=3) > 0.5

    def swapped(inputs, state):
        outputs, state = batch_first(inputs.transpose(0, 1), state, lengths, reset.T)
        assert outputs.shape[:2] == (BATCH, STEPS)
        return outputs.transpose(0, 1), state

    expected = measure(time_first, lambda *given: time_first(*given, lengths, reset), inputs, state)
    assert_same(measure(batch_first, swapped, inputs, state), expected)


def test_batch_first_leaves_steps_and_single_sequences_as_they_are():
    time_first, batch_first = make_dnc(), make_dnc(batch_first=True)
    inputs = random(STEPS, INPUTS)
    assert_close(batch_first(inputs)[0], time_first(inputs)[0], 0)
    assert_close(batch_first.step(inputs)[0], time_first.step(inputs)[0], 0)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_a_single_sequence_equals_a_batch_of_one(make):
    model = make()
    inputs, state = random(STEPS, 1, INPUTS), reached_state(model, 1)

    def without_batch(inputs, state):
        outputs, final = model(inputs.squeeze(1), unbatched(state, 0))
        assert outputs.dim() == 2
        return outputs.unsqueeze(1), pytree.tree_map(lambda leaf: leaf.unsqueeze(0), final)

    assert_same(measure(model, without_batch, inputs, state), measure(model, model, inputs, state))


@pytest.mark.parametrize("make", MAKERS)
def test_a_step_of_a_single_sequence_equals_that_of_a_batch_of_one(make):
    model = make()
    step_input, state = random(1, INPUTS), reached_state(model, 1)
    expected, expected_state = model.step(step_input, state)
    output, final = model.step(step_input[0], unbatched(state, 0))
    assert_close(output, expected[0], EXACT)
    assert_same_state(final, unbatched(expected_state, 0))


@pytest.mark.parametrize("length", [3, torch.tensor(3), torch.tensor([3]), [3]], ids=repr)
def test_length_and_reset_of_a_single_sequence(length):
    model = make_dnc()
    inputs, reset = random(STEPS, INPUTS), torch.tensor([False, True, False, False, True])
    outputs, final = model(inputs, lengths=length, reset=reset)
    before, _ = model(inputs[:1])
    after, expected_state = model(inputs[1:3])
    assert_close(outputs, torch.cat([before, after, torch.zeros(2, outputs.shape[1])]), EXACT)
    assert_same_state(final, expected_state)


def test_initial_state_of_a_single_sequence_has_no_batch():
    model = make_dnc(num_layers=2)
    inputs = random(STEPS, INPUTS)
    outputs, final = model(inputs, model.initial_state())
    assert_close(outputs, model(inputs)[0], 0)
    assert_same_state(model.initial_state(), unbatched(model.initial_state(4), 2))
    assert_same_state(final, unbatched(model(inputs.unsqueeze(1))[1], 0))


PACKINGS = [((3, 5, 1), False), ((5, 3, 1), False), ((5, 3, 1), True), ((2, 2, 2), True)]
"""Lengths of rows, and whether they are promised to be in descending order."""


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize(("lengths", "enforce_sorted"), PACKINGS, ids=str)
@pytest.mark.parametrize("make", MAKERS)
def test_a_packed_sequence_equals_its_rows(make, lengths, enforce_sorted, batch_first):
    """Outputs, states and gradients; states go in and come out in the order of the rows that were packed."""
    model = make(batch_first=batch_first)
    inputs, state = random(max(lengths), len(lengths), INPUTS), reached_state(make(), len(lengths))

    def packed(inputs, state):
        rows = [inputs[:length, row] for row, length in enumerate(lengths)]
        outputs, final = model(pack_sequence(rows, enforce_sorted), state)
        return tuple(unpack_sequence(outputs)), final

    assert_same(measure(model, packed, inputs, state), measure(model, row_by_row(model, lengths), inputs, state))


@pytest.mark.parametrize(("lengths", "enforce_sorted"), PACKINGS, ids=str)
def test_a_packed_sequence_comes_out_packed_as_it_went_in(lengths, enforce_sorted):
    packed = pack_sequence([random(length, INPUTS) for length in lengths], enforce_sorted)
    outputs, _ = make_dnc()(packed)
    assert isinstance(outputs, PackedSequence)
    assert outputs.batch_sizes.tolist() == packed.batch_sizes.tolist()
    for actual, expected in zip(outputs[2:], packed[2:], strict=True):
        assert repr(actual) == repr(expected)


def test_reset_of_a_packed_sequence_is_in_the_callers_order():
    model = make_dnc()
    rows = [random(2, INPUTS, seed=1), random(4, INPUTS, seed=2)]
    reset = torch.zeros(4, 2, dtype=torch.bool)
    reset[3, 1] = reset[1, 0] = True
    outputs, final = model(pack_sequence(rows, enforce_sorted=False), reset=reset)
    for i, (row, start) in enumerate(zip(rows, (1, 3), strict=True)):
        afresh, expected_state = model(row[start:])
        expected = torch.cat([model(row[:start])[0], afresh])
        assert_close(unpack_sequence(outputs)[i], expected, EXACT)
        assert_same_state(unbatched(final, i), expected_state)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_a_rows_outputs_do_not_depend_on_its_batch(make):
    model = make()
    inputs, state = random(STEPS, BATCH, INPUTS), reached_state(model, BATCH)
    outputs, final = model(inputs, state)
    for row in range(BATCH):
        alone, expected_state = model(inputs[:, row], unbatched(state, row))
        assert_close(outputs[:, row], alone, EXACT)
        assert_same_state(unbatched(final, row), expected_state)
    others = inputs.clone()
    others[:, 1:] = float("nan")
    assert_close(model(others, state)[0][:, 0], outputs[:, 0], EXACT)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_a_batch_of_no_rows_gives_outputs_of_no_rows(make):
    """As `nn.LSTM` has it; every gradient is zero."""
    model = make()
    theirs, _ = torch.nn.LSTM(INPUTS, 2)(torch.zeros(STEPS, 0, INPUTS))
    lengths, reset = torch.zeros(0, dtype=torch.long), torch.zeros(STEPS, 0, dtype=torch.bool)
    outputs, final = model(random(STEPS, 0, INPUTS), None, lengths, reset)
    assert outputs.shape[:2] == theirs.shape[:2] == (STEPS, 0)
    assert_same_state(final, model.initial_state(0))
    assert_same_state(final, model.initial_state(3)[:0])
    for gradient in torch.autograd.grad(weighted_sum((outputs, final)), list(model.parameters())):
        assert not gradient.any()
