"""Shipped weights: of the best seed, the same scores on another machine, and a card that tells what the files tell."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.test_babi_page import tables
from torchdnc import DNC
from torchdnc.training import evaluate_run
from torchdnc.training.ask import Asker
from torchdnc.training.seeds import SEEDS, SeedRun

RECIPE = """
batch_size = 2
steps = 40
eval_every = 40
threads = 1
task = {kind = "babi", tasks = [1, 3], task3 = "partial", think_steps = 1}
model = {kind = "dnc", hidden_size = 8, memory_size = 8, word_size = 4, read_heads = 1}
optimizer = {name = "adam", learning_rate = 3e-2}
"""
PLACES = ("garden", "kitchen", "office", "hallway")


@pytest.fixture
def ship(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """benchmarks/ship.py with a study of two seeds that was trained and recorded, all in `tmp_path`."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    import learning
    import pages
    import ship

    write_data(tmp_path / "here")
    monkeypatch.setenv("TORCHDNC_DATA", str(tmp_path / "here"))
    (tmp_path / "tiny.toml").write_text(RECIPE)
    monkeypatch.setattr(learning, "STUDIES", {"tiny": learning.Study(str(tmp_path / "tiny.toml"), 2)})
    monkeypatch.setattr(learning, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(pages, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(pages, "PAGE", tmp_path / "results.md")
    monkeypatch.setattr(ship, "MODELS", tmp_path / "models")
    learning.run("tiny", "abc")
    return ship


def write_data(root: Path) -> None:
    """Tasks 1 and 3 as published, of a few stories; the training file of task 3 is the incomplete one."""
    folder, partial = root / "babi" / "tasks_1-20_v1-2", root / "babi" / "en-10k-partial"
    for task in (1, 3):
        for path, places in (
            (folder / "en-10k" / f"qa{task}_moves_test.txt", PLACES),
            (folder / "en-valid-10k" / f"qa{task}_valid.txt", PLACES[3:]),
            (folder / "en-10k" / f"qa{task}_moves_train.txt", PLACES),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"1 Mary moved to the {p}.\n2 Where is Mary?\t{p}\t1\n" for p in places))
    partial.mkdir()
    (folder / "en-10k" / "qa3_moves_train.txt").rename(partial / "qa3_three-supporting-facts_train.partial.txt")


def test_shipped_weights_do_elsewhere_what_they_did_here(
    ship: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = ship.ship("tiny")
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    record = json.loads((tmp_path / "results" / "tiny.json").read_text())
    best = min(record["runs"], key=lambda run: run["scores"]["mean_error"])
    shutil.move(tmp_path / "here", tmp_path / "there")
    monkeypatch.setenv("TORCHDNC_DATA", str(tmp_path / "there"))
    assert 0 < best["tests"]["test"]["mean_error"] < 1
    assert evaluate_run(folder) == pytest.approx(best["tests"]["test"])
    weights = tmp_path / "runs" / "tiny" / f"seed-{best['seed']}" / "model.safetensors"
    assert (folder / "model.safetensors").read_bytes() == weights.read_bytes()
    for text in (folder / "README.md", folder / "config.json"):
        assert str(tmp_path) not in text.read_text()
    (note,) = json.loads((folder / "config.json").read_text())["notes"]
    assert "3 stories of the incomplete copy en-10k-partial/" in note


def test_shipped_weights_answer_without_the_data(ship: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = ship.ship("tiny")
    monkeypatch.setenv("TORCHDNC_DATA", str(tmp_path / "nowhere"))
    asker = Asker(folder)
    answer = asker.answer([asker.line("Mary moved to the garden.")[1], asker.line("Where is Mary?")[1]])
    assert set(answer.words) <= set(asker.task.vocabulary)


def test_the_card_tells_what_the_files_tell(ship: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ship.ship("tiny") / "README.md").read_text()
    record = json.loads((tmp_path / "results" / "tiny.json").read_text())
    best = min(record["runs"], key=lambda run: run["scores"]["mean_error"])
    (rows,) = tables(text)
    test = best["tests"]["test"]
    assert [(row["task"], float(row["wrong, %"])) for row in rows] == [
        ("1", pytest.approx(100 * test["error/task 1"], abs=0.005)),
        ("3", pytest.approx(100 * test["error/task 3"], abs=0.005)),
        ("mean", pytest.approx(100 * test["mean_error"], abs=0.005)),
        ("failed tasks", test["failed_tasks"]),
    ]
    flat = " ".join(text.split())
    assert f"commit abc: seed {best['seed']}, 40 of 40 steps (finished)" in flat
    assert f"{record['parameters']:,} parameters" in flat
    assert "Task 3 trains on 3 stories of the incomplete copy" in flat
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert code
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(code[1], names)
    assert isinstance(names["model"], DNC)


def test_the_seed_that_validated_best_is_shipped(ship: Any) -> None:
    runs = [SeedRun(0, "finished", 9, 1.0, {"mean_error": 0.3}), SeedRun(1, "failed")]
    runs += [SeedRun(2, "out of time", 9, 1.0, {"mean_error": 0.2}), SeedRun(3, "finished", 9, 1.0, {})]
    assert ship.best_of(runs).seed == 2
    with pytest.raises(ValueError, match="there is none"):
        ship.best_of([runs[1], runs[3]])


def test_scores_of_other_runs_are_refused(ship: Any, tmp_path: Path) -> None:
    seeds = tmp_path / "runs" / "tiny" / SEEDS
    data = json.loads(seeds.read_text())
    for run in data["runs"]:
        run["step"] = 5
    seeds.write_text(json.dumps(data))
    with pytest.raises(ValueError, match=r"tiny\.json is not of the runs in"):
        ship.ship("tiny")
    (tmp_path / "results" / "tiny.json").unlink()
    with pytest.raises(ValueError, match=r"learning.py tiny` writes it"):
        ship.ship("tiny")
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("given", [[], ["copy"], ["babi-biadnc", "babi-lstm"]])
def test_names_that_are_no_study_of_babi(
    ship: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], given: list[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["ship.py", *given])
    with pytest.raises(SystemExit) as left:
        ship.main()
    assert left.value.code == 2
    assert "NAME must be one of" in capsys.readouterr().err
