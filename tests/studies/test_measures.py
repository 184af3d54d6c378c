"""What studies measure, against what is known of made-up models."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from torchdnc import DNC, LSTM, MemoryOptions, SuperLSTM
from torchdnc.ops import split_interface
from torchdnc.studies import addresses, recalling, resize, retention, reuse
from torchdnc.studies.probing import Probe
from torchdnc.tasks import Copy, KeyedRecall


def test_a_probe_finds_what_a_linear_map_can_and_nothing_else() -> None:
    torch.manual_seed(0)
    targets = torch.randint(0, 4, (2000,))
    told = nn.functional.one_hot(targets, 4).float() @ torch.randn(4, 6) + 0.05 * torch.randn(2000, 6)
    probe = Probe(torch.cat([told, torch.ones(2000, 1), torch.randn(2000, 3)], 1))
    assert probe.above_chance(targets, 4) > 0.99
    assert abs(probe.above_chance(torch.randint(0, 4, (2000,)), 4)) < 0.1
    assert probe.above_chance(torch.ones(2000, dtype=torch.long), 4) == 0


def test_a_probe_is_told_of_samples_that_it_was_not_fitted_to() -> None:
    torch.manual_seed(0)
    # As many features as samples: every target could be fitted.
    assert Probe(torch.randn(200, 100)).above_chance(torch.randint(0, 2, (200,)), 2) < 0.5


def memory(slots: int) -> DNC:
    torch.manual_seed(1)
    task = recalling.TASK
    own = MemoryOptions(skip_unwritten=True, links="none")
    return DNC(task.spec.input_size, 12, task.spec.output_size, memory_size=slots, word_size=5, options=own)


def test_a_shuffled_memory_takes_its_slots_in_an_order_of_each_row() -> None:
    model = memory(slots=recalling.SLOTS)
    state = addresses.shuffled(model, 4)
    assert (state.memory.usage <= 1e-3).all()
    assert torch.equal(state.memory.usage.sort(-1).values[0], state.memory.usage.sort(-1).values[3])
    assert not torch.equal(state.memory.usage.argsort(-1)[0], state.memory.usage.argsort(-1)[3])
    assert addresses.renumbered(model) < 1e-4


def test_forget_gates_are_those_that_move_the_cell() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(5, 3, 4)
    for model in (LSTM(4, 6), SuperLSTM(4, 6)):
        gates = retention.forget_gates(model, inputs)
        assert gates.shape == (5, 3, 6)
        _, before = model(inputs[:4])
        _, after = model(inputs)
        layer = model.controller.layers[0]
        write, _, candidate, _ = layer(torch.cat([inputs[4], before.hidden[0]], -1)).chunk(4, -1)
        added = torch.sigmoid(write) * torch.tanh(candidate)
        torch.testing.assert_close(after.cell[0], gates[4] * before.cell[0] + added)


def test_what_a_slot_forgets_is_the_weight_that_writes_to_it() -> None:
    torch.manual_seed(0)
    task = replace(retention.TASK, min_delay=3, max_delay=3)
    batch = task.sample(2, seed=0, step=0)
    model = DNC(task.spec.input_size, 8, task.spec.output_size, memory_size=16, word_size=5)
    found = retention._of_slots(model, batch)
    _, states = model.trace(batch.inputs)
    for item in range(retention.ITEMS):
        slot = int(states[item].memory.write_weights[1].argmax())
        torch.testing.assert_close(found[6, 1, item], states[6].memory.write_weights[1, slot])


def test_half_is_lost_when_guesses_are_taken_out() -> None:
    shares = {"a": [1.0, 1.0, 0.9, 0.5], "b": [0.02, 0.02, 0.016, 0.016], "c": [1.0, 0.8, 0.8, 0.7]}
    models = {name: {"recalled": [share]} for name, share in shares.items()}
    found = {"delays": [0, 20, 40, 80], "trained": 20, "models": models}
    # 0.5 is less than half of 1 once a guess's 1/64 is gone.
    assert [retention.half_lost(found, name) for name in "abc"] == ["80", "–", "over 80"]


def test_gates_of_reuse_are_told_of_the_steps_they_act_on() -> None:
    batch = Copy(bits=2, min_length=1, max_length=1, sequences=2).sample(1, seed=0, step=0)
    # Vector, sign, answer, twice; the gate after an answer frees what was read for it.
    assert batch.mask[:, 0].tolist() == [False, False, True] * 2
    free, write = [0.1, 0.2, 0.3, 0.9, 0.4, 0.5], [0.8, 0.0, 0.1, 0.6, 0.0, 0.3]
    model = DNC(3, 4, 2, memory_size=4, word_size=2)
    interface = split_interface(model.interface(torch.zeros(1, 4)), 2, 1)
    state = model.initial_state(1)
    steps = []
    for step in range(6):
        xi = interface._replace(
            free_gates=torch.tensor([[free[step]]]),
            write_gate=torch.tensor([write[step]]),
            alloc_gate=torch.tensor([0.5]),
        )
        weights = nn.functional.one_hot(torch.tensor([step % 2]), 4).float()
        steps.append((xi, state._replace(memory=state.memory._replace(write_weights=weights))))
    found = reuse.gates_of(batch, steps)
    assert found["free after repeating"] == pytest.approx(0.9)
    assert found["free after storing"] == pytest.approx((0.2 + 0.4) / 2)
    assert found["allocation while storing"] == pytest.approx(0.5 * (0.8 + 0.6) / 2)
    assert found["allocation while repeating"] == pytest.approx(0.5 * (0.1 + 0.3) / 2)
    assert found["slots"] == 2


def test_the_most_items_are_those_recalled_at_any_number_less_guesses() -> None:
    seeds = [{"shares": [1.0, 0.5]}, {"shares": [0.25, 1 / 256]}]
    found = {"items": [10, 40, 80], "capacity": {"dnc-8": {"32": seeds}}}
    most = addresses.at_most(found, "dnc-8", 32)
    assert most[0] == pytest.approx(40 * (0.5 - 1 / 256) / (1 - 1 / 256))
    assert most[1] == pytest.approx(10 * (0.25 - 1 / 256) / (1 - 1 / 256))


def test_a_warmer_interface_adds_to_the_strengths_alone() -> None:
    task = KeyedRecall()
    torch.manual_seed(0)
    options = MemoryOptions(links="none")
    model = DNC(
        task.spec.input_size, 9, task.spec.output_size, memory_size=64, word_size=5, read_heads=2, options=options
    )
    features = 5 * torch.randn(7, 9)
    before = split_interface(model.interface(features), 5, 2, options)
    after = split_interface(resize.warmed(model).interface(features), 5, 2, options)
    more = math.log(64 / recalling.SLOTS)
    for name, was, now in zip(before._fields, before, after, strict=True):
        if isinstance(was, Tensor):
            torch.testing.assert_close(now, was + more if "strength" in name else was)
    assert resize.warmed(memory(slots=2)).interface(torch.randn(3, 12)).isfinite().all()
