"""What a user sees of a run, and TensorBoard's files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.runs import TINY, At, rows, tiny
from torchdnc.tasks import Copy
from torchdnc.training import Goal, Progress, train
from torchdnc.training.console import Lines, LiveTable, Pace, clock, scores_line, scores_table
from torchdnc.training.metrics import TensorBoard
from torchdnc.training.plain import to_toml


def test_pace() -> None:
    pace = Pace(tiny(steps=100), Progress(step=10, seconds=5.0))
    assert pace.advance(30, 15.0) == pytest.approx((2.0, 35.0))
    assert pace.advance(60, 20.0) == pytest.approx((6.0, 40 / 6))
    limited = Pace(tiny(steps=100, max_minutes=0.5), Progress(step=10, seconds=5.0))
    assert limited.advance(30, 15.0) == pytest.approx((2.0, 15.0))


def test_formats() -> None:
    assert [clock(seconds) for seconds in (7, 61.4, 3599.6, 11554)] == ["0:07", "1:01", "1:00:00", "3:12:34"]
    scores = {"error/task 1": 0.0123, "error/task 10": 0.5, "mean_error": 0.25625, "failed_tasks": 1.0}
    assert scores_line(scores) == "mean_error 0.2562  failed_tasks 1"
    assert scores_table(scores).splitlines() == [
        "  error/task 1   1.23 %",
        "  error/task 10  50.00 %",
        "  mean_error     25.62 %",
        "  failed_tasks   1",
    ]


def test_plain_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = train(TINY, tmp_path / "run", Lines())
    text = capsys.readouterr().out
    assert text.startswith(to_toml(TINY.to_dict()) + f"\n# 754 parameters\ntraining in {tmp_path / 'run'}\n")
    lines = [line for line in text.splitlines() if line.startswith("step ")]
    assert [line.split()[1] for line in lines] == [f"{row['step']}/12" for row in rows(tmp_path / "run")]
    assert f"loss {rows(tmp_path / 'run')[0]['loss']:.4g}" in lines[0]
    assert f"wrong_bits {result.scores['wrong_bits']:.4g}" in lines[-1]


def test_notes_are_printed_and_saved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Noted(Copy):
        def notes(self) -> tuple[str, ...]:
            return ("half of it is missing",)

    train(tiny(task=Noted(2, 1, 3), steps=1), tmp_path / "run", Lines())
    assert "note: half of it is missing\n" in capsys.readouterr().out
    assert '"notes": [\n    "half of it is missing"\n  ]' in (tmp_path / "run" / "config.json").read_text()


def test_long_settings_are_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Wordy(Copy):
        name = "x" * 300

    Lines().started(tiny(task=Wordy()), tmp_path, Progress(step=7))
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) == 154
    assert text.endswith(f"going on at step 7 in {tmp_path}\n")


def test_live_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    table = LiveTable()
    train(tiny(goal=Goal("wrong_bits", -1.0)), tmp_path / "run", table)
    columns = {column.header: list(column.cells) for column in table._table().columns}
    written = rows(tmp_path / "run")
    assert columns["step"] == ["3", "5", "6", "9", "10", "12"]
    assert columns["loss"] == [f"{row['loss']:.4g}" if "loss" in row else "" for row in _last(written)]
    assert columns["wrong_bits"][1] == f"{written[1]['valid']['wrong_bits']:.4g}"
    text = capsys.readouterr().out
    assert "\x1b[" in text
    assert "steps/s" in text


def _last(written: list[dict[str, object]]) -> list[dict[str, object]]:
    """The rows of each step as one."""
    merged: dict[object, dict[str, object]] = {}
    for row in written:
        merged.setdefault(row["step"], {}).update(row)
    return list(merged.values())


def test_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
        EventAccumulator,
    )

    run = tmp_path / "run"
    train(TINY, run, TensorBoard())
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    for tag, part in (("train/loss", lambda row: row.get("loss")), ("valid/perfect", _perfect)):
        expected = [(row["step"], part(row)) for row in rows(run) if part(row) is not None]
        found = [(event.step, event.value) for event in events.Scalars(tag)]
        assert found == [(step, pytest.approx(value)) for step, value in expected]
        assert len(found) > 1


def _perfect(row: dict[str, dict[str, float]]) -> float | None:
    return row.get("valid", {}).get("perfect")


def test_tensorboard_must_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match=r"tensorboard must be installed.*torchdnc\[tensorboard\]"):
        TensorBoard()


def test_every_reporter_hears_of_the_end_of_an_error(tmp_path: Path) -> None:
    heard: list[object] = []

    def fail() -> None:
        raise RuntimeError("broken")

    class Last(At):
        def ended(self, result: object) -> None:
            heard.append(result)

    with pytest.raises(RuntimeError, match="broken"):
        train(TINY, tmp_path / "run", Last(3, fail))
    assert heard == [None]


def test_library_needs_neither_rich_nor_tyro() -> None:
    code = "import sys, torchdnc.training; print(sorted({'rich', 'tyro', 'tensorboard'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
