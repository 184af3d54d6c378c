"""A full memory: what is released, how rows grow, and what each policy guarantees."""

import re
from itertools import pairwise

import pytest
import torch

from tests.conftest import assert_close
from torchdnc import DNC, MemoryOptions, ops
from torchdnc.ops.overflow import trim

DOUBLE = torch.float64
RECLAIM = MemoryOptions(overflow="reclaim", high_watermark=0.75)


def busy(seed: int, options: MemoryOptions, memory_size: int, engine: str = "reference") -> DNC:
    """A DNC that writes to a fresh slot at every step and hardly frees any."""
    torch.manual_seed(seed)
    made = DNC(5, 12, 3, memory_size=memory_size, word_size=6, read_heads=2, options=options, engine=engine).double()
    W, R = made.word_size, made.read_heads
    first = R * W + R + W + 1 + 2 * W  # the free gates
    with torch.no_grad():
        made.interface.weight.mul_(3)
        made.interface.bias[first : first + R] = -8
        made.interface.bias[first + R : first + R + 2] = 8
    return made


def test_release_takes_the_oldest_until_the_low_watermark():
    usage = torch.tensor([[1.0, 0.9, 0.6, 0.5, 1.0]], dtype=DOUBLE)
    age = torch.tensor([[3.0, 9.0, 5.0, 10.0, 1.0]], dtype=DOUBLE)
    free = torch.zeros_like(usage)
    # Four are in use; the fourth is not, however old it is.
    assert ops.released(usage, age, free, 0.7, 0.7).tolist() == [[0, 1, 0, 0, 0]]
    assert ops.released(usage, age, free, 0.7, 0.4).tolist() == [[0, 1, 1, 0, 0]]
    assert ops.released(usage, age, free, 0.7, 0.0).tolist() == [[1, 1, 1, 0, 1]]
    assert not ops.released(usage, age, free, 0.8, 0.0).any()


def test_pinned_slots_are_never_released():
    usage, age = torch.ones(1, 4, dtype=DOUBLE), torch.tensor([[4.0, 3.0, 2.0, 1.0]], dtype=DOUBLE)
    pinned = torch.tensor([[1.0, 0.0, 1.0, 0.0]], dtype=DOUBLE)
    assert ops.released(usage, age, pinned, 0.9, 0.75).tolist() == [[0, 1, 0, 0]]
    assert ops.released(usage, age, pinned, 0.9, 0.0).tolist() == [[0, 1, 0, 1]]
    assert not ops.released(usage, age, torch.ones_like(age), 0.9, 0.0).any()


def test_a_released_slot_is_a_fresh_one():
    """It holds nothing before the write, and a look-up that skips unwritten slots passes over it."""
    options = MemoryOptions(overflow="reclaim", high_watermark=0.5, low_watermark=0.3, skip_unwritten=True)
    model = busy(0, options, 4)
    state = model.initial_state(1).memory
    full = state._replace(
        memory=torch.ones_like(state.memory),
        usage=torch.ones_like(state.usage),
        written=torch.ones_like(state.written),
        age=torch.tensor([[1.0, 5.0, 4.0, 3.0]], dtype=DOUBLE),
    )
    xi = ops.split_interface(torch.zeros(1, model.interface_size, dtype=DOUBLE), 6, 2)
    closed = xi._replace(write_gate=torch.zeros(1, dtype=DOUBLE), free_gates=torch.zeros(1, 2, dtype=DOUBLE))
    _, after = ops.access(closed, full, options)
    assert after.usage.tolist() == after.written.tolist() == [[1, 0, 0, 0]]
    assert after.memory[0].sum(-1).tolist() == [6, 0, 0, 0]
    assert after.read_weights[0].tolist() == [[1, 0, 0, 0]] * 2 or after.read_weights[0, :, 1:].sum() == 0


def test_age_counts_steps_since_an_access():
    age = torch.zeros(1, 3, dtype=DOUBLE)
    nowhere = torch.zeros(1, 1, 3, dtype=DOUBLE)
    for step in range(5):
        at = torch.eye(3, dtype=DOUBLE)[[step % 2]]
        age = ops.age(age, at, nowhere)
    assert age.tolist() == [[0, 1, 5]]
    assert ops.age(age, nowhere[0], torch.eye(3, dtype=DOUBLE)[None, [2]]).tolist() == [[1, 2, 0]]


