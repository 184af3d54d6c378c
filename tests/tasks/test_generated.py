"""What every generated task promises: a batch per step, padding that means nothing, loss, score, picture."""

import math
import textwrap

import numpy as np
import pytest
import torch

from tests.conftest import assert_close
from torchdnc.tasks import (
    TASKS,
    AssociativeRecall,
    Batch,
    Copy,
    KeyedRecall,
    NGrams,
    PrioritySort,
    RepeatCopy,
    add_totals,
)
from torchdnc.tasks.bits import BitTask

SMALL: list[BitTask] = [
    Copy(bits=3, min_length=1, max_length=6),
    RepeatCopy(bits=2, min_length=1, max_length=4, min_repeats=1, max_repeats=3),
    AssociativeRecall(bits=4, item_length=2, min_items=2, max_items=5),
    KeyedRecall(key_bits=5, value_bits=3, min_items=2, max_items=5, max_delay=4),
    NGrams(order=3, length=30),
    PrioritySort(bits=3, items=7, answers=5),
]
every_task = pytest.mark.parametrize("task", SMALL, ids=lambda task: task.name)


def same(first: Batch, second: Batch) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def some_outputs(batch: Batch) -> torch.Tensor:
    return 3 * torch.randn(batch.targets.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def cases(batch: Batch, outputs: torch.Tensor):
    """Row, target and output of every bit asked for."""
    for t in range(len(batch.mask)):
        for row in range(len(batch.lengths)):
            if batch.mask[t, row]:
                for bit in range(batch.targets.shape[2]):
                    yield row, float(batch.targets[t, row, bit]), float(outputs[t, row, bit])


def test_registry_holds_each_task_under_its_name():
    assert list(TASKS) == [
        "copy", "repeat-copy", "associative-recall", "keyed-recall", "ngrams", "priority-sort", "babi"
    ]  # fmt: skip
    assert all(TASKS[task.name] is type(task) for task in SMALL)


@every_task
def test_batch_is_a_function_of_seed_and_step(task):
    batch = task.sample(5, seed=3, step=7)
    assert same(batch, task.sample(5, seed=3, step=7))
    assert not same(batch, task.sample(5, seed=4, step=7))
    assert not same(batch, task.sample(5, seed=3, step=8))


@every_task
def test_evaluation_has_streams_of_its_own(task):
    first = [
        task.sample(4, seed=0, step=0),
        *(next(task.evaluation(split, batch_size=4, sequences=4, seed=0)) for split in ("valid", "test")),
    ]
    assert not any(same(first[i], first[j]) for i in range(3) for j in range(i))
    again = next(task.evaluation("test", batch_size=4, sequences=4, seed=0))
    assert same(first[2], again)


@every_task
def test_evaluation_yields_as_many_sequences_as_asked_for(task):
    batches = list(task.evaluation("valid", batch_size=4, sequences=10, seed=0))
    assert [len(batch.lengths) for batch in batches] == [4, 4, 2]


@every_task
def test_batch_is_time_first_and_zero_past_the_lengths(task):
    batch = task.sample(16, seed=0, step=0)
    steps, rows = int(batch.lengths.max()), 16
    assert batch.inputs.shape == (steps, rows, task.spec.input_size)
    assert batch.targets.shape == (steps, rows, task.spec.output_size)
    assert batch.mask.shape == (steps, rows)
    assert [tensor.dtype for tensor in batch] == [
        torch.float32, torch.float32, torch.bool, torch.int64, torch.int64
    ]  # fmt: skip
    for row, length in enumerate(batch.lengths.tolist()):
        for tensor in batch[:3]:
            assert not tensor[length:, row].any()
        assert batch.mask[length - 1, row]
    assert not batch.groups.any()


@every_task
def test_loss_is_the_mean_cross_entropy_of_the_bits_asked_for(task):
    batch = task.sample(6, seed=1, step=0)
    outputs = some_outputs(batch)
    nats = [math.log1p(math.exp(-z if y else z)) for _, y, z in cases(batch, outputs)]
    assert_close(task.loss(outputs, batch), np.array(sum(nats) / len(nats)), tolerance=1e-12)


@every_task
def test_what_is_not_asked_for_never_counts(task):
    batch = task.sample(6, seed=1, step=0)
    outputs = some_outputs(batch)
    clean = task.loss(outputs, batch), task.score(outputs, batch)
    outputs[~batch.mask] = math.nan
    batch.targets[~batch.mask] = math.nan
    outputs.requires_grad_()
    loss = task.loss(outputs, batch)
    (gradient,) = torch.autograd.grad(loss, outputs)
    assert loss == clean[0]
    assert task.score(outputs.detach(), batch) == clean[1]
    assert not gradient[~batch.mask].any()
    assert gradient[batch.mask].all()


@every_task
def test_score_counts_wrong_bits_and_perfect_rows(task):
    batch = task.sample(6, seed=1, step=0)
    outputs = some_outputs(batch)
    outputs[:, 0] = 9 * (2 * batch.targets[:, 0].double() - 1)
    wrong, bits, cost = [0] * 6, 0, 0.0
    for row, y, z in cases(batch, outputs):
        wrong[row] += (z > 0) != (y == 1)
        bits += 1
        cost += math.log2(1 + math.exp(-z if y else z))
    score = task.score(outputs, batch)
    assert wrong[0] == 0 < wrong[1]
    assert score["wrong_bits"] == (sum(wrong), bits)
    assert score["wrong_bits_per_sequence"] == (sum(wrong), 6)
    assert score["perfect"] == (wrong.count(0), 6)
    assert score["bits_per_sequence"] == pytest.approx((cost, 6), rel=1e-9)


def rows(batch: Batch, some: slice) -> Batch:
    return Batch(*(tensor[:, some] for tensor in batch[:3]), *(tensor[some] for tensor in batch[3:]))


@every_task
def test_totals_of_two_batches_add_up_to_those_of_both(task):
    batch = task.sample(6, seed=2, step=0)
    outputs = some_outputs(batch)
    halves = [task.score(outputs[:, some], rows(batch, some)) for some in (slice(2), slice(2, 6))]
    whole = task.score(outputs, batch)
    together = add_totals(*halves)
    assert together.keys() == whole.keys()
    for name, total in whole.items():
        assert together[name] == pytest.approx(total)
        assert task.summary(together)[name] == pytest.approx(total[0] / total[1])


def test_totals_keep_a_name_that_only_one_of_them_has():
    assert add_totals({"a": (1.0, 2.0)}, {"b": (3.0, 4.0)}) == {"a": (1.0, 2.0), "b": (3.0, 4.0)}


@every_task
def test_nan_is_a_wrong_bit(task):
    batch = task.sample(3, seed=0, step=0)
    bits = batch.mask.sum().item() * task.spec.output_size
    outputs = torch.full(batch.targets.shape, math.nan)
    assert task.score(outputs, batch)["wrong_bits"] == (bits, bits)


def test_an_output_of_0_stands_for_a_0():
    batch = Copy().sample(3, seed=0, step=0)
    ones, bits = batch.targets[batch.mask].sum().item(), batch.targets[batch.mask].numel()
    assert Copy().score(torch.zeros(batch.targets.shape), batch)["wrong_bits"] == (ones, bits)


def test_low_precision_outputs_are_summed_in_float32():
    batch = Copy().sample(32, seed=0, step=0)
    outputs = some_outputs(batch).bfloat16()
    assert_close(Copy().loss(outputs, batch), Copy().loss(outputs.double(), batch).numpy(), tolerance=1e-6)


@pytest.mark.parametrize(
    ("task", "seed"),
    [
        (Copy(bits=3, min_length=5, max_length=5), 2),
        (RepeatCopy(bits=2, min_length=3, max_length=3, min_repeats=1, max_repeats=3), 2),
        (AssociativeRecall(bits=3, item_length=2, min_items=3, max_items=3), 3),
        (KeyedRecall(key_bits=3, value_bits=2, min_items=2, max_items=2, min_delay=2, max_delay=2), 5),
        (NGrams(order=3, length=40), 3),
        (PrioritySort(bits=3, items=6, answers=4), 25),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_timeline_of_the_docstring_is_a_sample(task, seed):
    picture = textwrap.indent(task.render(task.sample(1, seed=seed, step=0)), " " * 8)
    assert picture in (type(task).__doc__ or "")


def test_picture_shows_outputs_and_marks_the_wrong_ones():
    task = Copy(bits=2, min_length=2, max_length=3)
    batch = task.sample(8, seed=0, step=0)
    row = int((batch.lengths == 5).nonzero()[0])
    outputs = 2 * batch.targets - 1
    outputs[4, row, 1] *= -1
    targets = batch.targets[3:5, row]
    first, last = task.render(batch, outputs, row).split("\n\n")
    lines = {line[:17].rstrip(): line[17:] for line in first.splitlines()}
    drawn = ["".join("#" if bit else "." for bit in channel) for channel in targets.T.tolist()]
    assert lines["step"] == "01234"
    assert lines["input delimiter"] == "..#.."
    assert (lines["target bit 0"], lines["target bit 1"]) == (f"   {drawn[0]}", f"   {drawn[1]}")
    assert (lines["output bit 0"], lines["output bit 1"]) == (f"   {drawn[0]}", f"   {drawn[1][0]}x")
    assert last == "1 of 4 bits wrong"


def test_long_picture_is_broken_into_lines():
    task = Copy(bits=1, min_length=50, max_length=50)
    blocks = task.render(task.sample(1, seed=0, step=0)).split("\n\n")
    assert len(blocks) == 2
    assert max(len(line) for block in blocks for line in block.splitlines()) < 100


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Copy(bits=0), "bits must be at least 1, got 0"),
        (
            lambda: Copy(min_length=5, max_length=4),
            "min_length must be at most max_length, got min_length 5 and",
        ),
        (
            lambda: Copy(max_length=2.5),  # type: ignore[arg-type]
            r"max_length must be an integer, got 2\.5",
        ),
        (lambda: Copy(bits=True), "bits must be an integer, got True"),
        (lambda: RepeatCopy(min_repeats=0), "min_repeats must be at least 1, got 0"),
        (lambda: AssociativeRecall(min_items=1), "min_items must be at least 2, got 1"),
        (lambda: KeyedRecall(min_items=0), "min_items must be at least 1, got 0"),
        (lambda: KeyedRecall(key_bits=63), "key_bits must be at most 62, got 63"),
        (lambda: KeyedRecall(key_bits=2, max_items=5), "max_items must be at most the 4 keys there are, got 5"),
        (lambda: KeyedRecall(min_delay=2), "min_delay must be at most max_delay, got min_delay 2 and max_delay 0"),
        (lambda: NGrams(order=6, length=5), "length must be at least 6, got 5"),
        (
            lambda: PrioritySort(items=3, answers=4),
            "answers must be at most items, got answers 4 and items 3",
        ),
        (lambda: Copy().with_length(0), "length must be at least 1, got 0"),
        (lambda: AssociativeRecall().with_length(1), "length must be at least 2, got 1"),
        (lambda: NGrams().with_length(3), "length must be at least 6, got 3"),
        (lambda: Copy().sample(0, seed=0, step=0), "batch_size must be at least 1, got 0"),
        (lambda: Copy().sample(1, seed=-1, step=0), "seed must be at least 0, got -1"),
        (
            lambda: Copy().evaluation("train", batch_size=1, sequences=1, seed=0),  # type: ignore[arg-type]
            "split must be one of 'valid', 'test', got 'train'",
        ),
        (
            lambda: Copy().evaluation("test", batch_size=1, sequences=None, seed=0),
            "sequences must be given, since copy is generated without end, got None",
        ),
    ],
)
def test_bad_settings_are_refused_in_a_sentence(make, message):
    with pytest.raises((ValueError, TypeError), match=f"^{message}"):
        make()
