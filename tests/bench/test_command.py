"""torchdnc bench: what it writes, prints and refuses, with quick parts in the place of the real ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.test_cli import refusal, run
from torchdnc import bench
from torchdnc.bench import Part
from torchdnc.bench.fresh import ChildError
from torchdnc.commands import bench as command


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")


@pytest.fixture
def part(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts parts of a benchmark in the place of the real ones, which take minutes."""

    def put(**measures: Callable[[], dict[str, Any]]) -> None:
        parts = {name: made(name, measure) for name, measure in measures.items()}
        monkeypatch.setattr(command, "PARTS", parts)
        monkeypatch.setattr(bench, "PARTS", parts)

    def made(name: str, measure: Callable[[], dict[str, Any]]) -> Part:
        return Part(
            f"Title of {name}", 7, 2, lambda plan, rounds, tell: measure(), lambda found: iter([f"found {found}"])
        )

    return put


def interrupted() -> dict[str, Any]:
    raise KeyboardInterrupt


def test_bench(capsys: pytest.CaptureFixture[str], part: Callable[..., None]) -> None:
    part(steps=lambda: {"threads of torch": torch.get_num_threads()}, memory=lambda: {"growth": 3})
    before = torch.get_num_threads()
    assert run("bench", "memory", "steps", "memory", "--threads", "1", "--out", "here") == 0
    assert torch.get_num_threads() == before
    out, err = capsys.readouterr()
    assert out.index("Title of memory") < out.index("found {'growth': 3}") < out.index("Title of steps")
    assert "steps: written to here/steps.json\n" in err
    record = json.loads(Path("here/steps.json").read_text())
    assert record["found"] == {"threads of torch": 1}
    assert record["command"] == "torchdnc bench memory steps memory --threads 1 --out here"
    assert (record["part"], record["threads"], record["rounds"], record["quick"]) == ("steps", 1, 7, False)
    assert record["versions"]["torch"] == torch.__version__
    assert record["commit"]
    assert record["machine"]


def test_a_quick_bench_replaces_no_record(part: Callable[..., None]) -> None:
    part(steps=dict, memory=dict)
    assert run("bench", "--quick") == 0
    assert [path.name for path in sorted(Path().rglob("*.json"))] == ["memory.json", "steps.json"]
    assert json.loads(Path("runs/bench/steps.json").read_text())["rounds"] == 2
    assert run("bench", "steps", "--rounds", "5") == 0
    assert json.loads(Path("results/steps.json").read_text())["rounds"] == 5


@pytest.mark.parametrize(("load", "noted"), [(0.2, False), (2.34, True)])
def test_a_busy_machine_is_noted(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    part: Callable[..., None],
    load: float,
    noted: bool,
) -> None:
    part(steps=dict)
    monkeypatch.setattr("os.getloadavg", lambda: (load, 0.0, 0.0))
    assert run("bench") == 0
    assert ("note: the machine is busy (load 2.3): " in capsys.readouterr().err) is noted
    assert json.loads(Path("results/steps.json").read_text())["load"] == load


def test_an_interrupted_bench_keeps_what_is_finished(
    capsys: pytest.CaptureFixture[str], part: Callable[..., None]
) -> None:
    part(steps=lambda: {"a": 1}, memory=interrupted, start=dict)
    assert run("bench", "--out", "here", "--quick", "--threads", "1") == 130
    again = "torchdnc bench memory start --quick --out here --threads 1"
    assert capsys.readouterr().err.endswith(f"interrupted; steps in here; go on with: {again}\n")
    assert [path.name for path in Path("here").iterdir()] == ["steps.json"]
    assert run("bench", "memory") == 130
    assert "interrupted; no part was finished; go on with: torchdnc bench memory\n" in capsys.readouterr().err


def test_a_bench_that_fails_says_why(capsys: pytest.CaptureFixture[str], part: Callable[..., None]) -> None:
    def failing() -> dict[str, Any]:
        raise ChildError("measuring memory failed: MemoryError")

    part(memory=failing)
    assert run("bench") == 1
    assert capsys.readouterr().err.endswith("error: measuring memory failed: MemoryError\n")


def test_a_bench_needs_the_fused_engine(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchdnc.engines.fused.compiled.refusal", lambda: "numba is not installed")
    assert "cannot run this call: numba is not installed" in refusal(capsys, "bench", "steps")


def test_parts_of_a_bench_are_those_of_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("bench", "--help") == 0
    text = capsys.readouterr().out
    assert f"{{{','.join(bench.PARTS)}}}" in text
    assert all(f"\n  {name} " in text for name in bench.PARTS)