@pytest.mark.parametrize("seed", range(3))
def test_reclaiming_keeps_below_the_watermark_and_releases_the_oldest(seed):
    model = busy(seed, MemoryOptions(overflow="reclaim"), 12)
    _, states = model.trace(torch.randn(60, 2, 5, dtype=DOUBLE))
    used = torch.stack([state.memory.usage for state in states])
    # At every step a slot is at most half in use, so that at least half of what is to be allocated is.
    assert ((used > 0.5).sum(-1) <= 0.95 * 12).all()
    assert used.prod(-1).max() <= 0.5
    _, dropped = busy(seed, MemoryOptions(), 12).trace(torch.randn(60, 2, 5, dtype=DOUBLE))
    assert torch.stack([each.memory.usage.prod(-1) for each in dropped])[20:].mean() > 0.8
    for before, after in pairwise(states):
        gone = (before.memory.usage > 0.5) & (after.memory.usage == 0)
        for age, released, used_still in zip(before.memory.age, gone, after.memory.usage > 0.5, strict=True):
            if released.any() and used_still.any():
                assert age[released].min() >= age[used_still].max()


@pytest.mark.parametrize("engine", ["reference", "fused"])
def test_a_pinned_slot_stays_used_in_a_call(engine):
    model = busy(0, MemoryOptions(overflow="reclaim"), 12, engine)
    inputs = torch.randn(40, 2, 5, dtype=DOUBLE)
    _, state = model(inputs[:3])
    where = torch.zeros(2, 12, dtype=torch.bool)
    where[0] = state.memory.usage[0] > 0.5
    assert where.sum() >= 1
    _, after = model(inputs[3:], state._replace(memory=ops.pin(state.memory, where)))
    assert (after.memory.usage[where] > 0.5).all()
    assert torch.equal(after.memory.pinned, where.double())
    # The other row is as it would have been.
    _, unpinned = model(inputs[3:], state)
    assert torch.equal(after.memory.usage[1], unpinned.memory.usage[1])
    assert not ops.pin(after.memory, where, pinned=False).pinned.any()
    assert not state.memory.pinned.any()


def test_what_pin_refuses():
    drop, reclaim = (
        DNC(2, 3, memory_size=4, options=each).initial_state(1).memory for each in (MemoryOptions(), RECLAIM)
    )
    with pytest.raises(ValueError, match="pin needs the state of a memory with overflow='reclaim'"):
        ops.pin(drop, torch.ones(1, 4, dtype=torch.bool))
    with pytest.raises(TypeError, match=re.escape("where must be a bool tensor, got torch.float32")):
        ops.pin(reclaim, torch.ones(1, 4))
    with pytest.raises(ValueError, match=re.escape("where must have shape [1, 4], got [4]")):
        ops.pin(reclaim, torch.ones(4, dtype=torch.bool))


def growing(most: int, **options) -> MemoryOptions:
    return MemoryOptions(overflow="grow", max_memory_size=most, **options)


@pytest.mark.parametrize("engine", ["reference", "fused"])
@pytest.mark.parametrize("skip", [False, True])
def test_growth_is_a_resize_at_that_step(engine, skip):
    """The same steps, by a memory that is resized by hand before the steps that find it crowded."""
    most, drop = 16, MemoryOptions(skip_unwritten=skip)
    grows, plain = busy(1, growing(most, skip_unwritten=skip), 3, engine), busy(1, drop, 3)
    inputs = torch.randn(30, 5, dtype=DOUBLE).requires_grad_()
    outputs, end = grows(inputs)
    state, by_hand, sizes = plain.initial_state(), [], []
    for step_input in inputs:
        u, w = state.memory.usage, state.memory.write_weights
        if (1 - (1 - u) * (1 - w)).min() > 0.5:
            state = plain.resize(state, min(2 * len(u), most))
        output, state = plain.step(step_input, state)
        by_hand.append(output)
        sizes.append(len(state.memory.usage))
    assert sorted(set(sizes)) == [3, 6, 12, 16]
    assert end.memory.slots == 16
    assert_close(outputs, torch.stack(by_hand))
    for name in ("memory", "usage", "link", "write_weights", "read_weights"):
        assert_close(getattr(end.memory, name), getattr(state.memory, name))
    ours, theirs = (
        torch.autograd.grad(each.square().sum(), [inputs, *model.parameters()])
        for each, model in ((outputs, grows), (torch.stack(by_hand), plain))
    )
    assert_close(ours, theirs, tolerance=1e-9)


