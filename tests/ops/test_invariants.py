"""What holds of every state that a memory can come to, found by rolling out random interfaces from zero."""

from typing import NamedTuple

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.utils import _pytree as pytree

from tests.conftest import assert_close
from tests.ops.inputs import OPTIONS, Sizes, double, ordinary, state_of
from torchdnc import MemoryOptions
from torchdnc.ops import access, allocation_weights, interface_size, split_interface
from torchdnc.types import MemoryState

ROUNDING = 1e-12


class Roll(NamedTuple):
    """Interface vectors [T, B, ·] and the states [T] they lead to, one after the other."""

    sizes: Sizes
    vectors: torch.Tensor
    states: list[MemoryState]


def zeros(sizes):
    B, N, W, R = sizes
    shapes = [(B, N, W), (B, N), (B, N), (B, N, N), (B, N), (B, R, N)]
    return MemoryState(*[torch.zeros(shape, dtype=torch.float64) for shape in shapes])


def roll_out(vectors, state, sizes):
    """The words and states after each step."""
    words, states = [], []
    for vector in vectors:
        read, state = access(split_interface(vector, sizes.W, sizes.R), state)
        words.append(read)
        states.append(state)
    return words, states


@st.composite
def interfaces(draw, scales=(0.5, 3.0, 40.0)):
    """Sizes, and interface vectors: gates half open, mixed, or saturated, with one-hot read modes."""
    size = st.integers(1, 4)
    sizes = Sizes(draw(size), draw(st.sampled_from([1, 2, 3, 5, 8])), draw(size), draw(size))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))
    shape = (draw(st.integers(1, 8)), sizes.B, interface_size(sizes.W, sizes.R))
    vectors = torch.randn(shape, dtype=torch.float64, generator=generator)
    return sizes, vectors * draw(st.sampled_from(scales))


@given(
    st.sampled_from([*OPTIONS.values()]), st.sampled_from([0.5, 3.0, 40.0]), st.integers(1, 6), st.integers(0, 2**20)
)
@settings(max_examples=100)
def test_with_options_too_weightings_sum_to_at_most_1_and_usage_is_from_0_to_1(options, scale, steps, seed):
    sizes = Sizes(2, 5, 3, 2)
    generator = torch.Generator().manual_seed(seed)
    state: MemoryState = state_of(
        {name: torch.zeros_like(value) for name, value in given_values(sizes).items()}, options
    )
    for _ in range(steps):
        vector = scale * torch.randn(2, interface_size(3, 2, options), dtype=torch.float64, generator=generator)
        words, state = access(split_interface(vector, 3, 2, options), state, options)
        assert torch.isfinite(words).all()
        for weights in (state.write_weights, state.read_weights):
            assert_weighting(weights)
        assert ((state.usage >= -ROUNDING) & (state.usage <= 1 + ROUNDING)).all()
        if options.links != "none":
            assert_weighting(state.precedence)
            assert_weighting(state.link)
            assert_weighting(state.link.transpose(-1, -2))
        if options.skip_unwritten:
            assert ((state.written == 0) | (state.written == 1)).all()
            assert not state.read_weights.masked_select((state.written == 0).unsqueeze(1)).any()


@st.composite
def rolls(draw):
    sizes, vectors = draw(interfaces())
    return Roll(sizes, vectors, roll_out(vectors, zeros(sizes), sizes)[1])


def states_of(roll):
    """All states of a roll as one, time before batch."""
    together: MemoryState = pytree.tree_map(lambda *leaves: torch.stack(leaves), *roll.states)
    return together


def assert_weighting(weights):
    assert (weights >= -ROUNDING).all()
    assert (weights.sum(-1) <= 1 + ROUNDING).all()


@given(rolls())
@settings(max_examples=100)
def test_weightings_are_not_negative_and_sum_to_at_most_1(roll):
    states = states_of(roll)
    for name in ("write_weights", "read_weights", "precedence"):
        assert_weighting(getattr(states, name))


@given(rolls())
@settings(max_examples=100)
def test_usage_is_from_0_to_1(roll):
    usage = states_of(roll).usage
    assert (usage >= -ROUNDING).all()
    assert (usage <= 1 + ROUNDING).all()


@given(rolls())
@settings(max_examples=100)
def test_link_rows_and_columns_sum_to_at_most_1_and_nothing_follows_itself(roll):
    links = states_of(roll).link
    assert_weighting(links)
    assert_weighting(links.transpose(-1, -2))
    assert not links.diagonal(dim1=-2, dim2=-1).any()


@given(rolls())
@settings(max_examples=100)
def test_allocation_sums_to_what_is_free(roll):
    usage = states_of(roll).usage
    allocation = allocation_weights(usage)
    assert_weighting(allocation)
    assert_close(allocation.sum(-1), 1 - usage.prod(-1))


