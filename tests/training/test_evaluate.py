"""Saved runs, evaluated; the picture of a memory."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from tests.conftest import assert_close
from tests.training.runs import TINY, copied, tiny, uninterrupted
from torchdnc import DNC
from torchdnc.tasks import BAbI, Copy
from torchdnc.training import Goal, LSTMModel, evaluate, evaluate_run, load_run, resume, train
from torchdnc.training.picture import picture, weightings


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return uninterrupted(tmp_path_factory.mktemp("evaluated") / "run", seed=3, batch_size=50)


def by_hand(run: Path, task: Copy, memory_size: int, sequences: int) -> dict[str, float]:
    """The scores of the saved weights, in NumPy from the model's outputs on one sequence at a time."""
    model = DNC(4 - 1, 8, 2, memory_size=memory_size, word_size=4, read_heads=1)
    model.load_state_dict(safetensors.torch.load_file(run / "model.safetensors"))
    wrong, bits, nats, perfect = 0, 0, 0.0, 0
    for batch in task.evaluation("test", batch_size=sequences, sequences=sequences, seed=3):
        for row, length in enumerate(batch.lengths.tolist()):
            with torch.no_grad():
                outputs, _ = model(batch.inputs[:length, row : row + 1])
            y = outputs[length // 2 + 1 :, 0].double().numpy()
            target = batch.inputs[: length // 2, row, :2].numpy()
            errors = int(((y > 0) != (target > 0.5)).sum())
            wrong, bits, perfect = wrong + errors, bits + target.size, perfect + (errors == 0)
            nats += float(np.where(target > 0.5, np.logaddexp(0, -y), np.logaddexp(0, y)).sum())
    return {
        "wrong_bits": wrong / bits,
        "wrong_bits_per_sequence": wrong / sequences,
        "bits_per_sequence": nats / math.log(2) / sequences,
        "perfect": perfect / sequences,
    }


@pytest.mark.parametrize(("length", "memory_size"), [(None, None), (5, None), (6, 9)])
def test_scores_of_a_saved_run(run: Path, length: int | None, memory_size: int | None) -> None:
    task = Copy(2, length or 1, length or 3)
    scores = evaluate_run(run, length=length, memory_size=memory_size, sequences=20, batch_size=20)
    expected = by_hand(run, task, memory_size or 4, 20)
    assert scores == pytest.approx(expected, rel=1e-5)
    assert 0.1 < scores["wrong_bits"] < 0.6


def test_defaults_are_those_of_the_run(run: Path) -> None:
    expected = evaluate_run(run, memory_size=4, batch_size=50, sequences=1000)
    assert evaluate_run(run) == expected
    assert evaluate_run(run, sequences=10) != expected


def test_totals_do_not_depend_on_the_batch(run: Path) -> None:
    """Batches of one size hold other sequences than those of another, so score one batch in two ways."""
    config, model = load_run(run)
    (batch,) = config.task.evaluation("valid", batch_size=12, sequences=12, seed=0)

    class Split(Copy):
        def evaluation(self, split, *, batch_size, sequences, seed):
            return (
                batch._replace(
                    inputs=batch.inputs[:, rows],
                    targets=batch.targets[:, rows],
                    mask=batch.mask[:, rows],
                    lengths=batch.lengths[rows],
                    groups=batch.groups[rows],
                )
                for rows in torch.arange(12).split(batch_size)
            )

    whole, parts = (evaluate(model, Split(2, 1, 3), "valid", batch_size=n, sequences=12, seed=0) for n in (12, 5))
    assert parts == pytest.approx(whole, rel=1e-6)


def test_training_mode_is_left_as_it_was(run: Path) -> None:
    config, model = load_run(run)
    assert not model.training
    for mode in (True, False):
        model.train(mode)
        evaluate(model, config.task, "valid", batch_size=2, sequences=2, seed=0)
        assert model.training is mode


def test_refusals(run: Path, tmp_path: Path) -> None:
    lstm = uninterrupted(tmp_path / "lstm", model=LSTMModel(8), steps=1)
    with pytest.raises(ValueError, match=r"memory_size cannot be set: the model of .*lstm \(lstm\) has no memory"):
        evaluate_run(lstm, memory_size=8)
    with pytest.raises(ValueError, match=r"holds no run: it has no config\.json"):
        evaluate_run(tmp_path)
    for arguments in ({"sequences": 0}, {"batch_size": 0}, {"length": 0}):
        with pytest.raises(ValueError, match=r"must be at least 1, got 0"):
            evaluate_run(run, **arguments)  # type: ignore[arg-type]
    unsaved = copied(run, tmp_path / "unsaved")
    (unsaved / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"holds no model\.safetensors: the run was never saved"):
        evaluate_run(unsaved)
    (unsaved / "model.safetensors").write_bytes(b"\x05")
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
        evaluate_run(unsaved)
    (unsaved / "model.safetensors").write_bytes((lstm / "model.safetensors").read_bytes())
    with pytest.raises(ValueError, match=r"model\.safetensors does not fit the model of config\.json: [^\n]*$"):
        evaluate_run(unsaved)


def test_memory_that_cannot_fit(run: Path) -> None:
    sentence = r"memory_size must be small .*, got 100000000: the links take {} bytes for {} sequences"
    for rows, options in ((50, {}), (3, {"sequences": 3}), (2, {"batch_size": 2})):
        with pytest.raises(ValueError, match=sentence.format(rows * 4 * 10**16, rows)):
            evaluate_run(run, memory_size=10**8, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"\xff\xfe{", r"config\.json is not JSON: "),
        (b"{", r"config\.json is not JSON: "),
        (b"[]", r"config\.json must hold config, environment and notes"),
        (b'{"config": {}, "environment": [], "notes": []}', r"config\.json: environment must be a table, got \[\]"),
    ],
)
def test_damaged_config(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "config.json").write_bytes(content)
    for read in (load_run, resume):
        with pytest.raises(ValueError, match=sentence):
            read(tmp_path)


