"""Several seeds: each is the run that it would be alone, and their summary is computed by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.training.runs import At, assert_same_run, interrupt, tiny, uninterrupted
from torchdnc.training import Goal, Optimizer
from torchdnc.training.seeds import SEEDS, SeedRun, read_seeds, resume_seeds, summarise, train_seeds

GOAL = Goal("wrong_bits", 0.46)


def test_seeds_are_single_runs(tmp_path: Path) -> None:
    runs, interrupted = train_seeds(tiny(seed=5, goal=GOAL), tmp_path / "seeds", 3)
    assert interrupted is None
    assert [run.seed for run in runs] == [5, 6, 7]
    for run in runs:
        alone = uninterrupted(tmp_path / str(run.seed), seed=run.seed, goal=GOAL)
        assert_same_run(tmp_path / "seeds" / f"seed-{run.seed}", alone)
    data = json.loads((tmp_path / "seeds" / SEEDS).read_text())
    assert [run["scores"] for run in data["runs"]] == [run.scores for run in runs]
    errors = [(run.scores or {})["wrong_bits"] for run in runs]
    mean = sum(errors) / 3
    deviation = (sum((error - mean) ** 2 for error in errors) / 2) ** 0.5
    assert deviation > 0
    assert data["summary"]["means"]["wrong_bits"] == pytest.approx([mean, deviation])
    assert data["summary"]["solved"] == sum(error <= 0.46 for error in errors) / 3


def test_interrupted_seeds_go_on(tmp_path: Path) -> None:
    out = tmp_path / "seeds"
    runs, interrupted = train_seeds(tiny(), out, 3, lambda config: [At(6, interrupt)] if config.seed == 1 else [])
    assert interrupted is not None
    assert (interrupted.run_dir, interrupted.step) == (out / "seed-1", 6)
    assert [run.seed for run in runs] == [0]
    finished = (out / "seed-0" / "training.safetensors").stat().st_ino
    assert read_seeds(out) == (tiny(), 3, runs)
    runs, interrupted = resume_seeds(out)
    assert interrupted is None
    assert [run.step for run in runs] == [12, 12, 12]
    assert (out / "seed-0" / "training.safetensors").stat().st_ino == finished
    for seed in range(3):
        assert_same_run(out / f"seed-{seed}", uninterrupted(tmp_path / str(seed), seed=seed))


def test_failed_seed_is_counted(tmp_path: Path) -> None:
    # The first update is a few times the learning rate, which no float32 holds.
    config = tiny(optimizer=Optimizer("rmsprop", 3e38, epsilon=1e-12))
    runs, _ = train_seeds(config, tmp_path / "seeds", 2)
    assert [run.status for run in runs] == ["failed", "failed"]
    assert summarise(runs) == {"solved": 0.0, "failed": 2, "means": {}}


def test_summary() -> None:
    steps, seconds, errors = [1, 3, 3, 5], [2.0, 4.0, 6.0, 8.0], [0.0, 0.0, 0.0, 0.5]
    ended = [
        SeedRun(i, "solved" if i != 2 else "finished", steps[i], seconds[i], {"error": errors[i]}) for i in range(4)
    ]
    summary = summarise([*ended, SeedRun(4, "failed")])
    assert summary["solved"] == 3 / 5
    assert summary["failed"] == 1
    # Squared distances from the mean: 4+0+0+4, 9+1+1+9 and 3/64+9/64, each over n - 1 = 3.
    expected = {"step": (3, (8 / 3) ** 0.5), "seconds": (5, (20 / 3) ** 0.5), "error": (0.125, 0.25)}
    assert summary["means"] == {name: pytest.approx(pair) for name, pair in expected.items()}
    assert summarise(ended[:1])["means"]["step"] == (1.0, 0.0)


def test_refusals(tmp_path: Path) -> None:
    out = tmp_path / "seeds"
    with pytest.raises(ValueError, match="seeds must be at least 1, got 0"):
        train_seeds(tiny(), out, 0)
    with pytest.raises(ValueError, match=r"goal\.metric must be one of"):
        train_seeds(tiny(goal=Goal("nonsense", 1)), out, 1)
    assert not out.exists()
    train_seeds(tiny(steps=1), out, 1)
    with pytest.raises(ValueError, match="must be a new or empty folder"):
        train_seeds(tiny(steps=1), out, 1)
    with pytest.raises(ValueError, match="holds no seeds"):
        read_seeds(tmp_path)
    (tmp_path / SEEDS).write_bytes(b"\xff")
    with pytest.raises(ValueError, match=r"holds no seeds: .*seeds\.json cannot be read"):
        read_seeds(tmp_path)
