"""The study of links: how runs are read, what is said of them, and that all of it runs."""

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from torchdnc import cli
from torchdnc.bench.text import prose
from torchdnc.studies import links
from torchdnc.studies.links import LINKED, NO_MEMORY, SPARSE, UNLINKED
from torchdnc.training.config import Goal

ROWS: list[dict[str, Any]] = [
    {"step": 50, "valid": {"wrong_bits": 0.4, "perfect": 0.0}},
    {"step": 100, "loss": 0.5, "grad_norm": 1.0},
    {"step": 100, "valid": {"wrong_bits": 0.1, "perfect": 0.25}},
    {"step": 150, "valid": {"wrong_bits": 0.0, "perfect": 1.0}},
]


def test_a_run_is_read_from_its_evaluations() -> None:
    assert links.curve(ROWS) == [[50, 1.0], [100, 0.75], [150, 0.0]]
    assert links.solved(ROWS, Goal("wrong_bits", 0.1)) == 100
    assert links.solved(ROWS, Goal("wrong_bits", 0.0)) == 150
    assert links.solved(ROWS[:3], Goal("wrong_bits", 0.0)) is None


def test_a_run_that_stopped_keeps_its_last_error() -> None:
    points = links.curve(ROWS)
    assert [links.error_at(points, step) for step in (50, 99, 100, 150, 4000)] == [1.0, 1.0, 0.75, 0.0, 0.0]


def test_drawn_steps_are_evaluations_from_the_first_to_the_last() -> None:
    assert links.drawn_steps(50, 150) == [50, 100, 150]
    steps = links.drawn_steps(50, 4000)
    assert steps[:5] == [50, 100, 150, 200, 300]
    assert steps[-1] == 4000
    assert all(step % 50 == 0 for step in steps)
    assert all(later <= 2 * earlier for earlier, later in pairwise(steps))


def learner(errors: list[float], solved: list[int | None]) -> dict[str, Any]:
    seeds = [
        {"curve": [[50, 1.0], [when or 2000, error]], "solved": when, "tested": {"20": 1 - error, "30": 0.5}}
        for error, when in zip(errors, solved, strict=True)
    ]
    return {"parameters": 1234, "seeds": seeds}


def part(linked: dict[str, Any], unlinked: dict[str, Any]) -> dict[str, Any]:
    others = {SPARSE: linked, UNLINKED: unlinked, NO_MEMORY: learner([1.0, 1.0], [None, None])}
    return {"lengths": [20, 30], "steps": 2000, "every": 50, "models": {LINKED: linked, **others}}


SOON, LATE = learner([0.0, 0.01], [200, 300]), learner([0.0, 0.0], [350, 900])
NEVER, HALF = learner([0.8, 0.7], [None, None]), learner([0.0, 0.8], [250, None])


@pytest.mark.parametrize(
    ("linked", "unlinked", "said"),
    [
        (SOON, NEVER, "less"),
        (NEVER, SOON, "more"),
        (SOON, LATE, "sooner"),
        (LATE, SOON, "later"),
        (SOON, SOON, ""),
        (NEVER, NEVER, ""),
        # Means that are far apart say nothing while the seeds overlap.
        (SOON, HALF, ""),
    ],
)
def test_links_and_none_are_compared_seed_by_seed(linked: Any, unlinked: Any, said: str) -> None:
    assert links.compare(part(linked, unlinked)) == said


def test_a_goal_that_was_not_met_takes_for_ever() -> None:
    assert links.times(HALF) == [250, math.inf]


def found_of(copy: dict[str, Any], recall: dict[str, Any], paper: dict[str, Any]) -> dict[str, Any]:
    return {"sequences": 64, "parts": {"copy": copy, "recall": recall, "paper": paper}}


def test_the_answer_says_where_links_help_and_where_not() -> None:
    answer = links.answer(found_of(part(SOON, LATE), part(SOON, SOON), part(SOON, NEVER)))
    assert answer.startswith(
        "Against none, dense links help in copy with an LSTM controller and in copy with a feedforward controller; "
        "they make no clear difference in keyed recall with an LSTM controller. "
    )
    assert "99.5% with dense links, 99.5% with 5 links, 25.0% with no links, 0.0% with a super-LSTM" in answer
    assert "links take fewer steps to the goal than none" in answer
    assert "links leave fewer errors than none" in answer
    assert "hurt" not in answer


def test_the_answer_says_where_links_hurt() -> None:
    answer = links.answer(found_of(part(NEVER, SOON), part(LATE, SOON), part(NEVER, NEVER)))
    assert answer.startswith(
        "Against none, dense links hurt in copy with an LSTM controller and in keyed recall with an LSTM controller; "
        "they make no clear difference in copy with a feedforward controller. "
    )
    assert "links leave more errors than none" in answer
    assert "links take more steps to the goal than none" in answer
    assert "help" not in answer


def test_models_are_alike_but_for_the_links() -> None:
    for part in links.PARTS.values():
        learners, spec = links.models(part), part.task.spec
        counts = {label: model.count_parameters(spec) for label, model in learners.items()}
        assert (NO_MEMORY in learners) == (part.base.controller == "lstm")
        if NO_MEMORY in learners:
            assert counts[NO_MEMORY] == pytest.approx(counts[LINKED], rel=0.02)
        # Without links there are no read modes: 3 numbers of the interface, each of a weight for every unit and a bias.
        assert counts[LINKED] - counts[UNLINKED] == 3 * (part.base.hidden_size + 1)


def test_sequences_longer_than_trained_on_fit() -> None:
    for part in links.PARTS.values():
        task = part.task.with_length(3 * part.longest // 2)
        assert len(task.sample(1, seed=0, step=0).inputs) <= part.base.memory_size


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Trainings of two steps on short sequences, and a folder of their own."""
    trainings = links.trainings

    def short(quick: bool) -> dict[str, Any]:
        return {
            name: {
                label: replace(run, steps=2, batch_size=2, eval_every=1, eval_sequences=2)
                for label, run in runs.items()
            }
            for name, runs in trainings(quick).items()
        }

    def shorter(part: links.Part) -> links.Part:
        two: dict[str, Any] = {part.setting: 2}
        return replace(part, task=replace(part.task, **two), base=replace(part.base, memory_size=8))

    parts = {name: shorter(part) for name, part in links.PARTS.items()}
    monkeypatch.setattr(links, "PARTS", parts)
    monkeypatch.setattr(links, "trainings", short)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("small")
def test_the_study_writes_a_record_a_figure_and_a_page(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    assert cli.main(["study", "links", "--quick", "--out", "here"]) == 0
    found = json.loads(Path("here/links.json").read_text())["found"]
    assert {name: [*each["models"]] for name, each in found["parts"].items()} == {
        "copy": [LINKED, SPARSE, UNLINKED, NO_MEMORY],
        "recall": [LINKED, SPARSE, UNLINKED, NO_MEMORY],
        "paper": [LINKED, SPARSE, UNLINKED],
    }
    for each in found["parts"].values():
        for learner in each["models"].values():
            (seed,) = learner["seeds"]
            assert [step for step, _ in seed["curve"]] == [1, 2]
            assert [*seed["tested"]] == ["2", "3"]
    assert Path("here/links.png").read_bytes().startswith(b"\x89PNG")
    page = Path("here/links.md").read_text()
    assert page.startswith("# Are the temporal links worth it?\n")
    assert prose(links.answer(found)) in page
    assert links.answer(found) in capsys.readouterr().out