def babi_data(folder: Path, answer: str) -> Path:
    """Everyone is in the hall, training says; the test's answer is given."""
    for name, place in (("qa1_a_train.txt", "hall"), ("qa1_a_test.txt", answer)):
        path = folder / "babi" / "tasks_1-20_v1-2" / "en" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"1 {who} in hall.\n2 Where is {who}?\t{place}\t1\n" for who in "abcdefghijkl"))
    return folder


def test_data_in_another_place(tmp_path: Path) -> None:
    right, wrong = (babi_data(tmp_path / answer, answer) for answer in ("hall", "a"))
    run = uninterrupted(tmp_path / "run", task=BAbI(tasks=(1,), edition="en", data_dir=right))
    assert evaluate_run(run)["mean_error"] == 0
    assert evaluate_run(run, data_dir=wrong)["mean_error"] == 1
    with pytest.raises(ValueError, match=r"data_dir cannot be set: the task of .*copy \(copy\) reads no data"):
        evaluate_run(uninterrupted(tmp_path / "copy", steps=1), data_dir=right)


def test_goal_stops_training(tmp_path: Path) -> None:
    result = train(tiny(goal=Goal("wrong_bits", 1.0)), tmp_path / "run")
    assert (result.status, result.step) == ("solved", 5)
    assert json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])["valid"] == result.scores
    again = resume(tmp_path / "run")
    assert (again.status, again.step) == ("solved", 5)
    assert train(tiny(goal=Goal("wrong_bits", -1.0)), tmp_path / "other").status == "finished"


def test_time_limit_stops_resumably(tmp_path: Path) -> None:
    result = train(tiny(max_minutes=1e-6), tmp_path / "run")
    assert (result.status, result.step) == ("out of time", 1)
    assert resume(tmp_path / "run", max_minutes=10.0).step == TINY.steps


def test_weightings_end_in_the_state_of_a_whole_call(run: Path) -> None:
    _, model = load_run(run)
    assert isinstance(model, DNC)
    inputs = torch.randn(7, 3)
    writes, reads = weightings(model, inputs)
    _, state = model(inputs)
    assert writes.shape == (7, 4)
    assert reads.shape == (7, 1, 4)
    assert_close(writes[-1], state.memory.write_weights.detach())
    assert_close(reads[-1], state.memory.read_weights.detach())


def test_picture_of_known_weightings() -> None:
    writes = torch.tensor([[1.0, 0.0], [0.0, 0.5], [0.0, 0.0]])
    reads = torch.tensor([[[0.0, 0.2], [0.0, 1.0]], [[0.0, 0.0], [1.0, 0.0]], [[0.7, 0.3], [0.0, 0.0]]])
    assert picture(writes, reads) == (
        "   write 012\n       0 @\n       1  +\n\n"
        "  read 1 012\n       0   *\n       1 . :\n\n"
        "  read 2 012\n       0  @\n       1 @"
    )
