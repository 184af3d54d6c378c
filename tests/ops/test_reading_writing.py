"""Where to write and read, and what comes of it, worked by hand."""

import pytest
import torch

from tests.conftest import assert_close
from tests.ops.inputs import Sizes, double, edges, interface_of, ordinary, state_of
from tests.ops.test_against_oracle import by_dtype
from torchdnc.ops import access, erase_and_write, read_weights, read_words, write_weights
from torchdnc.types import BACKWARD, CONTENT, FORWARD


def memory_step(kind=ordinary, dtype=torch.float64, **interface):
    """A state, and what a step makes of it with these parts of the interface put to fixed values."""
    values = {name: torch.as_tensor(value) for name, value in kind(Sizes(3, 5, 4, 3)).items()}
    for name, value in interface.items():
        values[name] = torch.full_like(values[name], value)
    values = {name: value.to(dtype) for name, value in values.items()}
    state = state_of(values)
    words, new = access(interface_of(values), state)
    return state, new, words


def test_write_weights_mix_found_and_fresh_slots():
    found, fresh = double([0.5, 0.25, 0.0]), double([0.0, 0.0, 0.8])
    assert_close(write_weights(found, fresh, double(0.25), double(0.8)), [0.3, 0.15, 0.16])


@by_dtype
def test_gates_at_their_ends_choose_exactly(dtype):
    found, fresh = torch.rand(2, 7, dtype=dtype)
    zero, one = torch.zeros((), dtype=dtype), torch.ones((), dtype=dtype)
    assert torch.equal(write_weights(found, fresh, one, one), fresh)
    assert torch.equal(write_weights(found, fresh, zero, one), found)
    assert not write_weights(found, fresh, one, zero).any()
    assert not write_weights(found, fresh, zero, zero).any()


def test_writing_erases_and_adds_in_proportion():
    memory = erase_and_write(
        double([[1.0, 2.0], [3.0, 4.0]]), double([0.5, 0.0]), double([1.0, 0.5]), double([10.0, -10.0])
    )
    assert_close(memory, [[5.5, -3.5], [3.0, 4.0]])


@by_dtype
def test_a_full_write_with_full_erase_replaces_one_row_exactly(dtype):
    generator = torch.Generator().manual_seed(0)
    memory = torch.randn(17, 5, dtype=dtype, generator=generator)
    word = torch.randn(5, dtype=dtype, generator=generator)
    written = erase_and_write(memory, torch.eye(17, dtype=dtype)[3], torch.ones(5, dtype=dtype), word)
    assert torch.equal(written, torch.cat([memory[:3], word.unsqueeze(0), memory[4:]]))


@by_dtype
@pytest.mark.parametrize("kind", [ordinary, edges])
@pytest.mark.parametrize("alloc_gate", [0.0, 0.5, 1.0])
def test_a_closed_write_gate_leaves_memory_links_and_precedence_bit_for_bit(dtype, kind, alloc_gate):
    before, after, _ = memory_step(kind, dtype, write_gate=0.0, alloc_gate=alloc_gate)
    assert not after.write_weights.any()
    for name in ("memory", "link", "precedence"):
        assert torch.equal(getattr(after, name), getattr(before, name))


def test_an_open_write_gate_changes_all_three():
    before, after, _ = memory_step(write_gate=1.0)
    for name in ("memory", "link", "precedence"):
        assert not torch.equal(getattr(after, name), getattr(before, name))


def test_read_weights_mix_the_three_ways():
    backward, content, forward = torch.eye(3, dtype=torch.float64).unsqueeze(1)
    assert_close(read_weights(backward, content, forward, double([[0.2, 0.3, 0.5]])), [[0.2, 0.3, 0.5]])


@by_dtype
def test_a_one_hot_read_mode_selects_exactly_one_way(dtype):
    assert (BACKWARD, CONTENT, FORWARD) == (0, 1, 2)
    ways = backward, content, forward = torch.rand(3, 4, 2, 7, dtype=dtype)
    for mode in (BACKWARD, CONTENT, FORWARD):
        modes = torch.eye(3, dtype=dtype)[mode].expand(4, 2, 3)
        assert torch.equal(read_weights(backward, content, forward, modes), ways[mode])


def test_read_words_are_sums_of_rows():
    memory = double([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    assert_close(read_words(memory, double([[0.0, 1.0, 0.0], [0.5, 0.0, 0.25]])), [[3.0, 4.0], [1.75, 2.5]])
