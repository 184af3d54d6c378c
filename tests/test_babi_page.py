"""The page on all 20 bAbI tasks: ours beside the papers', how fast errors fell, and what each change is worth."""

from __future__ import annotations

import dataclasses
import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from torchdnc.training import RunConfig

NOTE = "task 3 trains on 185 stories of an incomplete copy."


@pytest.fixture
def pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """benchmarks/pages.py, with its files in `tmp_path`."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    import pages

    monkeypatch.setattr(pages, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(pages, "PAGE", tmp_path / "results.md")
    (tmp_path / "results").mkdir()
    return pages


def config_of(study: str) -> RunConfig:
    import learning

    config: RunConfig = learning.STUDIES[study].config()
    return config


def scores(error: float) -> dict[str, float]:
    """As of a test: task k is k times as wrong as task 1."""
    errors = {f"error/task {task}": error * task for task in range(1, 21)}
    failed = sum(value > 0.05 for value in errors.values())
    return errors | {"mean_error": statistics.fmean(errors.values()), "failed_tasks": float(failed)}


def run(error: float, seed: int = 0, step: int = 900, **changes: Any) -> dict[str, Any]:
    """A run of an hour that was evaluated at every quarter of it."""
    way = [[step * part // 4, 900.0 * part, 0.8 / part] for part in range(1, 5)]
    told = {"seed": seed, "status": "out of time", "step": step, "seconds": 3600.0, "scores": {"mean_error": 0.2}}
    return told | {"tests": {"test": scores(error)}, "validation": way} | changes


FAILED = {"seed": 1, "status": "failed", "step": None, "seconds": None, "scores": None, "tests": {}}


def record(study: str, *runs: dict[str, Any]) -> dict[str, Any]:
    """What benchmarks/learning.py would write of a study's recipe."""
    environment = {"machine": "one", "threads": 1, "processes": 2, "torch": "2", "engine": "auto"}
    recipe = config_of(study).to_dict()
    told = {"command": f"python benchmarks/learning.py {study}", "commit": "abc", "environment": environment}
    return told | {"recipe": recipe, "parameters": 1234, "notes": [NOTE], "seconds_to_solve": {}, "runs": list(runs)}


def section(pages: Any, **records: dict[str, Any]) -> str:
    """The page's part between training and speed, of these records alone."""
    for name, each in records.items():
        pages.save(pages.RESULTS / f"{name.replace('_', '-')}.json", each)
    pages.write()
    _, heading, rest = pages.PAGE.read_text().partition("## bAbI, all 20 tasks jointly")
    return f"{heading}{rest}"


def tables(text: str) -> list[list[dict[str, str]]]:
    """The rows of each table, by its columns."""
    found = []
    for block in text.split("\n\n"):
        if block.startswith("|"):
            titles, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines())
            found.append([dict(zip(titles, row, strict=True)) for row in rows])
    return found


def test_what_papers_report_is_copied_without_a_slip(pages: Any) -> None:
    """Their means over the tasks are those of the tasks, where all are given."""
    import babi_text

    published = babi_text.papers()
    assert list(published) == [*map(str, range(1, 21)), "mean", "failed", "seeds"]

    def value(row: str, model: str) -> float:
        return float(published[row][model].split(" ± ")[0])

    for model in ("LSTM", "DNC", "SDNC"):
        mean = statistics.fmean(value(str(task), model) for task in range(1, 21))
        assert mean == pytest.approx(value("mean", model), abs=0.11)
    for model in ("ADNC", "BiADNC"):
        least = [0.0 if published[str(task)][model] == "≤ 1.0" else value(str(task), model) for task in range(1, 21)]
        most = sum(cell == 0 for cell in least) / 20
        assert statistics.fmean(least) - 0.06 <= value("mean", model) <= statistics.fmean(least) + most + 0.06


def test_without_results_there_is_no_such_part(pages: Any) -> None:
    assert section(pages) == ""


def test_a_run_is_told_of_beside_the_papers(pages: Any) -> None:
    text = section(pages, babi_biadnc=record("babi-biadnc", run(0.01)))
    assert text.count("Task 3 trains on 185 stories of an incomplete copy. So in all.") == 1
    assert "`python benchmarks/learning.py babi-biadnc`, commit abc; one, 2 process(es) of 1 thread(s), torch 2" in text
    assert "batches of 16 stories, cut at 400 words, 2 steps to think before an answer" in " ".join(text.split())
    assert "One change at a time" not in text
    (mine,), errors = tables(text)
    planned = config_of("babi-biadnc").steps
    assert (mine["ended"], mine["steps"], mine["hours"]) == ("out of time", f"900 of {planned:,}", "1.00")
    # 0.8 / 3 at three quarters of the hour, then the last one's; 1 to 20 % are 10.5 % on average.
    assert (mine["before"], mine["validation"], mine["test"], mine["failed"]) == ("26.7", "20.0", "10.5", "15")
    assert [row["task"] for row in errors] == [*map(str, range(1, 21)), "mean", "failed", "seeds"]
    assert [row["babi-biadnc"] for row in errors] == [*(f"{task}.0" for task in range(1, 21)), "10.5", "15.0", "1"]
    assert (errors[18]["LSTM, paper"], errors[20]["BiADNC, paper"]) == ("90.9 ± 1.1", "3.2 ± 0.5")


