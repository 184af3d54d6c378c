"""States in and out of a model: made, passed on, cut, moved, sliced and resized."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils import _pytree as pytree

from tests.conftest import assert_close
from tests.nn.helpers import (
    ALL_OPTIONS,
    EXACT,
    HIDDEN,
    INPUTS,
    MODELS,
    SLOTS,
    WORD,
    assert_same_state,
    make_dnc,
    measure,
    named_leaves,
    random,
    reached_state,
    unbatched,
)
from torchdnc import DNC, DNCState, LSTMState, MemoryOptions, MemoryState
from torchdnc.types import UNUSED

STEPS, BATCH = 5, 3


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]()


def test_the_initial_state_is_all_zeros():
    model = make_dnc(num_layers=2, read_heads=3)

    def zeros(*shape):
        return torch.zeros(BATCH, *shape, dtype=torch.float64)

    N, W, R, H = SLOTS, WORD, 3, HIDDEN
    memory = MemoryState(zeros(N, W), zeros(N), zeros(N), zeros(N, N), zeros(N), zeros(R, N))
    controller = LSTMState((zeros(H), zeros(H)), (zeros(H), zeros(H)))
    assert_same_state(model.initial_state(BATCH), DNCState(controller, memory, zeros(R, W)), tolerance=0)


def test_leaves_of_the_initial_state_share_no_storage(model):
    leaves = pytree.tree_leaves(model.initial_state(BATCH))
    assert len({leaf.untyped_storage().data_ptr() for leaf in leaves}) == len(leaves)


def test_no_state_is_the_initial_state(model):
    inputs = random(STEPS, BATCH, INPUTS)
    outputs, final = model(inputs)
    expected, expected_state = model(inputs, model.initial_state(BATCH))
    assert_close(outputs, expected, 0)
    assert_same_state(final, expected_state, 0)
    assert_close(model.step(inputs[0])[0], expected[0], EXACT)
    other, _ = model(inputs, reached_state(model, BATCH))
    assert not torch.allclose(other, expected)


def test_a_call_changes_neither_the_state_nor_the_inputs(model):
    inputs, state = random(STEPS, BATCH, INPUTS), reached_state(model, BATCH)
    given = [inputs, *pytree.tree_leaves(state)]
    before, versions = [leaf.clone() for leaf in given], [leaf._version for leaf in given]
    model(inputs, state, torch.tensor([5, 0, 2]), torch.ones(STEPS, BATCH, dtype=torch.bool))
    model.step(inputs[0], state)
    assert all(map(torch.equal, given, before))
    assert [leaf._version for leaf in given] == versions


def test_nothing_of_a_call_stays_in_the_model(model):
    def contents():
        return {name: dict(vars(module)) for name, module in model.named_modules()}

    inputs = random(STEPS, BATCH, INPUTS)
    before, (expected, _) = contents(), model(inputs)
    model.step(inputs[0], reached_state(model, BATCH))
    assert contents() == before
    assert not list(model.buffers())
    assert_close(model(inputs)[0], expected, 0)


def test_a_detached_state_is_a_constant(model):
    """Truncated back-propagation: the second piece's gradient is that from a state of plain numbers."""
    inputs = random(STEPS, BATCH, INPUTS)
    state: Any = model(inputs)[1]
    moving = {name for name, leaf in named_leaves(state).items() if leaf.requires_grad}
    constant = {".memory.written"}
    if isinstance(model, DNC) and model.options.links == "detached":
        constant.add(".memory.link")
    assert moving == named_leaves(state).keys() - constant
    detached = state.detach()
    assert not any(leaf.requires_grad for leaf in pytree.tree_leaves(detached))
    copied = pytree.tree_map(lambda leaf: torch.from_numpy(leaf.detach().numpy().copy()), state)
    parameters = list(model.parameters())
    actual, expected = (torch.autograd.grad(model(inputs, start)[0].sum(), parameters) for start in (detached, copied))
    assert_close(actual, expected, 0)


def test_a_state_moves_to_another_dtype(model):
    state = reached_state(model, BATCH)
    moved = state.to(torch.float32)
    assert pytree.tree_structure(moved) == pytree.tree_structure(state)
    for leaf, original in zip(pytree.tree_leaves(moved), pytree.tree_leaves(state), strict=True):
        assert leaf.dtype == torch.float32
        assert_close(leaf, original.numpy().astype(np.float32), 0)
    assert_same_state(state.to("cpu"), state, 0)


ROWS = [slice(1, 3), [2, 0], torch.tensor([True, False, True]), torch.tensor([1]), [False, True, False]]


