"""The NTM paper's tasks by five models: equal sizes, runs that end as they should, a record that tells their files."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from torchdnc.training import evaluate_run
from torchdnc.training.metrics import METRICS
from torchdnc.training.seeds import SEEDS

NAMES = ["lstm", "super-lstm", "ntm", "dnc", "dnc-variant"]
RECIPE = """
task = {kind = "copy", bits = 2, max_length = 3}
model = {kind = "dnc", hidden_size = 40, activation_gradient_clip = 10.0}
"""
SOLVED_AT_ONCE, NEVER = 1000.0, -1.0
MINUTE, AN_INSTANT = 1.0, 1e-6


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """benchmarks/suite.py, its files in `tmp_path`."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    import learning
    import pages
    import suite

    monkeypatch.setattr(learning, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(pages, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(pages, "PAGE", tmp_path / "results.md")
    return suite


@pytest.fixture
def plan(suite: Any) -> Any:
    """benchmarks/suite_plan.py."""
    import suite_plan

    return suite_plan


@pytest.fixture
def tiny(suite: Any, plan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """benchmarks/suite.py with one small experiment of two models, solved by its first evaluation."""
    (tmp_path / "tiny.toml").write_text(RECIPE)
    curves = {"vectors": plan.Curve(lambda task, n: task.with_length(n), (2, 5), 4)}
    two = {name: plan.CONTENDERS[name] for name in ("lstm", "dnc")}
    experiment = plan.Experiment(str(tmp_path / "tiny.toml"), 2, SOLVED_AT_ONCE, {"max_length": 4}, curves, two)
    monkeypatch.setattr(suite, "ALL", {"tiny": experiment})
    monkeypatch.setattr(plan, "MEMORY", {"memory_size": 4, "word_size": 4, "read_heads": 1})
    monkeypatch.setattr(suite, "TEST_SEQUENCES", 20)
    monkeypatch.setattr(suite, "CURVE_SEQUENCES", 10)
    return suite


def run(suite: Any, minutes: float = MINUTE) -> Any:
    """The record of the small experiment."""
    import pages

    suite.run("tiny", minutes, None, pages.RESULTS, "abc")
    return json.loads((pages.RESULTS / "suite-tiny.json").read_text())


def change(suite: Any, **changes: Any) -> None:
    suite.ALL["tiny"] = replace(suite.ALL["tiny"], **changes)


def rows(folder: Path) -> list[list[str]]:
    """The cells of the page's tables."""
    lines = (folder / "results.md").read_text().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]


@pytest.mark.parametrize("task", ["copy", "repeat-copy", "associative-recall", "ngrams", "priority-sort"])
def test_every_model_is_as_large_as_the_dnc_and_trained_alike(plan: Any, task: str) -> None:
    configs = {name: plan.EXPERIMENTS[task].config(name, 2.5) for name in plan.CONTENDERS}
    assert list(configs) == NAMES
    of_dnc = configs["dnc"]
    counts = [config.model.count_parameters(config.task.spec) for config in configs.values()]
    assert counts == pytest.approx([of_dnc.model.count_parameters(of_dnc.task.spec)] * 5, rel=0.02)
    for config in configs.values():
        same = {"model": of_dnc.model, "optimizer": of_dnc.optimizer}
        assert replace(config, **same) == of_dnc
        assert (config.threads, config.max_minutes, config.optimizer.name) == (1, 2.5, "adam")
        assert getattr(config.model, "memory_size", 128) == 128
    assert [configs[name].model.name for name in NAMES] == ["lstm", "super-lstm", "ntm", "dnc", "dnc"]


def test_tasks_are_the_papers(plan: Any) -> None:
    tasks = {name: plan.EXPERIMENTS[name].config("dnc", 1).to_dict()["task"] for name in plan.EXPERIMENTS}
    copies, repeats, recall = tasks["copy"], tasks["repeat-copy"], tasks["associative-recall"]
    assert (copies["bits"], copies["min_length"], copies["max_length"]) == (8, 1, 20)
    assert (repeats["bits"], repeats["min_length"], repeats["max_length"]) == (8, 1, 10)
    assert (repeats["min_repeats"], repeats["max_repeats"]) == (1, 10)
    assert (recall["bits"], recall["item_length"], recall["min_items"], recall["max_items"]) == (6, 3, 2, 6)
    assert tasks["ngrams"] == {"kind": "ngrams", "order": 6, "length": 200}
    assert tasks["priority-sort"] == {"kind": "priority-sort", "bits": 8, "items": 20, "answers": 16}
    assert [plan.EXPERIMENTS[name].seeds for name in tasks] == [5, 5, 5, 3, 3]


def test_longer_sequences_are_as_long_as_they_say(plan: Any) -> None:
    def steps(task: str, counted: str) -> dict[int, set[int]]:
        experiment = plan.EXPERIMENTS[task]
        curve, trained = experiment.curves[counted], experiment.config("dnc", 1).task
        batches = {n: curve.at(trained, n).sample(3, seed=0, step=0) for n in curve.values}
        return {n: set(batch.lengths.tolist()) for n, batch in batches.items()}

    assert steps("copy", "vectors") == {n: {2 * n + 1} for n in range(10, 121, 10)}
    assert steps("associative-recall", "items") == {n: {4 * n + 8} for n in (6, 10, 15, 20)}
    sizes = (5, 10, 12, 14, 16, 18, 20)
    assert steps("repeat-copy", "vectors, 10 repeats") == {n: {n * 11 + 2} for n in sizes}
    assert steps("repeat-copy", "repeats of 10 vectors") == {n: {10 * (n + 1) + 2} for n in sizes}


def test_a_record_tells_what_the_runs_did(tiny: Any, plan: Any, tmp_path: Path) -> None:
    change(tiny, contenders=plan.CONTENDERS, seeds=1)
    record = run(tiny)
    assert (record["suite"], record["commit"], record["minutes"]) == ("tiny", "abc", 1)
    assert record["task"]["max_length"] == 4
    assert record["environment"]["threads"] == 1
    assert list(record["models"]) == NAMES
    for name, model in record["models"].items():
        assert [ended["seed"] for ended in model["runs"]] == [0]
        for ended in model["runs"]:
            folder = tmp_path / "runs" / "suite-1" / "tiny" / name / f"seed-{ended['seed']}"
            assert (ended["status"], ended["steps"], ended["sequences"]) == ("solved", 25, 400)
            weights = load_file(folder / "model.safetensors")
            assert model["parameters"] == sum(tensor.numel() for tensor in weights.values())
            assert ended["test"] == evaluate_run(folder, batch_size=100, sequences=20)
            longer = [evaluate_run(folder, length=n, batch_size=100, sequences=10) for n in (2, 5)]
            assert ended["curves"] == {"vectors": [scores["bits_per_sequence"] for scores in longer]}
            valid = [row for row in read_rows(folder) if "valid" in row]
            assert ended["learning"] == {
                "sequences": [400],
                "seconds": [valid[0]["seconds"]],
                "bits": [valid[0]["valid"]["bits_per_sequence"]],
            }


def read_rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]


def test_a_page_shows_medians_and_ranges(tiny: Any, tmp_path: Path) -> None:
    change(tiny, seeds=1)
    record = run(tiny)
    bits = {"lstm": [3.0, 1.0, 2.0], "dnc": [0.25, 0.25, 0.25]}
    for name, values in bits.items():
        (only,) = record["models"][name]["runs"]
        record["models"][name]["runs"] = [
            only | {"seed": seed, "test": {"bits_per_sequence": value}, "curves": {"vectors": [value, 10 * value]}}
            for seed, value in enumerate(values)
        ]
    tiny.publish("tiny", record, tmp_path / "results")
    titles, _, *models, sizes, _, lstm, dnc = rows(tmp_path)
    assert titles[:5] == ["model", "parameters", "rate", "solved", "bits"]
    found = {row[0]: row for row in models}
    assert found["lstm"][3:5] == ["3 of 3", "2 (1 to 3)"]
    assert found["dnc"][3:6] == ["3 of 3", "0.25", "0.4k"]
    assert (sizes, lstm) == (["model", "2", "5"], ["lstm", "2 (1 to 3)", "20 (10 to 30)"])
    assert dnc == ["dnc", "0.25", "2.5"]
    text = " ".join((tmp_path / "results.md").read_text().split())
    assert "Every run is bounded to 60 s of training; solved is at most 1000 bits." in text
    for name in ("suite-learning.png", "suite-generalisation.png"):
        assert (tmp_path / "results" / name).read_bytes().startswith(b"\x89PNG")
        assert f"](results/{name})" in text


def test_the_papers_figures_stand_beside_ours(suite: Any) -> None:
    import suite_text

    model = {"parameters": 5, "learning_rate": 0.1, "runs": [{"seed": 0, "status": "failed"}]}
    curves = {"items": {"values": [6, 8, 20], "trained": 6}}
    record = {"suite": "associative-recall", "command": "c", "commit": "a", "minutes": 1, "solved": 0.1}
    record |= {"environment": {"machine": "m", "threads": 1, "torch": "2"}, "curves": curves, "models": {"ntm": model}}
    text = "\n".join(suite_text.describe(record))
    assert "0 of 1, 1 failed |    – |         – |       – | 0 by 30k sequences |" in text
    assert "| ntm         |   – |   – |    – |" in text
    assert "| lstm, paper |   2 |   – | 38.5 |" in text
    assert "| ntm, paper  |   0 |   – |    7 |" in text


def test_runs_are_gone_on_with_and_not_repeated(tiny: Any, tmp_path: Path) -> None:
    first, folder = run(tiny), tmp_path / "runs" / "suite-1" / "tiny"
    files = [path for path in folder.rglob("*") if path.is_file()]
    before = {path: path.stat().st_mtime_ns for path in files}
    assert run(tiny) == first
    assert {path: path.stat().st_mtime_ns for path in files} == before
    shutil.rmtree(folder / "lstm")
    again = run(tiny)
    (new,) = [name for name in ("lstm", "dnc") if again["models"][name] != first["models"][name]]
    assert new == "lstm"
    assert [each["test"] for each in again["models"][new]["runs"]] == [
        each["test"] for each in first["models"][new]["runs"]
    ]


def test_a_variant_whose_settings_changed_is_not_mixed_with_its_old_runs(tiny: Any, plan: Any) -> None:
    change(tiny, seeds=1, contenders={"dnc": plan.Contender("dnc", 1e-3)})
    run(tiny)
    other = {"dnc": plan.Contender("dnc", 1e-3, {"bypass_dropout": 0.5})}
    for changes in ({"seeds": 2}, {"seeds": 1, "contenders": other}):
        change(tiny, **changes)
        with pytest.raises(
            SystemExit, match=r"tiny/dnc holds runs of other settings or seeds: delete it to train anew$"
        ):
            run(tiny)


def test_a_run_out_of_time_is_not_solved(tiny: Any, tmp_path: Path) -> None:
    change(tiny, solved=NEVER)
    record = run(tiny, AN_INSTANT)
    for model in record["models"].values():
        assert [(ended["status"], ended["steps"]) for ended in model["runs"]] == [("out of time", 1)] * 2
        # It was never evaluated; it is tested all the same.
        assert all(
            ended["learning"]["bits"] == [] and ended["test"]["bits_per_sequence"] > 0 for ended in model["runs"]
        )
    assert [row[3] for row in rows(tmp_path)[2:4]] == ["0 of 2"] * 2


def test_a_failed_run_is_listed(tiny: Any, tmp_path: Path) -> None:
    first, seeds = run(tiny), tmp_path / "runs" / "suite-1" / "tiny" / "dnc" / SEEDS
    data = json.loads(seeds.read_text())
    data["runs"][1] = {"seed": 1, "status": "failed", "step": None, "seconds": None, "scores": None}
    seeds.write_text(json.dumps(data))
    solved, failed = run(tiny)["models"]["dnc"]["runs"]
    assert solved == first["models"]["dnc"]["runs"][0]
    assert failed == {"seed": 1, "status": "failed", "learning": first["models"]["dnc"]["runs"][1]["learning"]}
    assert rows(tmp_path)[3][:1] == ["dnc"]
    assert rows(tmp_path)[3][3] == "1 of 2, 1 failed"


def test_a_learning_curve_has_points_a_tenth_apart_and_its_end(tiny: Any, tmp_path: Path) -> None:
    written = [{"step": step, "seconds": step / 10, "valid": {"bits_per_sequence": 1 / step}} for step in range(1, 100)]
    (tmp_path / METRICS).write_text("".join(json.dumps(row) + "\n" for row in [{"step": 1, "loss": 2}, *written]))
    curve = tiny._learning(tmp_path, 16)
    steps = [sequences // 16 for sequences in curve["sequences"]]
    assert steps[:10] == list(range(1, 11))
    assert steps[10:14] == [11, 13, 15, 17]
    assert steps[-1] == 99
    assert all(after >= 1.1 * before for before, after in itertools.pairwise(steps[:-1]))
    assert curve["seconds"] == [step / 10 for step in steps]
    assert curve["bits"] == [1 / step for step in steps]


def test_two_processes_publish_one_after_the_other(suite: Any, tmp_path: Path) -> None:
    import pages

    with pages.locked(tmp_path / "results"):
        other = os.open(tmp_path / "results", os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(other)


def test_a_quick_look_leaves_published_results_alone(tiny: Any, tmp_path: Path) -> None:
    change(tiny, seeds=1)
    tiny.run("tiny", MINUTE, 1, tmp_path / "quick", "abc")
    assert sorted(path.name for path in (tmp_path / "quick").iterdir()) == [
        "suite-generalisation.png",
        "suite-learning.png",
        "suite-tiny.json",
    ]
    assert not (tmp_path / "results").exists()
    assert not (tmp_path / "results.md").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["juggle"],
            "TASK must be one of copy, repeat-copy, associative-recall, ngrams, priority-sort, copy-sparse, "
            "associative-recall-sparse, priority-sort-sparse, rates, got juggle",
        ),
        (["copy", "--minutes", "-1"], "--minutes must be a finite number above 0, got -1.0"),
        (["copy", "--minutes", "2", "--quick"], "argument --quick: not allowed with argument --minutes"),
        (["copy", "--minutes", "nan"], "--minutes must be a finite number above 0, got nan"),
    ],
)
def test_refusals(
    suite: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    monkeypatch.setattr("sys.argv", ["suite.py", *arguments])
    with pytest.raises(SystemExit) as end:
        suite.main()
    assert end.value.code == 2
    assert sentence in capsys.readouterr().err