def test_several_studies_and_seeds_some_of_which_failed(pages: Any) -> None:
    seeds = [run(0.01), FAILED, run(0.03, 2, 20_000, status="finished")]
    lost = record("babi-lstm", FAILED)
    text = section(pages, babi_biadnc=record("babi-biadnc", *seeds), babi_lstm=lost | {"notes": []})
    assert "So in babi-biadnc." in text
    runs, errors = tables(text)
    assert [row["ended"] for row in runs] == ["out of time", "failed", "finished", "failed"]
    assert (runs[1]["test"], runs[3]["steps"]) == ("–", "–")
    assert (errors[0]["babi-biadnc"], errors[0]["babi-lstm"]) == ("2.0 ± 1.4", "–")
    assert (errors[22]["babi-biadnc"], errors[22]["babi-lstm"]) == ("2", "0")


def test_a_record_that_lacks_the_way_there_and_the_parameters(pages: Any) -> None:
    old = record("babi-biadnc", {name: value for name, value in run(0.01).items() if name != "validation"})
    del old["parameters"]
    (mine,), _ = tables(section(pages, babi_biadnc=old))
    assert (mine["parameters"], mine["before"], mine["validation"]) == ("–", "–", "20.0")


def test_tasks_of_their_own_are_not_among_them(pages: Any) -> None:
    assert section(pages, babi_1_4_6=record("babi-1-4-6", run(0.01))) == ""
    text = pages.PAGE.read_text()
    assert "### babi-1-4-6" in text
    ((row,),) = tables(text)
    assert (row["task 4, %"], row["mean error, %"], row["failed tasks"]) == ("4", "10.5", "15")


def test_each_change_is_compared_with_the_recipe_unchanged(pages: Any) -> None:
    import learning

    studies = [name for name in learning.STUDIES if name.startswith("babi-short")]
    records = {name: record(name, run(0.02 + 0.01 * i)) for i, name in enumerate(studies)}
    (rows,) = tables(section(pages, **records))
    by_name = {row["run"]: row for row in rows}
    assert {name: row["change"] for name, row in by_name.items()} == {
        "babi-short": "none",
        "babi-short-no-gain": "input_gain 1.0",
        "babi-short-norm": "interface_norm on",
        "babi-short-no-dropout": "bypass_dropout 0.0",
        "babi-short-no-thinking": "think_steps 0",
        "babi-short-two-ways": "bidirectional on",
        "babi-short-links": "links full",
        "babi-short-not-skipping": "skip_unwritten off",
        "babi-short-masking": "masking on",
        "babi-short-deallocation": "deallocation on",
    }
    assert [by_name[name]["more"] for name in studies] == ["–", *(f"+{10.5 * i:.1f}" for i in range(1, len(studies)))]


def test_a_change_alone_is_shown_without_a_comparison(pages: Any) -> None:
    (rows,) = tables(section(pages, babi_short_norm=record("babi-short-norm", run(0.01))))
    assert [(row["change"], row["more"], row["test"]) for row in rows] == [("–", "–", "10.5")]


def test_short_studies_are_the_recipe_but_for_one_setting_and_the_steps(pages: Any) -> None:
    import learning
    from babi_text import differences

    recipe = config_of("babi-content")
    for name in (name for name in learning.STUDIES if name.startswith("babi-short")):
        config = config_of(name)
        assert (config.steps < recipe.steps, config.max_minutes) == (True, None)
        same = dataclasses.replace(config, steps=recipe.steps, max_minutes=recipe.max_minutes)
        assert len(differences(recipe.to_dict(), same.to_dict())) == (name != "babi-short")


def test_the_way_there_is_drawn(pages: Any) -> None:
    pytest.importorskip("matplotlib")
    pages.publish("babi-1", record("babi-1", run(0.01)))
    assert not (pages.RESULTS / "babi.png").exists()
    pages.publish("babi-biadnc", record("babi-biadnc", FAILED))
    assert not (pages.RESULTS / "babi.png").exists()
    pages.publish("babi-lstm", record("babi-lstm", run(0.01)))
    assert (pages.RESULTS / "babi.png").read_bytes().startswith(b"\x89PNG")
    assert "](results/babi.png)" in pages.PAGE.read_text()


def test_the_way_there_is_what_the_metrics_say(pages: Any, tmp_path: Path) -> None:
    import learning

    rows = [{"step": 2, "seconds": 1.5, "loss": 3.0}, {"step": 4, "seconds": 3.0, "valid": {"mean_error": 0.5}}]
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert learning.validation(tmp_path) == [[4, 3.0, 0.5]]
