"""Both engines train alike over whole runs, and a minute of the soak finds no mismatch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from torchdnc.tasks import Batch
from torchdnc.training import RunConfig, evaluate_run, find_recipe, load_recipe, train
from torchdnc.training.evaluate import evaluate, load_run

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SEEDS = range(5)


def recipe(engine: str, seed: int = 0) -> RunConfig:
    config = load_recipe(find_recipe("copy-demo"))
    return replace(config, seed=seed, model=replace(config.model, engine=engine))  # type: ignore[call-arg]


def losses(engine: str, seed: int, steps: int) -> Tensor:
    """Of the recipe in float64, step by step."""
    config = recipe(engine, seed)
    torch.manual_seed(seed)
    model = config.model.build(config.task.spec).double()
    parameters = list(model.parameters())
    optimizer = config.optimizer.build(parameters)

    def step(batch: Batch) -> float:
        loss = config.task.loss(model(batch.inputs.double())[0], batch)
        optimizer.zero_grad()
        loss.backward()
        config.optimizer.clip(parameters)
        optimizer.step()
        return loss.item()

    batches = (config.task.sample(config.batch_size, seed=seed, step=number) for number in range(steps))
    return torch.tensor([step(batch) for batch in batches], dtype=torch.float64)


@pytest.mark.parametrize("seed", [0, 1])
def test_curves_are_equal_until_copying_is_learned(seed: int) -> None:
    """By then rounding of 1e-16 may have grown to 1e-7; fifty steps later it may be 1e-3."""
    fused, reference = (losses(engine, seed, 200) for engine in ("fused", "reference"))
    assert reference[-1] < 0.1 * reference[0]
    assert ((fused - reference) / reference).abs().max() <= 1e-5


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """The recipe trained by each engine from the same seeds; every run reached its goal."""
    folder = tmp_path_factory.mktemp("runs")
    found: dict[str, list[Path]] = {"fused": [], "reference": []}
    for engine, trained in found.items():
        for seed in SEEDS:
            trained.append(folder / f"{engine}-{seed}")
            assert train(recipe(engine, seed), trained[-1]).status == "solved"
    return found


def steps(run: Path) -> int:
    """After which the run had reached its goal."""
    return int(json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"])


def test_engines_need_as_many_steps(runs: dict[str, list[Path]]) -> None:
    """In float32 the runs of a seed part before they end; they end at about the same step all the same."""
    fused, reference = ([steps(run) for run in runs[engine]] for engine in ("fused", "reference"))
    assert max(sum(fused), sum(reference)) <= 1.5 * min(sum(fused), sum(reference)), (fused, reference)


@pytest.mark.parametrize("trained_by", ["fused", "reference"])
def test_what_one_engine_trained_the_other_scores_alike(runs: dict[str, list[Path]], trained_by: str) -> None:
    for run in runs[trained_by]:
        config, model = load_run(run)
        model.engine = "reference" if trained_by == "fused" else "fused"  # type: ignore[assignment]
        scores = evaluate(model, config.task, "test", batch_size=config.batch_size, sequences=1000, seed=config.seed)
        expected = evaluate_run(run)
        bits = scores.pop("bits_per_sequence"), expected.pop("bits_per_sequence")
        assert scores == expected
        assert bits[0] == pytest.approx(bits[1], rel=1e-3)


def test_a_minute_of_the_soak(tmp_path: Path) -> None:
    """Other cases than the quick tests have."""
    command = [sys.executable, str(ROOT / "benchmarks" / "soak.py"), "--minutes", "1", "--seed", "1000"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TORCHDNC_SHAPE_CHECKS": "0"}
    out = tmp_path / "soak.json"
    told = subprocess.run([*command, "--out", str(out)], env=environment, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    record = json.loads(out.read_text())
    assert record["mismatches"] == []
    # What could not be compared is little.
    assert record["undecided"] + record["rough"] < 0.2 * record["compared"]
