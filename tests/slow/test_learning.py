"""The recipes learn: trained for real, then tested on sequences that were not trained on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from torchdnc.training import evaluate_run, find_recipe, load_recipe, train

pytestmark = pytest.mark.slow


def trained(recipe: str, folder: Path, seed: int = 0) -> Path:
    """The folder of a run that reached its recipe's goal."""
    result = train(replace(load_recipe(find_recipe(recipe)), seed=seed), folder)
    assert result.status == "solved", f"{recipe}, seed {seed}: {result.status} at step {result.step}, {result.scores}"
    return folder


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Models that copy 1 to 10 vectors with 16 slots, from five seeds."""
    folder = tmp_path_factory.mktemp("copies")
    return [trained("copy-demo", folder / str(seed), seed) for seed in range(5)]


def test_every_seed_learns_to_copy(copies: list[Path]) -> None:
    wrong = [evaluate_run(run)["wrong_bits"] for run in copies]
    assert max(wrong) <= 0.001, wrong


def test_copying_extends_to_longer_sequences_with_more_slots(copies: list[Path]) -> None:
    wrong = [evaluate_run(run, length=20, memory_size=32)["wrong_bits"] for run in copies]
    assert min(wrong) <= 0.02, wrong
    # 20 vectors do not fit into the 16 slots that were trained with.
    cramped = [evaluate_run(run, length=20)["wrong_bits"] for run in copies]
    assert min(cramped) > 0.02, cramped


def test_repeat_copy_is_learned(tmp_path: Path) -> None:
    assert evaluate_run(trained("repeat-copy", tmp_path / "run"))["wrong_bits"] <= 0.01


def test_associative_recall_is_learned(tmp_path: Path) -> None:
    assert evaluate_run(trained("associative-recall", tmp_path / "run"))["wrong_bits_per_sequence"] < 1


@pytest.mark.usefixtures("babi_data")
def test_babi_task_1_is_learned(tmp_path: Path) -> None:
    assert evaluate_run(trained("babi-1", tmp_path / "run", seed=2))["mean_error"] <= 0.05
