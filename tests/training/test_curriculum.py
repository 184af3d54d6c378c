"""Lessons: a setting of the task grows when the goal is met, and only the last one ends the run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.training.runs import assert_same_run, rows, tiny
from torchdnc.tasks import AssociativeRecall
from torchdnc.training import Curriculum, Goal, resume, train
from torchdnc.training.curriculum import lesson_of, next_lesson

ALWAYS = Goal("wrong_bits", 1.0)
NEVER = Goal("wrong_bits", -1.0)


def learning(**changes: Any) -> Any:
    """Lessons of 3, 6 and 10 vectors at most; an evaluation every fifth step."""
    return tiny(**{"goal": ALWAYS, "curriculum": Curriculum("max_length", 10), "steps": 40} | changes)


def test_each_lesson_is_twice_as_long_until_the_last_is_learned(tmp_path: Path) -> None:
    result = train(learning(), tmp_path / "run")
    assert (result.status, result.step) == ("solved", 15)
    assert [row["lesson"] for row in rows(tmp_path / "run") if "valid" in row] == [3, 6, 10]


def test_a_lesson_goes_on_until_it_is_learned(tmp_path: Path) -> None:
    result = train(learning(goal=NEVER, steps=12), tmp_path / "run")
    assert result.status == "finished"
    assert [row["lesson"] for row in rows(tmp_path / "run") if "valid" in row] == [3, 3, 3]


def test_a_resumed_run_goes_on_with_its_lesson(tmp_path: Path) -> None:
    train(learning(), tmp_path / "whole")
    assert train(learning(steps=8), tmp_path / "cut").status == "finished"
    resume(tmp_path / "cut", steps=40)
    whole, cut = ([row for row in rows(tmp_path / name) if "valid" in row] for name in ("whole", "cut"))
    # The shorter run was evaluated at its end as well, and there ended a lesson.
    assert [row["lesson"] for row in cut] == [3, 6, 10]
    assert whole[0] == cut[0]


def test_an_interrupted_run_is_the_uninterrupted_one(tmp_path: Path) -> None:
    train(learning(), tmp_path / "whole")
    train(learning(max_minutes=1e-9), tmp_path / "cut")
    resume(tmp_path / "cut", max_minutes=10.0)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_two_processes_have_the_same_lessons(tmp_path: Path) -> None:
    train(learning(), tmp_path / "one")
    train(learning(processes=2), tmp_path / "two")
    one, two = (rows(tmp_path / name) for name in ("one", "two"))
    assert [(row["step"], row.get("lesson")) for row in one] == [(row["step"], row.get("lesson")) for row in two]
    losses, others = ([row["loss"] for row in each if "loss" in row] for each in (one, two))
    assert losses == pytest.approx(others, rel=1e-4)


def test_lessons() -> None:
    task, curriculum = AssociativeRecall(max_items=6), Curriculum("max_items", 20, factor=3)
    assert lesson_of(curriculum, task, None) == task
    assert lesson_of(curriculum, task, 18) == replace(task, max_items=18)
    assert [next_lesson(curriculum, task, lesson, met=True) for lesson in (None, 6, 18, 20)] == [18, 18, 20, 20]
    assert next_lesson(curriculum, task, None, met=False) == 6
    assert next_lesson(None, task, None, met=True) is None


BAD = [
    ({"goal": None}, "curriculum needs a goal that ends a lesson, got none"),
    ({"curriculum": Curriculum("max_items", 10)}, "curriculum.setting must be one of .*max_length.*, got 'max_items'"),
    ({"curriculum": Curriculum("bits", 8)}, "curriculum.setting must leave inputs and outputs as wide .* 'bits'"),
    ({"curriculum": Curriculum("max_length", 2)}, "curriculum.most must be at least the task's max_length, 3, got 2"),
]


@pytest.mark.parametrize(("changes", "words"), BAD, ids=str)
def test_lessons_that_there_are_not_are_refused_before_anything_is_done(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=words):
        train(learning(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match=r"curriculum\.factor must be at least 2, got 1"):
        Curriculum("max_length", 10, factor=1)