@pytest.mark.parametrize("rows", ROWS, ids=repr)
def test_rows_of_a_state_go_on_as_they_would_have(model, rows):
    inputs, state = random(STEPS, BATCH, INPUTS), reached_state(model, BATCH)
    outputs, final = model(inputs, state)
    chosen = torch.arange(BATCH)[rows]
    some, some_final = model(inputs[:, chosen], state[rows])
    assert_close(some, outputs[:, chosen], EXACT)
    expected = [unbatched(final, row) for row in chosen.tolist()]
    for i, one in enumerate(expected):
        assert_same_state(unbatched(some_final, i), one)


SLOT_DIMS = {"memory": [1], "link": [1, 2], "read_weights": [2]}
"""Where the slots of a batch's state are; elsewhere [1]."""


def grown(state, memory_size):
    """The memory in larger arrays of zeros."""
    N, larger = state.usage.shape[-1], state._asdict()
    for name, leaf in larger.items():
        if isinstance(leaf, torch.Tensor):
            slot_dims = SLOT_DIMS.get(name, [1])
            array = np.zeros([memory_size if dim in slot_dims else size for dim, size in enumerate(leaf.shape)])
            array[tuple(slice(N if dim in slot_dims else None) for dim in range(leaf.dim()))] = leaf.numpy()
            larger[name] = torch.from_numpy(array)
    return MemoryState(**larger)


def shrunk(state, memory_size):
    """The memory of each row at the slots that a plain sort puts first."""
    smaller: dict[str, list[torch.Tensor]] = {name: [] for name in state._fields}
    for row, usage in enumerate(state.usage):
        by_usage = sorted(range(len(usage)), key=lambda slot: (-usage[slot], slot))
        kept = sorted(by_usage[:memory_size])
        for name, leaf in state._asdict().items():
            if isinstance(leaf, torch.Tensor):
                part = leaf[row]
                for dim in SLOT_DIMS.get(name, [1]):
                    part = torch.stack([part.select(dim - 1, slot) for slot in kept], dim - 1)
                smaller[name].append(part)
    return MemoryState(**{name: torch.stack(rows) if rows else UNUSED for name, rows in smaller.items()})


MEMORIES = [
    {},
    {"num_layers": 2, "read_heads": 3},
    {"options": ALL_OPTIONS},
    {"options": MemoryOptions(skip_unwritten=True, links="none")},
]


@pytest.mark.parametrize(("memory_size", "by_hand"), [(9, grown), (SLOTS, grown), (4, shrunk), (1, shrunk)])
@pytest.mark.parametrize("options", MEMORIES, ids=str)
def test_a_resized_state_runs_on(options, memory_size, by_hand):
    model, other = make_dnc(**options), make_dnc(memory_size=memory_size, **options)
    inputs, state = random(STEPS, BATCH, INPUTS), reached_state(model, BATCH)
    expected = state._replace(memory=by_hand(state.memory, memory_size))
    resized = model.resize(state, memory_size)
    assert_same_state(resized, expected, 0)
    assert_close(model(inputs, resized)[0], other(inputs, expected)[0], EXACT)
    for row in range(BATCH):
        assert_same_state(model.resize(unbatched(state, row), memory_size), unbatched(expected, row), 0)


def test_slots_of_tied_usage_go_by_their_number():
    model = make_dnc()
    state = reached_state(model, 1)
    tied = torch.tensor([[0.5, 0.2, 0.5, 0.9, 0.5, 0.2]], dtype=torch.float64)
    state = state._replace(memory=state.memory._replace(usage=tied))
    resized = model.resize(state, 3)
    assert_close(resized.memory.memory, state.memory.memory[:, [0, 2, 3]], 0)
    assert_close(resized.memory.link, state.memory.link[:, [0, 2, 3]][:, :, [0, 2, 3]], 0)


def test_gradients_flow_through_a_resize():
    """A state that grows and shrinks back is the same state, and its gradient the same gradient."""
    model = make_dnc()
    inputs, state = random(STEPS, 1, INPUTS), reached_state(model, 1)

    def there_and_back(inputs, state):
        return model(inputs, model.resize(model.resize(state, 9), SLOTS))

    actual, expected = measure(model, there_and_back, inputs, state), measure(model, model, inputs, state)
    for name in expected:
        assert_close(actual[name], expected[name], EXACT)


def test_parameters_load_into_a_model_of_another_memory_size():
    """No parameter knows the memory's size: the loaded model is the same function of a state."""
    small, large = make_dnc(), make_dnc(memory_size=20)
    with torch.no_grad():
        for parameter in large.parameters():
            parameter.zero_()
    large.load_state_dict(small.state_dict(), strict=True)
    inputs = random(STEPS, BATCH, INPUTS)
    outputs, final = large(inputs)
    assert final.memory.memory.shape == (BATCH, 20, WORD)
    assert_close(outputs, small(inputs, small.resize(small.initial_state(BATCH), 20))[0], EXACT)
    assert_close(large(inputs, small.initial_state(BATCH))[0], small(inputs)[0], EXACT)
