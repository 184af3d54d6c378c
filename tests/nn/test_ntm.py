"""The NTM against its paper's equations in loops, and what its heads can do exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from tests import oracle
from tests.conftest import assert_close
from tests.nn.helpers import INPUTS, SLOTS, WORD, make_ntm, random, reached_state
from torchdnc import ops
from torchdnc.nn.controllers import CONTROLLERS
from torchdnc.tasks import Spec
from torchdnc.training.models import NTMModel

STEPS, BATCH = 6, 2
Array = Any
MANY: dict[str, Any] = {"read_heads": 2, "write_heads": 3, "shift_range": 2, "num_layers": 2}


def address(row: Array, memory: Array, before: Array, shift_range: int) -> Array:
    """One head's weighting, from its part of the interface; a loop for every sum of the paper's section 3.3."""
    key, (strength, gate, sharpness), shifts = row[:WORD], row[WORD : WORD + 3], oracle.softmax(row[WORD + 3 :])
    strength, gate, sharpness = np.logaddexp(0, strength), oracle.sigmoid(gate), 1 + np.logaddexp(0, sharpness)
    lengths = [np.sqrt(v @ v + oracle.EPSILON) for v in (*memory, key)]
    content = oracle.softmax(
        np.array([strength * (m @ key) / (n * lengths[-1]) for m, n in zip(memory, lengths[:-1], strict=True)])
    )
    gated = gate * content + (1 - gate) * before
    moved = np.zeros(len(memory))
    for i in range(len(memory)):
        for k in range(-shift_range, shift_range + 1):
            moved[i] += shifts[k + shift_range] * gated[(i - k) % len(memory)]
    return moved**sharpness / (moved**sharpness).sum()


def step_by_hand(model: Any, raw: Array, memory: Array, reading: Array, writing: Array) -> tuple[Array, ...]:
    """One row's step: the memory after it, the weightings, and the words read from the memory before it."""
    size, K = WORD + 3 + 2 * model.shift_range + 1, model.write_heads
    rows = raw[: (len(reading) + K) * size].reshape(-1, size)
    changes = raw[(len(reading) + K) * size :].reshape(K, 2, WORD)
    heads = [address(row, memory, w, model.shift_range) for row, w in zip(rows, [*reading, *writing], strict=True)]
    reading, writing = heads[: len(reading)], heads[len(reading) :]
    words = [sum(w[i] * memory[i] for i in range(len(memory))) for w in reading]
    after = memory.copy()
    for w, (erase, _) in zip(writing, changes, strict=True):
        after = after * (1 - np.outer(w, oracle.sigmoid(erase)))
    for w, (_, add) in zip(writing, changes, strict=True):
        after = after + np.outer(w, add)
    return after, np.stack(reading), np.stack(writing), np.stack(words)


@pytest.mark.parametrize("options", [{}, MANY], ids=["plain", "many heads"])
@pytest.mark.parametrize("controller", CONTROLLERS)
def test_ntm_is_the_papers(controller, options):
    model = make_ntm(output_size=None, controller=controller, **options)
    inputs, state = random(STEPS, BATCH, INPUTS), reached_state(model, BATCH)
    outputs, final = model(inputs, state)
    carried, words = state.controller, state.read_words
    memory, reading, writing = (leaf.numpy() for leaf in tuple(state)[1:4])
    with torch.no_grad():
        for t in range(STEPS):
            hidden, carried = model.controller(torch.cat([inputs[t], words.flatten(1)], 1), carried)
            raw = model.interface(hidden).numpy()
            rows = [step_by_hand(model, *row) for row in zip(raw, memory, reading, writing, strict=True)]
            memory, reading, writing, read = map(np.stack, zip(*rows, strict=True))
            words = torch.from_numpy(read)
            assert_close(outputs[t], np.concatenate([hidden.numpy(), read.reshape(BATCH, -1)], 1), 1e-10)
    assert_close(tuple(final)[1:], (memory, reading, writing, read), 1e-10)


def test_gradients_are_those_of_finite_differences():
    model = make_ntm(**MANY)
    inputs, state = random(3, 1, INPUTS).requires_grad_(), reached_state(model, 1)
    leaves = [leaf.detach().requires_grad_() for leaf in tuple(state)[1:]]

    def run(inputs, *leaves):
        outputs, final = model(inputs, type(state)(state.controller, *leaves))
        return outputs, *tuple(final)[1:]

    assert gradcheck(run, (inputs, *leaves))


def test_at_the_start_heads_are_on_the_first_slot():
    state = make_ntm(**MANY).initial_state(3)
    assert state.read_weights.argmax(-1).eq(0).all()
    assert state.read_weights.sum(-1).eq(1).all()
    assert state.write_weights.shape == (3, 3, SLOTS)
    assert state.memory.eq(1e-6).all()


def test_a_head_that_only_moves_visits_every_slot_in_turn():
    """Gate 0, all shift to the next slot, any sharpness: the head goes round the memory."""
    weights = torch.eye(1, 5, dtype=torch.float64).unsqueeze(0)
    shifts = torch.tensor([[[0.0, 0, 1]]], dtype=torch.float64)
    visited = []
    for _ in range(6):
        kept = ops.interpolate(torch.full_like(weights, 0.2), weights, torch.zeros(1, 1, dtype=torch.float64))
        weights = ops.sharpen(ops.shift(kept, shifts), torch.full((1, 1), 3.0, dtype=torch.float64))
        assert weights.max() == 1
        visited.append(weights.argmax().item())
    assert visited == [1, 2, 3, 4, 0, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sharpening_ends_in_numbers(dtype):
    """An even weighting stays even at any power, where each power alone would be 0, and gradients are numbers."""
    weights = torch.full((1, 2, 4096), 1 / 4096, dtype=dtype)
    weights[0, 1] = torch.nn.functional.one_hot(torch.tensor(7), 4096)
    weights.requires_grad_()
    sharpness = torch.full((1, 2), 1000.0, dtype=dtype, requires_grad=True)
    sharp = ops.sharpen(weights, sharpness)
    assert torch.allclose(sharp, weights)
    gradients = torch.autograd.grad(sharp.square().sum(), [weights, sharpness])
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_sharpening_by_one_normalises():
    weights = torch.rand(2, 3, 5, dtype=torch.float64)
    expected = weights / weights.sum(-1, keepdim=True)
    torch.testing.assert_close(ops.sharpen(weights, torch.ones(2, 3, dtype=torch.float64)), expected)


def test_recipes_can_name_it():
    model = NTMModel(hidden_size=4, memory_size=5, word_size=3, write_heads=2).build(Spec(3, 2))
    assert model(torch.zeros(2, 1, 3))[0].shape == (2, 1, 2)