@given(rolls())
@settings(max_examples=50)
def test_a_closed_write_gate_leaves_memory_links_and_precedence(roll):
    before = roll.states[-1]
    interface = split_interface(roll.vectors[0], roll.sizes.W, roll.sizes.R)
    _, after = access(interface._replace(write_gate=torch.zeros_like(interface.write_gate)), before)
    assert not after.write_weights.any()
    for name in ("memory", "link", "precedence"):
        assert torch.equal(getattr(after, name), getattr(before, name))


@given(rolls(), st.integers(0, 2))
@settings(max_examples=50)
def test_a_one_hot_read_mode_takes_one_way_and_no_other(roll, mode):
    before = roll.states[-1]
    interface = split_interface(roll.vectors[0], roll.sizes.W, roll.sizes.R)
    modes = torch.eye(3, dtype=torch.float64)[mode].expand_as(interface.read_modes)
    _, after = access(interface._replace(read_modes=modes), before)
    # Backward takes what came before where the head was, forward what came after; content sums to 1 anywhere.
    if mode == 1:
        assert_close(after.read_weights.sum(-1), torch.ones_like(after.read_weights[..., 0]))
    else:
        along = after.link if mode == 2 else after.link.mT
        moved = torch.einsum("bij,brj->bri", along, before.read_weights)
        assert_close(after.read_weights, moved)


@given(rolls())
@settings(max_examples=50)
def test_deallocation_empties_what_is_freed(roll):
    """A head that was on one slot frees it: of what the slot held nothing is left, and elsewhere nothing changes."""
    slots = torch.arange(roll.sizes.B) % roll.sizes.N
    on_one = torch.nn.functional.one_hot(slots, roll.sizes.N).double()
    before = roll.states[-1]
    before = before._replace(read_weights=on_one.unsqueeze(1).expand_as(before.read_weights))
    interface = split_interface(roll.vectors[0], roll.sizes.W, roll.sizes.R)
    interface = interface._replace(free_gates=torch.ones_like(interface.free_gates))
    shut = interface._replace(write_gate=torch.zeros_like(interface.write_gate))
    for written in (shut, interface):
        after = access(written, before, MemoryOptions(deallocation=True))[1]
        added = after.write_weights.unsqueeze(-1) * written.write_vector.unsqueeze(-2)
        erased = 1 - after.write_weights.unsqueeze(-1) * written.erase.unsqueeze(-2)
        assert_close(after.memory, before.memory * (1 - on_one).unsqueeze(-1) * erased + added)


def given_values(sizes):
    return {name: double(value) for name, value in ordinary(sizes).items()}


def untied(sizes):
    """A state in which no two usages are the same."""
    return state_of(given_values(sizes))


def assume_no_ties(states):
    for state in states:
        assume((state.usage.sort(-1).values.diff() > 1e-6).all())


def permuted(state, order):
    return MemoryState(
        memory=state.memory[:, order],
        usage=state.usage[:, order],
        precedence=state.precedence[:, order],
        link=state.link[:, order][:, :, order],
        write_weights=state.write_weights[:, order],
        read_weights=state.read_weights[:, :, order],
    )


@given(interfaces(scales=(0.5, 3.0)), st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_slots_have_no_order_but_for_ties(drawn, random):
    sizes, vectors = drawn
    start, order = untied(sizes), list(range(sizes.N))
    random.shuffle(order)
    words, states = roll_out(vectors, start, sizes)
    assume_no_ties(states)
    permuted_words, permuted_states = roll_out(vectors, permuted(start, order), sizes)
    assert_close(tuple(permuted_words), tuple(words))
    for permuted_state, state in zip(permuted_states, states, strict=True):
        assert_close(permuted_state, tuple(permuted(state, order)))


@given(interfaces(scales=(0.5, 3.0)))
@settings(max_examples=40)
def test_a_rows_state_does_not_depend_on_its_batch(drawn):
    sizes, vectors = drawn
    start = untied(sizes)
    _, states = roll_out(vectors, start, sizes)
    assume_no_ties(states)
    for row in range(sizes.B):
        _, alone = roll_out(vectors[:, row : row + 1], start[row : row + 1], sizes)
        for state, together in zip(alone, states, strict=True):
            assert_close(state, tuple(together[row : row + 1]))


@given(interfaces())
@settings(max_examples=40)
def test_what_a_row_reads_does_not_depend_on_its_batch(drawn):
    # From zero, where slots tie: rounding may number them otherwise, but what is read is the same.
    sizes, vectors = drawn
    words, _ = roll_out(vectors, zeros(sizes), sizes)
    for row in range(sizes.B):
        alone, _ = roll_out(vectors[:, row : row + 1], zeros(sizes._replace(B=1)), sizes)
        assert_close(tuple(alone), tuple(word[row : row + 1] for word in words))
