"""Slots never written to, where look-ups pass over them: a larger memory gives the same words, to rounding."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils import _pytree as pytree

from tests.conftest import assert_close
from tests.nn.helpers import ALL_OPTIONS, INPUTS, make_dnc, random
from tests.ops.inputs import double
from torchdnc import MemoryOptions, MemoryState
from torchdnc.ops import access, content_weights, interface_size, split_interface, written
from torchdnc.types import PAPER, Interface

SKIPPED = MemoryOptions(skip_unwritten=True)
W, R = 4, 2


def start(slots, batch=1, dtype=torch.float64):
    shapes: dict[str, tuple[int, ...]] = {"memory": (slots, W), "read_weights": (R, slots)}
    shapes |= dict.fromkeys(("usage", "precedence", "write_weights", "written"), (slots,))
    zeros = {name: torch.zeros(batch, *shape, dtype=dtype) for name, shape in shapes.items()}
    # The first links that take up memory are those that a step makes.
    return MemoryState(**zeros, link=torch.zeros((), dtype=dtype).expand(batch, slots, slots))


def roll_out(interfaces, slots, options=SKIPPED):
    """The words after every step, and the final state."""
    first: Interface = interfaces[0]
    state, words = start(slots, len(first.write_gate), dtype=first.write_gate.dtype), []
    for interface in interfaces:
        read, state = access(interface, state, options)
        words.append(read)
    return torch.stack(words), state


def drawn(scale, steps, batch=1, seed=0, dtype=torch.float64, options=SKIPPED):
    """Random interfaces; at the largest scale every gate and mode is at an end of its range."""
    generator = torch.Generator().manual_seed(seed)
    vectors = scale * torch.randn(steps, batch, interface_size(W, R, options), dtype=torch.float64, generator=generator)
    return [split_interface(vector.to(dtype), W, R, options) for vector in vectors]


def trained(scale, steps, dtype=torch.float64):
    """As after training: the first half is stored, then found by its words and by its order; gates not quite closed."""
    generator = torch.Generator().manual_seed(1)
    stored = torch.randn(steps // 2, W, dtype=torch.float64, generator=generator)

    def at(step):
        writing, word = step < steps // 2, stored[step % (steps // 2)].unsqueeze(0)
        shut = torch.full((1,), scale, dtype=torch.float64)
        values = Interface(
            read_keys=word.unsqueeze(1).expand(1, R, W),
            read_strengths=torch.full((1, R), 6.0),
            write_key=word,
            write_strength=torch.full((1,), 6.0),
            erase=torch.ones(1, W),
            write_vector=word,
            free_gates=torch.full((1, R), scale),
            alloc_gate=1 - shut if writing else shut,
            write_gate=1 - shut if writing else shut,
            read_modes=torch.tensor([[[0.0, 1.0, 0.0], [0.1, 0.1, 0.8]]]),
        )
        return pytree.tree_map(lambda part: part.to(dtype), values)

    return [at(step) for step in range(steps)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(
    ("interfaces", "scale"), [(drawn, 0.5), (drawn, 3.0), (drawn, 40.0), (trained, 0.0), (trained, 0.02)]
)
@torch.no_grad()
def test_64_slots_and_4096_give_the_same_words(interfaces, scale, dtype):
    steps = interfaces(scale, 6, dtype=dtype)
    # Links of 4096 slots take their time: they are made at one scale of each.
    options = SKIPPED if scale in (3.0, 0.02) else replace(SKIPPED, links="none")
    (words, few), (others, many) = (roll_out(steps, slots, options) for slots in (64, 4096))
    assert_close(others, words)
    for name in ("memory", "usage", "write_weights", "read_weights", "written"):
        one, other = getattr(few, name), getattr(many, name)
        slots = 1 if name == "memory" else -1
        assert_close(other.narrow(slots, 0, 64), one)
        assert not other.narrow(slots, 64, 4096 - 64).any()


@pytest.mark.parametrize(("interfaces", "scale"), [(drawn, 3.0), (trained, 0.0)])
@torch.no_grad()
def test_otherwise_they_do_not(interfaces, scale):
    steps = interfaces(scale, 8)
    words, others = (roll_out(steps, slots, PAPER)[0] for slots in (64, 1024))
    assert (others - words).abs().max() > 0.05


@given(
    st.integers(1, 8), st.integers(0, 30), st.sampled_from([0.5, 3.0, 10.0, 40.0]), st.integers(1, 3), st.integers(0)
)
@settings(max_examples=100)
def test_more_slots_than_steps_change_nothing(steps, extra, scale, batch, seed):
    """So that one is left that was never written to. The options change nothing about that."""
    for options in (SKIPPED, ALL_OPTIONS):
        interfaces = drawn(scale, steps, batch, seed % 2**32, options=options)
        words, _ = roll_out(interfaces, steps + 1, options)
        assert_close(roll_out(interfaces, steps + 1 + extra, options)[0], words, 1e-9)


@torch.no_grad()
def test_a_model_with_a_larger_memory_gives_the_same_outputs():
    """What 4096 slots instead of 64 change in the outputs of a model, in parts of their spread."""

    def change(options):
        model = make_dnc(read_heads=2, options=options, memory_size=64)
        inputs = random(6, 1, INPUTS)
        outputs, _ = model(inputs)
        larger, _ = model(inputs, model.resize(model.initial_state(1), 4096))
        return ((larger - outputs).abs().max() / outputs.std()).item()

    assert change(SKIPPED) < 1e-12
    assert change(PAPER) > 0.1


def test_a_slot_counts_as_written_from_the_step_that_writes_to_it():
    before = double([[1.0, 0.0, 0.0, 0.0]])
    assert written(before, double([[0.0, 1e-300, 0.5, 0.0]])).tolist() == [[1, 1, 1, 0]]
    assert before.tolist() == [[1, 0, 0, 0]]


def test_a_look_up_among_no_slots_is_nothing_and_has_a_gradient():
    memory, keys = double([[[3.0, 4.0], [0.0, 0.0]]]).requires_grad_(), double([[[3.0, 4.0]]]).requires_grad_()
    found = content_weights(memory, keys, double([[2.0]]), double([[0.0, 0.0]]))
    assert found.tolist() == [[[0, 0]]]
    gradients = torch.autograd.grad(found.sum(), [memory, keys])
    assert not any(gradient.any() for gradient in gradients)


def first_step(**fixed):
    interface = drawn(1.0, 1)[0]
    fixed = {name: torch.full_like(getattr(interface, name), value) for name, value in fixed.items()}
    content = double([[[0.0, 1.0, 0.0]] * R])
    return access(interface._replace(read_modes=content, **fixed), start(3), SKIPPED)[1]


def test_the_write_look_up_comes_before_the_write_and_the_read_look_up_after_it():
    # The first write finds nothing, so that what the allocation gate leaves to the look-up is not written.
    state = first_step(write_gate=1.0, alloc_gate=0.25)
    assert state.write_weights.tolist() == [[0.25, 0, 0]]
    assert state.written.tolist() == [[1, 0, 0]]
    assert state.read_weights.tolist() == [[[1, 0, 0]] * R]


@pytest.mark.parametrize("shut", ["write_gate", "alloc_gate"])
def test_without_a_write_nothing_is_found(shut):
    state = first_step(**{shut: 0.0})
    assert not state.written.any()
    assert not state.read_weights.any()
