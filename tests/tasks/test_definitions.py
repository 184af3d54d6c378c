"""Each task's answers, worked out from its inputs alone by plain loops."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from torchdnc.tasks import AssociativeRecall, Batch, Copy, KeyedRecall, NGrams, PrioritySort, RepeatCopy

Vectors = list[tuple[float, ...]]


def row_of(batch: Batch, row: int) -> tuple[Vectors, Vectors, list[bool]]:
    length = int(batch.lengths[row])
    inputs, targets = (
        [tuple(vector) for vector in part[:length, row].tolist()] for part in (batch.inputs, batch.targets)
    )
    return inputs, targets, batch.mask[:length, row].tolist()


def answer(targets: Vectors, mask: list[bool]) -> Vectors:
    """What is asked for, at the end of the row and nowhere else."""
    start = mask.index(True)
    assert all(mask[start:])
    return targets[start:]


def assert_uniform(values: list[int], low: int, high: int) -> None:
    """Every number from low to high turns up, about equally often (5 standard deviations)."""
    counts, expected = Counter(values), len(values) / (high - low + 1)
    assert set(counts) == set(range(low, high + 1))
    assert max(abs(count - expected) for count in counts.values()) < 5 * math.sqrt(expected)


def test_copy():
    batch = Copy(bits=4, min_length=2, max_length=9).sample(200, seed=0, step=0)
    for row in range(200):
        inputs, targets, mask = row_of(batch, row)
        count = [vector[4] for vector in inputs].index(1)
        assert 2 <= count <= 9
        assert inputs[count:] == [(0, 0, 0, 0, 1)] + [(0,) * 5] * count
        assert answer(targets, mask) == [vector[:4] for vector in inputs[:count]]


def test_copy_lengths_and_bits_are_uniform():
    batch = Copy(bits=8, min_length=3, max_length=7).sample(5000, seed=0, step=0)
    assert_uniform(((batch.lengths - 1) // 2).tolist(), 3, 7)
    assert_uniform(batch.targets[batch.mask].flatten().int().tolist(), 0, 1)


@pytest.mark.parametrize(("low", "high"), [(1, 6), (2, 3), (4, 4)])
def test_repeat_copy(low, high):
    task = RepeatCopy(bits=3, min_length=1, max_length=4, min_repeats=low, max_repeats=high)
    batch = task.sample(200, seed=0, step=0)
    scale = np.arange(low, high + 1)
    seen = []
    for row in range(200):
        inputs, targets, mask = row_of(batch, row)
        count = [vector[3] for vector in inputs].index(1)
        vectors = [vector[:3] for vector in inputs[:count]]
        repeats = (len(inputs) - count - 2) / count
        marker = 0 if low == high else (repeats - scale.mean()) / scale.std()
        assert inputs[count][:4] == (0, 0, 0, 1)
        assert inputs[count][4] == pytest.approx(marker)
        assert not any(map(any, inputs[count + 1 :]))
        assert [vector[3:] for vector in inputs[:count]] == [(0, 0)] * count
        assert answer(targets, mask) == [(*v, 0) for v in vectors] * int(repeats) + [(0, 0, 0, 1)]
        seen.append(int(repeats))
    assert set(seen) == set(scale.tolist())


def test_repeat_count_has_mean_0_and_variance_1():
    task = RepeatCopy(bits=1, min_length=1, max_length=1)
    batch = task.sample(20000, seed=0, step=0)
    counts = batch.inputs[1, :, 2].double()
    assert counts.mean().abs() < 5 / math.sqrt(20000)
    assert (counts.var() - 1).abs() < 0.05
    assert_uniform((batch.lengths - 2 - 1).tolist(), 1, 10)


def test_more_repeats_are_told_on_the_scale_of_training():
    trained = RepeatCopy(bits=2, min_length=1, max_length=4, min_repeats=1, max_repeats=10)
    scale = np.arange(1, 11)
    for task in (trained.with_repeats(17), trained.with_length(3).with_repeats(4).with_repeats(17)):
        batch = task.sample(5, seed=0, step=0)
        for row in range(5):
            inputs, targets, mask = row_of(batch, row)
            count = [vector[2] for vector in inputs].index(1)
            assert len(inputs) == count * 18 + 2
            assert inputs[count][3] == pytest.approx((17 - scale.mean()) / scale.std())
            assert answer(targets, mask) == [(*vector[:2], 0) for vector in inputs[:count]] * 17 + [(0, 0, 1)]
    assert (
        replace(trained.with_repeats(4), min_repeats=1, max_repeats=10)
        .sample(5, seed=0, step=0)
        .inputs.equal(trained.sample(5, seed=0, step=0).inputs)
    )
    with pytest.raises(ValueError, match="repeats must be at least 1, got 0"):
        trained.with_repeats(0)
    with pytest.raises(ValueError, match=r"scaled_over\[0\] must be at most scaled_over\[1\], got scaled_over\[0\] 3"):
        RepeatCopy(scaled_over=(3, 2))


def test_associative_recall():
    batch = AssociativeRecall(bits=9, item_length=3, min_items=2, max_items=6).sample(300, seed=0, step=0)
    asked, counts = [], []
    for row in range(300):
        inputs, targets, mask = row_of(batch, row)
        bars = [step for step, vector in enumerate(inputs) if vector[10]]
        starts = [step for step, vector in enumerate(inputs) if vector[9]]
        assert starts == list(range(0, bars[0], 4))
        assert bars[1:] == [bars[0] + 4]
        assert not any(any(inputs[step][:9]) for step in starts + bars)
        assert not any(map(any, inputs[bars[1] + 1 :]))
        items = [[vector[:9] for vector in inputs[start + 1 : start + 4]] for start in starts]
        query = items.index([vector[:9] for vector in inputs[bars[0] + 1 : bars[1]]])
        assert answer(targets, mask) == items[query + 1]
        counts.append(len(items))
        asked += [query] if len(items) == 6 else []
    assert_uniform(counts, 2, 6)
    assert_uniform(asked, 0, 4)


def test_ngrams_predicts_each_bit_from_those_before():
    batch = NGrams(order=4, length=25).sample(20, seed=0, step=0)
    for row in range(20):
        inputs, targets, mask = row_of(batch, row)
        assert targets[2:-1] == inputs[3:]
        assert mask == [False] * 2 + [True] * 22


def optimal_cost(bits: list[int], context_size: int) -> float:
    """-sum log2 p with p(1) = (N1 + 1/2) / (N1 + N0 + 1), by counting."""
    counts: dict[tuple[int, ...], list[int]] = {}
    cost = 0.0
    for t in range(context_size, len(bits)):
        n = counts.setdefault(tuple(bits[t - context_size : t]), [0, 0])
        cost -= math.log2((n[bits[t]] + 0.5) / (sum(n) + 1))
        n[bits[t]] += 1
    return cost


def test_ngrams_optimal_estimator_counts():
    task = NGrams(order=4, length=60)
    batch = task.sample(10, seed=0, step=0)
    costs = []
    for row in range(10):
        bits = [*batch.inputs[:, row, 0].int().tolist(), int(batch.targets[-1, row, 0])]
        costs.append(optimal_cost(bits, 3))
    assert task.optimal_bits(batch).sum(0).tolist() == pytest.approx(costs)
    score = task.score(torch.zeros(batch.targets.shape), batch)
    assert score["optimal_bits_per_sequence"] == pytest.approx((sum(costs), 10))
    assert score["bits_per_sequence"] == pytest.approx((10 * 57, 10))


def test_ngrams_costs_the_optimal_estimator_what_the_paper_plots():
    """About 133 bits in the paper; its first 5, fair coins at one bit each, are not asked for here."""
    task = NGrams()
    batch = task.sample(2000, seed=0, step=0)
    assert task.optimal_bits(batch).sum(0).mean().item() + 5 == pytest.approx(133, abs=1.5)


def test_ngrams_probabilities_follow_beta():
    """Predictions that suit their source come true as often as they say: the probability q that was given to
    what then came has E q = E (q^2 + (1 - q)^2). With Beta(0.4, 0.4) or (0.6, 0.6) they are 0.006 apart."""
    task = NGrams()
    q = 2 ** -task.optimal_bits(task.sample(2000, seed=0, step=0))
    assert (q - q**2 - (1 - q) ** 2).mean().abs() < 0.002


def test_priority_sort():
    batch = PrioritySort(bits=5, items=9, answers=6).sample(100, seed=0, step=0)
    for row in range(100):
        inputs, targets, mask = row_of(batch, row)
        ranked = sorted(inputs[:9], key=lambda vector: -vector[5])
        assert not any(map(any, inputs[9:]))
        assert len(inputs) == 15
        assert answer(targets, mask) == [vector[:5] for vector in ranked[:6]]


def test_priorities_are_uniform():
    batch = PrioritySort(bits=1, items=20, answers=1).sample(2000, seed=0, step=0)
    assert_uniform((10 * (batch.inputs[:20, :, 1] + 1)).floor().int().flatten().tolist(), 0, 19)


@pytest.mark.parametrize("in_order", [False, True])
def test_keyed_recall(in_order):
    task = KeyedRecall(key_bits=6, value_bits=3, min_items=2, max_items=7, min_delay=1, max_delay=5, in_order=in_order)
    batch = task.sample(300, seed=0, step=0)
    counts, delays, sorted_rows, noise = [], [], 0, []
    for row in range(300):
        inputs, targets, mask = row_of(batch, row)
        stored = [vector[:9] for vector in inputs if vector[9]]
        held, count = {vector[:6]: vector[6:] for vector in stored}, len(stored)
        assert [bool(vector[9]) for vector in inputs] == [step < count for step in range(len(inputs))]
        assert len(held) == count
        asked = [vector[:6] for vector in inputs if vector[10]]
        assert (
            [bool(vector[10]) for vector in inputs]
            == mask
            == [step >= len(inputs) - count for step in range(len(inputs))]
        )
        assert sorted(asked) == sorted(held)
        assert [held[key] for key in asked] == targets[-count:]
        assert not any(any(vector[6:9]) for vector in inputs[-count:])
        counts.append(count)
        delays.append(len(inputs) - 2 * count)
        sorted_rows += asked == [vector[:6] for vector in stored]
        noise += [value for vector in inputs[count:-count] for value in vector[:9]]
        assert not any(any(vector[9:]) for vector in inputs[count:-count])
    assert set(counts) == set(range(2, 8))
    assert set(delays) == set(range(1, 6))
    assert sorted_rows == 300 if in_order else sorted_rows < 60
    assert 0.45 < sum(noise) / len(noise) < 0.55


def test_keyed_recall_counts_values_that_are_wholly_right():
    task = KeyedRecall(key_bits=4, value_bits=3, min_items=4, max_items=4)
    batch = task.sample(5, seed=0, step=0)
    outputs = 2 * batch.targets - 1
    outputs[5, 2, :2] *= -1
    outputs[7, 0, 1] *= -1
    assert task.score(outputs, batch)["recalled"] == (18, 20)


def test_keyed_recall_of_the_latest_items():
    task = KeyedRecall(key_bits=6, value_bits=3, min_items=1, max_items=7, max_delay=3, latest=4, in_order=True)
    batch = task.sample(200, seed=0, step=0)
    for row in range(200):
        inputs, targets, mask = row_of(batch, row)
        stored = [vector[:9] for vector in inputs if vector[9]][-4:]
        assert [vector[:6] for vector in inputs if vector[10]] == [item[:6] for item in stored]
        assert answer(targets, mask) == [item[6:] for item in stored]


def test_copy_of_several_sequences_is_one_after_another():
    task = Copy(bits=4, min_length=2, max_length=5, sequences=3)
    batch = task.sample(100, seed=0, step=0)
    for row in range(100):
        inputs, targets, mask = row_of(batch, row)
        place = 0
        for _ in range(3):
            end = next(step for step in range(place, len(inputs)) if inputs[step][4])
            assert not any(mask[place : end + 1])
            vectors = [vector[:4] for vector in inputs[place:end]]
            place = 2 * end - place + 1
            assert all(mask[end + 1 : place])
            assert targets[end + 1 : place] == vectors
            assert not any(any(vector) for vector in inputs[end + 1 : place])
        assert place == len(inputs)


@pytest.mark.parametrize(
    ("task", "length", "steps"),
    [
        (Copy(), 13, 27),
        (RepeatCopy(min_repeats=3, max_repeats=3), 13, 13 + 1 + 39 + 1),
        (AssociativeRecall(), 9, 9 * 4 + 8),
        (KeyedRecall(), 9, 2 * 9),
        (NGrams(), 50, 49),
        (PrioritySort(), 10, 18),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_with_length_sets_the_length_of_every_row(task, length, steps):
    longer = task.with_length(length)
    assert set(longer.sample(20, seed=0, step=0).lengths.tolist()) == {steps}
    assert longer.spec == task.spec
    assert type(longer) is type(task)
