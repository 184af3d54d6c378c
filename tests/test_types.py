"""States: immutable, known to pytree, cut into rows, converted and resized."""

import copy

import numpy as np
import pytest
import torch
from torch.utils import _pytree as pytree

from tests.conftest import assert_close
from torchdnc import DNCState, LSTMState, MemoryState
from torchdnc.nn.resizing import resize_memory
from torchdnc.types import UNUSED, Interface

B, N, W, R, H = 4, 3, 2, 2, 5


def numbered(*shape):
    """Every element its own place, so that a wrong one is told."""
    return torch.arange(float(np.prod(shape)), dtype=torch.float64).reshape(shape)


def memory_state():
    return MemoryState(
        memory=numbered(B, N, W),
        usage=numbered(B, N),
        precedence=numbered(B, N) + 100,
        link=numbered(B, N, N),
        write_weights=numbered(B, N) + 200,
        read_weights=numbered(B, R, N),
    )


def memory_state_of_options():
    """Some fields without a tensor, and one that an option needs."""
    return memory_state()._replace(precedence=UNUSED, link=UNUSED, written=numbered(B, N) + 300)


def lstm_state():
    hidden, cell = [(numbered(B, H) + first, numbered(B, H) + first + 100) for first in (0, 200)]
    return LSTMState(hidden, cell)


def dnc_state(controller=None):
    controller = lstm_state() if controller is None else controller
    return DNCState(controller, memory_state(), numbered(B, R, W))


def interface():
    shapes = [(B, R, W), (B, R), (B, W), (B,), (B, W), (B, W), (B, R), (B,), (B,), (B, R, 3)]
    return Interface(*[numbered(*shape) for shape in shapes])


STATES = [memory_state(), memory_state_of_options(), lstm_state(), dnc_state(), dnc_state(controller=())]
NAMES = ["memory", "memory with options", "lstm", "dnc", "stateless controller"]
every_state = pytest.mark.parametrize("state", STATES, ids=NAMES)


def leaves(state):
    """The tensors of a state in order, found without pytree."""
    if isinstance(state, torch.Tensor):
        return [state]
    return [leaf for part in tuple(state) for leaf in leaves(part)]


def assert_leaves(state, expected):
    for leaf, other in zip(leaves(state), expected, strict=True):
        assert torch.equal(leaf, other)


@every_state
def test_a_state_cannot_be_changed(state):
    for name in state._fields:
        with pytest.raises(AttributeError):
            setattr(state, name, None)
    with pytest.raises(TypeError):
        state[0] = None


@pytest.mark.parametrize("state", [*STATES, interface()])
def test_pytree_takes_a_state_apart_and_puts_it_together(state):
    flat, spec = pytree.tree_flatten(state)
    assert [id(leaf) for leaf in flat] == [id(leaf) for leaf in leaves(state)]
    again = pytree.tree_unflatten(flat, spec)
    assert type(again) is type(state)
    assert pytree.tree_structure(again) == spec
    assert_leaves(again, leaves(state))


@pytest.mark.parametrize("state", [*STATES, interface()])
def test_tree_map_keeps_the_type(state):
    doubled = pytree.tree_map(lambda leaf: 2 * leaf, state)
    assert type(doubled) is type(state)
    assert_leaves(doubled, [2 * leaf for leaf in leaves(state)])


def test_pytree_names_the_way_to_each_leaf():
    paths = [pytree.keystr(path) for path, _ in pytree.tree_leaves_with_path(dnc_state())]
    lstm = [f".controller.{name}[{layer}]" for name in ("hidden", "cell") for layer in (0, 1)]
    assert paths == [*lstm, *[f".memory.{name}" for name in MemoryState._fields[:6]], ".read_words"]


def test_a_state_survives_the_json_of_a_tree():
    spec = pytree.tree_structure(dnc_state())
    assert pytree.treespec_loads(pytree.treespec_dumps(spec)) == spec


@every_state
def test_a_deep_copy_is_another_state_of_the_same_numbers(state):
    again = copy.deepcopy(state)
    assert type(again) is type(state)
    assert_leaves(again, leaves(state))
    assert not {leaf.data_ptr() for leaf in leaves(again)} & {leaf.data_ptr() for leaf in leaves(state)}


@every_state
@pytest.mark.parametrize(
    ("rows", "kept"),
    [
        (slice(1, 3), [1, 2]),
        (slice(None, None, 2), [0, 2]),
        (slice(2, 2), []),
        ([3, 1], [3, 1]),
        ([-1, 0, 0], [3, 0, 0]),
        ((2,), [2]),
        (range(2), [0, 1]),
        ([True, False, False, True], [0, 3]),
        ([False] * B, []),
        (torch.tensor([False, True, True, False]), [1, 2]),
        (torch.tensor([2, 0]), [2, 0]),
        (torch.tensor([3], dtype=torch.int32), [3]),
        (torch.tensor([], dtype=torch.int64), []),
        ([], []),
    ],
    ids=str,
)
def test_rows_are_taken_and_the_batch_dimension_stays(state, rows, kept):
    taken = state[rows]
    assert type(taken) is type(state)
    for leaf, whole in zip(leaves(taken), leaves(state), strict=True):
        assert leaf.tolist() == [whole[row].tolist() for row in kept]
        assert leaf.shape == (len(kept), *whole.shape[1:])