@pytest.mark.parametrize("engine", ["reference", "fused"])
def test_without_smearing_a_growing_memory_is_the_large_one(engine):
    """With size-invariant look-up, as long as there was a fresh slot at every step."""
    grows = busy(2, growing(64, skip_unwritten=True, grow_above=0.0), 2, engine)
    large = busy(2, MemoryOptions(skip_unwritten=True), 64, engine)
    inputs = torch.randn(40, 3, 5, dtype=DOUBLE)
    outputs, state = grows(inputs)
    assert (state.memory.slots == 64).all()
    assert_close(outputs, large(inputs)[0], tolerance=1e-9)


@pytest.mark.parametrize("engine", ["reference", "fused"])
def test_rows_grow_each_on_its_own(engine):
    model = busy(3, growing(32), 2, engine)
    inputs = torch.randn(30, 4, 5, dtype=DOUBLE)
    lengths, reset = torch.tensor([30, 7, 1, 0]), torch.zeros(30, 4, dtype=torch.bool)
    reset[20, 0] = True
    outputs, state = model(inputs, lengths=lengths, reset=reset)
    assert state.memory.slots.tolist() == [16, 8, 2, 2]
    assert state.memory.usage.shape == (4, 16)
    for row, length in enumerate(lengths.tolist()[:3]):
        first = 20 if row == 0 else 0
        alone, end = model(inputs[first:length, row])
        assert_close(outputs[first:length, row], alone)
        assert end.memory.slots == state.memory.slots[row]
        assert_close(end.memory.memory, state.memory.memory[row, : int(end.memory.slots)])
    # Of slots that a row does not have nothing is used, written or read.
    assert not state.memory.usage[1, 8:].any()
    assert not state.memory.read_weights[1, :, 8:].any()


@pytest.mark.parametrize("engine", ["reference", "fused"])
def test_a_grown_state_goes_on(engine):
    model = busy(4, growing(32), 2, engine)
    inputs = torch.randn(24, 3, 5, dtype=DOUBLE)
    whole, end = model(inputs, lengths=[24, 24, 5])
    first, state = model(inputs[:9], lengths=[9, 9, 5])
    second, after = model(inputs[9:], state, lengths=[15, 15, 0])
    assert_close(torch.cat([first, second]), whole)
    assert_close(after.memory.memory, end.memory.memory)
    # A small row of a large batch goes on alone.
    alone, _ = model(inputs[5:, 2:3], state[2:3])
    assert_close(alone, model(inputs[:, 2:3])[0][5:])
    assert model.resize(state, 6).memory.slots.tolist() == [6, 6, 6]


def test_at_its_largest_a_growing_memory_drops():
    model = busy(5, growing(4), 4)
    plain = busy(5, MemoryOptions(), 4)
    inputs = torch.randn(20, 2, 5, dtype=DOUBLE)
    assert torch.equal(model(inputs)[0], plain(inputs)[0])


def test_trimming_leaves_the_largest_row():
    state = busy(0, growing(8), 4).initial_state(2).memory
    roomy = ops.grow(state._replace(usage=torch.ones_like(state.usage)), growing(8))
    assert roomy.slots.tolist() == [8, 8]
    trimmed = trim(roomy._replace(slots=torch.tensor([4.0, 6.0], dtype=DOUBLE)))
    assert trimmed.link.shape == (2, 6, 6)
    assert trim(roomy) is roomy


@pytest.mark.parametrize("engine", ["reference", "fused"])
def test_a_row_starts_afresh_with_the_models_slots_however_it_is_called(engine):
    model = busy(6, growing(32), 8, engine)
    inputs, reset = torch.randn(20, 2, 5, dtype=DOUBLE), torch.zeros(20, 2, dtype=torch.bool)
    reset[6, 0] = True
    for size in (4, 32):
        state = model.resize(model.initial_state(2), size)
        whole, end = model(inputs, state, reset=reset)
        first, state = model(inputs[:6], state, reset=reset[:6])
        second, after = model(inputs[6:], state, reset=reset[6:])
        assert_close(torch.cat([first, second]), whole)
        assert_close(after.memory.slots, end.memory.slots)
        assert_close(whole[6:, 0], model(inputs[6:, 0])[0])
    assert after.memory.usage.shape[-1] == after.memory.slots.max()


@pytest.mark.parametrize("engine", ["auto", "reference"])
def test_second_derivatives_of_rows_that_end_and_grow(engine):
    model = busy(7, growing(64, grow_above=0.1), 2, engine)
    inputs = torch.randn(12, 2, 5, dtype=DOUBLE, requires_grad=True)
    outputs, state = model(inputs, lengths=[3, 4])
    (slope,) = torch.autograd.grad(
        outputs.square().sum() + state.memory.memory.square().sum(), inputs, create_graph=True
    )
    (second,) = torch.autograd.grad(slope.square().sum(), inputs)
    assert second[:3].any()
    assert not second[4:].any()


