"""Measurements in processes of their own."""

from __future__ import annotations

import json
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from torchdnc.bench import Plan, describe, fresh, memory, run, start
from torchdnc.bench.fresh import ChildError, KilledError
from torchdnc.bench.memory import growth
from torchdnc.bench.sizes import Size

TINY = Size(B=2, T=3, I=3, H=4, N=6, W=5, R=2)


@pytest.mark.parametrize("megabytes", [40, 80])
def test_growth_is_what_a_call_takes_at_its_peak(megabytes: int) -> None:
    def call() -> None:
        for _ in range(2):
            torch.ones(megabytes * 250_000)

    earlier = torch.ones(50_000_000)
    del earlier
    found, how = growth(call)
    if how == "VmHWM":
        assert found == pytest.approx(megabytes * 1e6, rel=0.05)


def test_growth_without_a_peak_that_can_be_set_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "CLEAR", tmp_path / "none" / "clear_refs")
    peaks = iter([700, 950])
    monkeypatch.setattr(memory, "_highest", lambda: next(peaks))
    called = []
    assert growth(lambda: called.append(1)) == (250, "getrusage")
    assert called == [1]


def test_the_highest_peak_is_in_bytes() -> None:
    held = memory.held()
    assert held is None or memory._highest() >= held > 30e6


def test_a_training_step_in_a_process_of_its_own() -> None:
    size = TINY._replace(T=200, B=16, N=64)
    found = fresh.fresh("memory", {"size": size, "engine": "reference", "threads": 1})
    # Each step's graph has some copies of links [16, 64, 64] and of memories [16, 64, 5].
    links = 200 * 16 * 64 * 64 * 4 / 1e6
    assert 2 * links < found["megabytes"] < 12 * links


def test_memory_of_every_engine_and_length(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, Any]] = []

    def answer(name: str, arguments: dict[str, Any]) -> Any:
        asked.append((name, arguments))
        return {"megabytes": [170, 160, 900][len(asked) % 3], "kept": 1, "peak": "VmHWM"}

    monkeypatch.setattr(memory, "fresh", answer)
    record = run("memory", Plan(threads=1), lambda text: None)
    assert [arguments["engine"] for _, arguments in asked] == ["reference"] * 3 + ["fused"] * 3 + ["reference"] * 3 + [
        "fused"
    ] * 3
    assert [row["T"] for row in record["found"]["rows"]] == [100, 100, 400, 400]
    assert {row["megabytes"] for row in record["found"]["rows"]} == {170}
    rows = [[cell.strip() for cell in line.split("|")] for line in describe(record).splitlines() if "| fused" in line]
    assert rows[0][1:6] == ["fused", "100", "170", "150 / 180", "bound"]
    assert rows[1][1:6] == ["fused", "400", "170", "300 / 500", "goal"]


def test_an_engine_that_this_machine_has_no_memory_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(name: str, arguments: dict[str, Any]) -> Any:
        if arguments["engine"] == "reference":
            raise KilledError("measuring memory failed: the process was killed by signal 9")
        return {"megabytes": 100, "kept": 1, "peak": "VmHWM"}

    monkeypatch.setattr(memory, "fresh", answer)
    text = describe(run("memory", Plan(threads=1, quick=True), lambda text: None))
    rows = [[cell.strip() for cell in line.split("|")[1:4]] for line in text.splitlines() if "| 100 |" in line]
    assert rows == [["reference", "100", "–"], ["fused", "100", "100"]]
    assert "\nreference, T 100: measuring memory failed: the process was killed by signal 9; " in text


def test_the_first_call_in_a_process_of_its_own() -> None:
    first, second = fresh.fresh("start", {"size": TINY, "threads": 1})
    # It loads numba, which the second need not.
    assert first > 5 * second > 0


def test_numba_must_not_be_loaded_before_it_is_timed() -> None:
    import numba  # noqa: F401

    with pytest.raises(RuntimeError, match="must not be loaded"):
        start.child(list(TINY), 1)


def test_cold_and_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    folders: list[Path] = []

    def answer(name: str, arguments: Any, environment: dict[str, str]) -> list[float]:
        folder = Path(environment["NUMBA_CACHE_DIR"])
        found = [20.0, 0.1] if not any(folder.iterdir()) else [0.5, 0.1]
        (folder / "kernel.nbc").touch()
        folders.append(folder)
        return found

    monkeypatch.setattr(start, "fresh", answer)
    record = run("start", Plan(threads=1, quick=True), lambda text: None)
    assert [(row["cache"], row["seconds"]) for row in record["found"]["rows"]] == [("cold", 20), ("cached", 0.5)]
    told = [[cell.strip() for cell in line.split("|")] for line in describe(record).splitlines() if "| S " in line]
    assert told[0][2:7] == ["cold", "20", "15 / 25", "bound", "0.1"]
    assert told[1][2:6] == ["cached", "0.5", "0.4 / 1", "bound"]
    assert len(folders) == 2
    assert not folders[0].exists()


def test_kernels_that_are_not_kept_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "fresh", lambda name, arguments, environment: [1.0, 0.1])
    with pytest.raises(ChildError, match="no kernel was kept in NUMBA_CACHE_DIR"):
        start.cold_and_cached(TINY, 1)

    def compiling(name: str, arguments: Any, environment: dict[str, str]) -> list[float]:
        folder = Path(environment["NUMBA_CACHE_DIR"])
        (folder / f"kernel-{len(list(folder.iterdir()))}").touch()
        return [1.0, 0.1]

    monkeypatch.setattr(start, "fresh", compiling)
    with pytest.raises(ChildError, match="a second process compiled anew: kernel-1"):
        start.cold_and_cached(TINY, 1)


def test_a_process_that_fails_says_why() -> None:
    with pytest.raises(ChildError, match=r"measuring memory failed: ValueError: engine must be one of .*got 'warp'"):
        fresh.fresh("memory", {"size": TINY, "engine": "warp", "threads": 1})


def test_a_process_that_is_killed_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    killed = partial(subprocess.CompletedProcess[str], [], -9, "", "")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: killed())
    with pytest.raises(KilledError, match="killed by signal 9"):
        fresh.fresh("memory", {})


def test_an_exception_of_many_lines_is_told_by_its_first(monkeypatch: pytest.MonkeyPatch) -> None:
    said = (
        "Traceback (most recent call last):\n  File\nnumba.core.errors.TypingError: it does not fit\nDuring: a pass\n"
    )
    ended = subprocess.CompletedProcess[str]([], 1, "", said)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: ended)
    with pytest.raises(ChildError, match=r"measuring start failed: numba.core.errors.TypingError: it does not fit$"):
        fresh.fresh("start", {})


def test_what_a_process_answers_is_its_last_line(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "compiling\n" + json.dumps({"a": 1}) + "\n"
    ended = subprocess.CompletedProcess[str]([], 0, said, "")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: ended)
    assert fresh.fresh("memory", {}) == {"a": 1}