@every_state
def test_an_integer_gives_the_field(state):
    for place, name in enumerate(state._fields):
        assert state[place] is getattr(state, name)
        assert state[place - len(state)] is getattr(state, name)
    with pytest.raises(IndexError):
        state[len(state)]
    assert list(state) == [getattr(state, name) for name in state._fields]


@every_state
@pytest.mark.parametrize(
    "rows",
    [
        [[0, 1], [1, 0]],
        torch.tensor([[0, 1], [1, 0]]),
        torch.tensor(2),
        np.int64(2),
        torch.tensor([0.0, 1.0]),
        [0.5],
        0.5,
        "a",
        None,
        [True, False],
        torch.tensor([True, False]),
        [B],
        torch.tensor([-B - 1]),
    ],
    ids=str,
)
def test_rows_that_name_no_rows_are_refused(state, rows):
    with pytest.raises((ValueError, TypeError, IndexError)):
        state[rows]


def test_gradients_flow_through_chosen_rows():
    usage = numbered(B, N).requires_grad_()
    memory_state()._replace(usage=usage)[[1, 1]].usage.sum().backward()
    assert usage.grad is not None
    assert usage.grad.sum(-1).tolist() == [0, 2 * N, 0, 0]


@every_state
def test_detach_cuts_every_leaf_and_keeps_the_numbers(state):
    tracked = pytree.tree_map(lambda leaf: leaf.clone().requires_grad_(), state)
    detached = tracked.detach()
    assert type(detached) is type(state)
    assert not any(leaf.requires_grad for leaf in leaves(detached))
    assert all(leaf.requires_grad for leaf in leaves(tracked))
    assert_leaves(detached, leaves(state))


@every_state
def test_to_changes_dtype_and_device_of_every_leaf(state):
    for converted in (state.to(torch.float32), state.to("cpu", torch.float32), state.to(dtype=torch.float32)):
        assert type(converted) is type(state)
        assert_leaves(converted, [leaf.float() for leaf in leaves(state)])
    assert all(leaf.device.type == "meta" for leaf in leaves(state.to("meta")))


def with_usage(*rows):
    """One state for each row of usages, everything else numbered."""
    usage = torch.tensor(rows, dtype=torch.float64)
    batch, slots = usage.shape
    return MemoryState(
        memory=numbered(batch, slots, W),
        usage=usage,
        precedence=numbered(batch, slots) + 100,
        link=numbered(batch, slots, slots),
        write_weights=numbered(batch, slots) + 200,
        read_weights=numbered(batch, R, slots),
    )


def unbatched(state, row):
    return pytree.tree_map(lambda leaf: leaf[row], state)


def keeping(state, row, slots):
    """The row with these slots only, picked one by one."""
    return MemoryState(
        memory=torch.stack([state.memory[row, i] for i in slots]),
        usage=torch.stack([state.usage[row, i] for i in slots]),
        precedence=torch.stack([state.precedence[row, i] for i in slots]),
        link=torch.stack([torch.stack([state.link[row, i, j] for j in slots]) for i in slots]),
        write_weights=torch.stack([state.write_weights[row, i] for i in slots]),
        read_weights=torch.stack([state.read_weights[row, :, i] for i in slots], -1),
    )


@pytest.mark.parametrize(
    ("size", "kept"),
    [
        (4, [[0, 1, 2, 3], [0, 1, 2, 3]]),
        (3, [[0, 1, 3], [0, 1, 2]]),
        (2, [[1, 3], [0, 1]]),
        (1, [[1], [0]]),
    ],
)
def test_shrinking_keeps_the_most_used_slots_in_their_order_ties_to_the_lowest(size, kept):
    state = with_usage([0.5, 0.9, 0.1, 0.9], [0.25, 0.25, 0.25, 0.25])
    resized = resize_memory(state, size)
    for row, slots in enumerate(kept):
        expected = tuple(keeping(state, row, slots))
        assert_close(unbatched(resized, row), expected, tolerance=0)
        assert_close(resize_memory(unbatched(state, row), size), expected, tolerance=0)


@pytest.mark.parametrize("leading", [(), (2,)])
def test_growing_appends_slots_never_written(leading):
    state = with_usage([0.5, 0.9, 0.1], [0.3, 0.3, 0.3])
    state = state if leading else unbatched(state, 0)
    resized = resize_memory(state, 5)
    expected = MemoryState(
        *[torch.zeros(*leading, *shape).double() for shape in ((5, W), (5,), (5,), (5, 5), (5,), (R, 5))]
    )
    expected.memory[..., :3, :] = state.memory
    expected.link[..., :3, :3] = state.link
    for name in ("usage", "precedence", "write_weights", "read_weights"):
        getattr(expected, name)[..., :3] = getattr(state, name)
    assert_close(resized, tuple(expected), tolerance=0)


def test_growing_and_shrinking_back_changes_nothing():
    state = with_usage([0.5, 0.9, 0.1], [0.3, 0.0, 0.3])
    assert_close(resize_memory(resize_memory(state, 7), 3), tuple(state), tolerance=0)


def test_a_resized_state_keeps_its_gradients_and_leaves_the_first_alone():
    state = with_usage([0.5, 0.9, 0.1])
    memory = state.memory.clone().requires_grad_()
    resize_memory(state._replace(memory=memory), 2).memory.sum().backward()
    assert memory.grad is not None
    assert memory.grad[0].tolist() == [[1, 1], [1, 1], [0, 0]]
    assert_close(state, tuple(with_usage([0.5, 0.9, 0.1])), tolerance=0)
