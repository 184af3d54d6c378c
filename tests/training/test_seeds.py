"""Several seeds: each is the run that it would be alone, and their summary is the statistics module's."""

from __future__ import annotations

import json
import statistics
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
    assert data["summary"] == json.loads(json.dumps(summarise(runs)))


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
    config = tiny(optimizer=Optimizer("adam", 1e30))
    runs, _ = train_seeds(config, tmp_path / "seeds", 2)
    assert [run.status for run in runs] == ["failed", "failed"]
    assert summarise(runs) == {"solved": 0.0, "failed": 2, "means": {}}


def test_summary() -> None:
    steps, seconds, errors = [100, 130, 400, 90], [1.0, 2.5, 9.0, 0.5], [0.25, 0.125, 0.5, 0.0]
    ended = [
        SeedRun(i, "solved" if i != 2 else "finished", steps[i], seconds[i], {"error": errors[i]}) for i in range(4)
    ]
    summary = summarise([*ended, SeedRun(4, "failed")])
    assert summary["solved"] == 3 / 5
    assert summary["failed"] == 1
    for name, values in (("step", steps), ("seconds", seconds), ("error", errors)):
        assert summary["means"][name] == pytest.approx((statistics.mean(values), statistics.stdev(values)))
    assert summarise(ended[:1])["means"]["step"] == (100.0, 0.0)


def test_refusals(tmp_path: Path) -> None:
    out = tmp_path / "seeds"
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        train_seeds(tiny(), out, 0)
    with pytest.raises(ValueError, match=r"goal\.metric must be one of"):
        train_seeds(tiny(goal=Goal("nonsense", 1)), out, 1)
    assert not out.exists()
    train_seeds(tiny(steps=1), out, 1)
    with pytest.raises(ValueError, match="must be a new or empty folder"):
        train_seeds(tiny(steps=1), out, 1)
    with pytest.raises(ValueError, match="holds no seeds"):
        read_seeds(tmp_path)
