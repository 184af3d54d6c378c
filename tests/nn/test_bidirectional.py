"""The bidirectional controller: rows of other lengths, new starts, layouts, gradients, what it refuses."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tests.conftest import assert_close
from tests.nn.helpers import (
    EXACT,
    HIDDEN,
    INPUTS,
    assert_same,
    assert_same_state,
    make_dnc,
    measure,
    random,
    reached_state,
    row_by_row,
    unbatched,
)
from torchdnc import DNC

LENGTHS = [5, 0, 7, 1]
STEPS = max(LENGTHS)

make = partial(make_dnc, num_layers=2, read_heads=2, bidirectional=True, interface_norm=True)


def test_what_comes_later_matters_and_padding_does_not():
    model, inputs = make(), random(STEPS, len(LENGTHS), INPUTS)
    outputs, state = model(inputs, lengths=LENGTHS)
    later, padded = inputs.clone(), inputs.clone()
    later[4, 0] += 1
    assert (model(later, lengths=LENGTHS)[0][:4, 0] != outputs[:4, 0]).all()
    for row, length in enumerate(LENGTHS):
        padded[length:, row] = torch.nan
    again, same = model(padded, lengths=LENGTHS)
    assert_close(again, outputs, 0)
    assert_same_state(same, state, 0)


@pytest.mark.parametrize("engine", ["reference", "auto"])
def test_rows_of_other_lengths_are_as_alone(engine):
    model = make(engine=engine)
    inputs, state = random(STEPS, len(LENGTHS), INPUTS), reached_state(model, len(LENGTHS))

    def together(inputs, state):
        outputs, final = model(inputs, state, lengths=LENGTHS)
        return tuple(outputs[:length, row] for row, length in enumerate(LENGTHS)), final

    alone = measure(model, row_by_row(model, LENGTHS), inputs, state)
    both = measure(model, together, inputs, state)
    alone["outputs"], both["outputs"] = torch.cat(alone["outputs"]), torch.cat(both["outputs"])
    assert_same(both, alone)


@pytest.mark.parametrize("engine", ["reference", "auto"])
def test_a_new_start_divides_a_sequence_in_both_directions(engine):
    model, inputs = make(engine=engine), random(9, 2, INPUTS)
    state = reached_state(model)
    reset = torch.zeros(9, 2, dtype=torch.bool)
    reset[[4, 7], 0] = True
    # Past the end of its row it says nothing.
    reset[8, 1] = True
    outputs, final = model(inputs, state, lengths=[9, 6], reset=reset)
    pieces = [model(inputs[:4, 0], unbatched(state, 0))[0]]
    pieces.append(model(inputs[4:7, 0])[0])
    last, end = model(inputs[7:, 0])
    assert_close(outputs[:, 0], torch.cat([*pieces, last]), EXACT)
    assert_same_state(unbatched(final, 0), end)
    whole, end = model(inputs[:6, 1], unbatched(state, 1))
    assert_close(outputs[:6, 1], whole, EXACT)
    assert_same_state(unbatched(final, 1), end)


def test_layouts_agree():
    model, batch_first = make(), make(batch_first=True)
    inputs, lengths = random(STEPS, 2, INPUTS), [7, 4]
    expected, state = model(inputs, lengths=lengths)
    swapped, same = batch_first(inputs.transpose(0, 1), lengths=lengths)
    assert_close(swapped.transpose(0, 1), expected, EXACT)
    assert_same_state(same, state)
    packed, same = model(pack_padded_sequence(inputs, lengths))
    assert_close(pad_packed_sequence(packed)[0], expected, EXACT)
    assert_same_state(same, state)
    assert_close(model(inputs[:, 0])[0], model(inputs)[0][:, 0], EXACT)


def test_outputs_see_both_and_dropout_meets_both():
    features = make(output_size=None)(random(4, 2, INPUTS))[0]
    assert features.shape[-1] == 2 * 2 * HIDDEN + 2 * 4
    dropping = make(output_size=None, bypass_dropout=0.5)
    dropped = dropping(random(50, 2, INPUTS))[0] == 0
    words = 4 * HIDDEN
    assert 0.4 < dropped[..., : words // 2].double().mean() < 0.6
    assert 0.4 < dropped[..., words // 2 : words].double().mean() < 0.6
    assert not dropped[..., words:].any()


def test_parameters_are_drawn_anew():
    model: Any = make()
    before = [parameter.clone() for parameter in model.backward_lstm.parameters()]
    model.reset_parameters()
    assert all((old != new).any() for old, new in zip(before, model.backward_lstm.parameters(), strict=True))


def test_no_single_steps_and_no_other_controller():
    with pytest.raises(ValueError, match="step cannot run a model that looks ahead"):
        make().step(random(2, INPUTS))
    for controller in ("feedforward", nn.Linear(3, 5)):
        with pytest.raises(ValueError, match='controller must be "lstm" where bidirectional is True'):
            DNC(3, 5, controller=controller, bidirectional=True)
    for name in ("bidirectional", "interface_norm"):
        with pytest.raises(TypeError, match=f"{name} must be of type bool"):
            make_dnc(**{name: 1})


@pytest.mark.parametrize("lower", [torch.bfloat16, torch.float16])
def test_autocast(lower):
    model = make().float()
    inputs = random(STEPS, 2, INPUTS).float()
    expected = model(inputs)[0]
    with torch.autocast("cpu", dtype=lower):
        outputs, state = model(inputs)
    assert state.memory.memory.dtype == torch.float32
    assert_close(outputs.float(), expected, 0.2)