def test_vmap_takes_a_state_of_the_largest_size():
    model = busy(8, growing(8), 2)
    state, inputs = model.resize(model.initial_state(3), 8), torch.randn(3, 5, dtype=DOUBLE)
    mapped = torch.func.vmap(lambda x, one: model.step(x, one)[0])(inputs, state)
    assert_close(mapped, model.step(inputs, state)[0])
    with pytest.raises(RuntimeError, match="item"):
        torch.func.vmap(lambda x, one: model.step(x, one)[0])(inputs, model.initial_state(3))


def test_half_precision_cannot_count():
    for options in (growing(64), RECLAIM):
        with pytest.raises(TypeError, match="counts in the model's dtype"):
            DNC(2, 3, memory_size=4, options=options, dtype=torch.bfloat16).initial_state(1)


def test_a_fused_call_refuses_slots_that_there_are_not():
    model = busy(0, growing(64), 4, "fused")
    state = model.initial_state(2)
    for wrong in (-3.0, 5.0, float("nan")):
        bad = state._replace(memory=state.memory._replace(slots=torch.tensor([1.0, wrong], dtype=DOUBLE)))
        with pytest.raises(ValueError, match=re.escape("state.memory.slots must be from 1 to 4")):
            model(torch.zeros(2, 2, 5, dtype=DOUBLE), bad)


@pytest.mark.parametrize("high", [0.29, 0.57, 0.58, 0.99999999])
def test_engines_agree_at_the_watermark(high):
    options = MemoryOptions(overflow="reclaim", high_watermark=high, low_watermark=0.2)
    inputs = torch.randn(1, 4, 5, dtype=DOUBLE)
    used = []
    for engine in ("reference", "fused"):
        model = busy(0, options, 100, engine)
        state = model.initial_state(4)
        usage = torch.zeros(4, 100, dtype=DOUBLE)
        for row, count in enumerate((28, 29, 57, 58)):
            usage[row, :count] = 1
        _, after = model(inputs, state._replace(memory=state.memory._replace(usage=usage)))
        used.append((after.memory.usage > 0.5).sum(-1).tolist())
    assert used[0] == used[1]
    most = int(high * 100)
    assert used[0] == [count if count <= most else 20 for count in (28, 29, 57, 58)]


def test_resizing_keeps_pinned_slots_first():
    model = busy(0, RECLAIM, 4)
    state = model.initial_state(1)
    memory = state.memory._replace(usage=torch.tensor([[0.9, 0.8, 0.1, 0.7]], dtype=DOUBLE))
    pinned = ops.pin(memory, torch.tensor([[False, False, True, False]]))
    resized = model.resize(state._replace(memory=pinned), 2).memory
    assert resized.usage.tolist() == [[0.9, 0.1]]
    assert resized.pinned.tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"overflow": "spill"}, ValueError, "overflow must be one of 'drop', 'reclaim', 'grow', got 'spill'"),
        ({"overflow": "grow"}, ValueError, "overflow='grow' needs max_memory_size"),
        ({"overflow": "grow", "max_memory_size": 0}, ValueError, "max_memory_size must be at least 1, got 0"),
        ({"max_memory_size": 9}, ValueError, "max_memory_size belongs to overflow='grow', got 9 with overflow='drop'"),
        ({"high_watermark": 0.8}, ValueError, "high_watermark belongs to overflow='reclaim', got 0.8"),
        ({"overflow": "reclaim", "grow_above": 0.1}, ValueError, "grow_above belongs to overflow='grow', got 0.1"),
        ({"overflow": "reclaim", "high_watermark": None}, TypeError, "high_watermark must be a number, got None"),
        ({"overflow": "reclaim", "high_watermark": 0.0}, ValueError, "high_watermark must be above 0, got 0.0"),
        (
            {"overflow": "reclaim", "high_watermark": 1.0},
            ValueError,
            "high_watermark must be at least 0 and less than 1",
        ),
        ({"overflow": "reclaim", "low_watermark": 0.97}, ValueError, "low_watermark must be at most high_watermark"),
    ],
)
def test_what_the_options_refuse(options, error, words):
    with pytest.raises(error, match=re.escape(words)):
        MemoryOptions(**options)


def test_a_memory_may_not_start_larger_than_it_may_grow():
    with pytest.raises(
        ValueError, match=re.escape("options.max_memory_size must be at least memory_size, got 4 and 5")
    ):
        DNC(2, 3, memory_size=5, options=growing(4))
