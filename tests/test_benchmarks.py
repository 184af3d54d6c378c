"""Published results: a record tells what its runs' own files tell, and the page survives seeds that failed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from tests.training.runs import TINY
from torchdnc.tasks import BAbI
from torchdnc.training import evaluate_run
from torchdnc.training.seeds import SEEDS, train_seeds

RECIPE = """
batch_size = 100
steps = 3
threads = 1
task = {kind = "copy", bits = 2, max_length = 3}
model = {kind = "dnc", hidden_size = 8, memory_size = 4, word_size = 4, read_heads = 1}
optimizer = {name = "adam", learning_rate = 1e-2}
goal = {metric = "wrong_bits", at_most = 0.1}
"""


@pytest.fixture
def learning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """benchmarks/learning.py, with one small study and its files in `tmp_path`."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    import learning
    import pages

    (tmp_path / "tiny.toml").write_text(RECIPE)
    study = learning.Study(str(tmp_path / "tiny.toml"), 2, {"test": {}, "length 5": {"length": 5, "memory_size": 8}})
    monkeypatch.setattr(learning, "STUDIES", {"tiny": study})
    monkeypatch.setattr(learning, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(pages, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(pages, "PAGE", tmp_path / "results.md")
    return learning


def changed(path: Path, change: Any) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def result(folder: Path) -> Any:
    return json.loads((folder / "results" / "tiny.json").read_text())


def rows(folder: Path) -> list[list[str]]:
    """The cells of the page's tables."""
    lines = (folder / "results.md").read_text().splitlines()
    return [line.strip("| ").split(" | ") for line in lines if line.startswith("|")]


def test_a_study_is_trained_tested_and_shown(learning: Any, tmp_path: Path) -> None:
    learning.run("tiny", "abc")
    record = result(tmp_path)
    assert record["commit"] == "abc"
    assert [run["step"] for run in record["runs"]] == [3, 3]
    run, other = tmp_path / "runs" / "tiny" / "seed-1", record["runs"][1]["tests"]
    assert other == {"test": evaluate_run(run), "length 5": evaluate_run(run, length=5, memory_size=8)}
    titles, _, _, row = rows(tmp_path)
    assert float(row[titles.index("wrong bits, %")]) == pytest.approx(100 * other["test"]["wrong_bits"], rel=1e-3)
    assert float(row[titles.index("perfect sequences, %, length 5")]) == 100 * other["length 5"]["perfect"]


def test_a_record_tells_what_ran_and_not_what_would_run_now(learning: Any, tmp_path: Path) -> None:
    learning.run("tiny", "old")
    (tmp_path / "tiny.toml").write_text(RECIPE.replace("steps = 3", "steps = 30"))
    config = tmp_path / "runs" / "tiny" / "seed-1" / "config.json"
    changed(config, lambda data: data["environment"].update(machine="another one", engine="its engine"))
    learning.run("tiny", "new")
    record, environment = result(tmp_path), json.loads(config.read_text())["environment"]
    assert record["recipe"]["steps"] == 3
    assert record["commit"] == "old / new"
    assert record["environment"]["threads"] == 1
    assert record["environment"]["python"] == environment["python"]
    assert record["environment"]["machine"].endswith(" / another one")
    assert record["environment"]["engine"] == "auto / its engine"


def test_a_run_that_does_not_tell_its_commit_has_an_unknown_one(learning: Any, tmp_path: Path) -> None:
    train_seeds(TINY, tmp_path / "runs" / "tiny", 1)
    assert learning.record("tiny", tmp_path / "runs" / "tiny", "new")["commit"] == "unknown / new"


@pytest.mark.parametrize("failed", [[0], [1], [0, 1]])
def test_failed_seeds_have_dashes(learning: Any, tmp_path: Path, failed: list[int]) -> None:
    learning.run("tiny", "abc")
    whole = rows(tmp_path)

    def fail(data: Any) -> None:
        for seed in failed:
            data["runs"][seed] = {"seed": seed, "status": "failed", "step": None, "seconds": None, "scores": None}

    changed(tmp_path / "runs" / "tiny" / SEEDS, fail)
    learning.run("tiny", "abc")
    assert [run["tests"] == {} for run in result(tmp_path)["runs"]] == [seed in failed for seed in (0, 1)]
    titles, _, *seeds = rows(tmp_path)
    for seed, row in enumerate(seeds):
        assert row == ([str(seed), "failed", *["–"] * (len(titles) - 2)] if seed in failed else whole[2 + seed])
    assert titles == (whole[0] if len(failed) == 1 else ["seed", "ended", "steps", "seconds"])
    assert f"Solved: 0 of {len(seeds)}." in (tmp_path / "results.md").read_text()


def test_what_bench_measured_comes_after_what_was_trained(learning: Any, tmp_path: Path) -> None:
    import pages

    learning.run("tiny", "abc")
    results = tmp_path / "results"
    found = {"size": {"B": 2, "T": 9, "N": 4}, "rows": [MEMORY, MEMORY | {"engine": "fused", "goal": [5, 7]}]}
    record: dict[str, Any] = {
        "part": "memory",
        "command": "torchdnc bench memory",
        "commit": "abc",
        "machine": "one",
        "found": found,
    }
    record |= {"load": 0.2, "threads": 1, "rounds": 3, "seed": 0, "quick": False, "versions": VERSIONS}
    (results / "memory.json").write_text(json.dumps(record))
    pages.write()
    text = (tmp_path / "results.md").read_text()
    assert text.index("## Training") < text.index("### tiny") < text.index("## Speed") < text.index("### Memory")
    assert "one training step at B 2, N 4" in text
    assert [cell.strip() for cell in rows(tmp_path)[-1]] == ["fused", "9", "6", "5 / 7", "bound", "1"]
    assert ".png" not in text
    (results / "memory.png").touch()
    pages.write()
    assert "](results/memory.png)" in (tmp_path / "results.md").read_text()


MEMORY = {"engine": "reference", "T": 9, "megabytes": 6.0, "kept": 1.0, "peak": "VmHWM", "goal": None, "killed": None}
VERSIONS = {"torch": "2", "numba": "1", "python": "3"}


@pytest.mark.parametrize("mismatches", [[], [{"case": 7, "raised": "an error"}]])
def test_a_soak_is_shown(learning: Any, tmp_path: Path, mismatches: list[Any]) -> None:
    import pages

    (tmp_path / "results").mkdir()
    record: dict[str, Any] = {
        "command": "python benchmarks/soak.py",
        "commit": "abc",
        "machine": "one",
        "versions": VERSIONS,
    }
    record |= {"cases": 20, "seconds": 120, "mismatches": mismatches, "allowed": {"float64": 1e-9, "float32": "more"}}
    (tmp_path / "results" / "soak.json").write_text(json.dumps(record))
    pages.write()
    text = (tmp_path / "results.md").read_text()
    assert f"in 2 minutes: {len(mismatches)} mismatches" in text
    assert ("`python benchmarks/soak.py --case 7`" in text) == bool(mismatches)


@pytest.mark.parametrize("engine", ["reference", "fused"])
def test_a_study_names_its_engine(learning: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    study = learning.STUDIES["tiny"]
    monkeypatch.setattr(learning, "STUDIES", {"tiny": dataclasses.replace(study, model={"engine": engine})})
    learning.run("tiny", "abc")
    assert result(tmp_path)["environment"]["engine"] == engine


def test_a_result_of_another_kind_is_told(learning: Any, tmp_path: Path) -> None:
    import pages

    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "other.json").write_text("{}")
    with pytest.raises(ValueError, match=r"other.json must be written by torchdnc bench or a script in benchmarks"):
        pages.write()


def test_the_data_is_told_of_without_its_place(learning: Any, tmp_path: Path) -> None:
    story = "1 Mary moved to the garden.\n2 Where is Mary?\tgarden\t1\n"
    folder = tmp_path / "babi" / "tasks_1-20_v1-2"
    for task in range(1, 21):
        for edition, split in (("en-10k", "test"), ("en-valid-10k", "valid"), ("en-10k", "train")):
            if (task, split) != (3, "train"):
                path = folder / edition / (f"qa{task}_valid.txt" if split == "valid" else f"qa{task}_moves_{split}.txt")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(story)
    (note,) = learning.notes_of(BAbI(data_dir=tmp_path, task3="generated"))
    assert "2,000 stories generated by its rules" in note
    assert str(tmp_path) not in note


def test_a_study_without_a_goal_is_shown(learning: Any, tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(recipe.read_text().partition("goal = ")[0])
    learning.run("tiny", "abc")
    titles, _, *seeds = rows(tmp_path)
    assert [row[titles.index("ended")] for row in seeds] == ["finished", "finished"]
    assert "Solved" not in (tmp_path / "results.md").read_text()
