"""The study of costs: what is expected and estimated of measured points, what is told of them, and that it runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from torchdnc import cli
from torchdnc.bench.fresh import KilledError, fresh
from torchdnc.bench.memory import growth
from torchdnc.bench.sizes import Size
from torchdnc.bench.text import prose
from torchdnc.studies import Plan, scale

TINY = Size(B=2, T=3, I=3, H=4, N=16, W=5, R=1)
ALL = (*scale.MODELS, *scale.FULL)


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The study at sizes that take no time, in this process, and a folder of its own."""
    monkeypatch.setattr(scale, "QUICK_BASE", TINY)
    monkeypatch.setattr(scale, "QUICK_SWEEPS", {"N": (16, 32), "T": (2, 3), "B": (1, 2)})
    monkeypatch.setattr("torchdnc.bench.timing.MOST", 1)
    monkeypatch.setattr(scale, "fresh", here)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def here(name: str, arguments: dict[str, Any], module: str) -> Any:
    return sys.modules[module].CHILDREN[name](**json.loads(json.dumps(arguments)))


def test_what_a_greater_value_is_expected_to_cost() -> None:
    assert scale.expected([10, 20, 40], [1, 4], 40) == pytest.approx(16)
    # Of one point nothing is known but that more costs more, and of falling ones that more costs no less.
    assert scale.expected([10, 30], [2], 30) == pytest.approx(6)
    assert scale.expected([10, 20, 40], [4, 1], 40) == pytest.approx(1)


def test_where_a_bound_is_reached() -> None:
    squares = [1.0, 4.0, 16.0, None]
    assert scale.reached([1, 2, 4, 8], squares, 6400) == pytest.approx(80)
    assert scale.reached([1, 2, 4, 8], [3, 3, 3, 3], 100) is None
    assert scale.reached([1, 2, 4], [7, None, None], 100) is None
    assert scale.reached([1, 2], [1, 2**0.125], 1e9) == scale.FARTHEST


def test_sizes_that_are_not_affordable_are_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[int] = []

    def cost(name: str, size: Size) -> tuple[float, float]:
        ran.append(size.N)
        return size.N**2 / 1e4, 1e6 * size.N

    monkeypatch.setattr(scale, "_cost", cost)
    sizes = [list(TINY._replace(N=N)) for N in (16, 32, 64, 128, 256)]
    # 64² / 10⁴ = 0.41 s, 128² / 10⁴ = 1.6 s.
    assert scale.child("LSTM", "N", sizes, seconds_most=1.0) == [16, 32, 64]
    monkeypatch.setattr(scale, "BYTES", 40e6)
    assert scale.child("LSTM", "N", sizes, seconds_most=1.0) == [16, 32]
    assert ran == [16, 32, 64, 16, 32]


def test_a_full_memory_costs_its_slots() -> None:
    if growth(lambda: None)[1] != "VmHWM":
        pytest.skip("the peak of this process cannot be set back")
    size = TINY._replace(N=50_000, W=32)
    words = 4 * size.B * size.N * size.W
    for name in ("SAM, full", "SAM"):
        scale.step(name, size._replace(N=16))()
    assert words < scale._cost("SAM, full", size)[1] < 2 * words
    assert scale._cost("SAM", size)[1] < words / 4


def test_growth_in_a_process_of_its_own() -> None:
    sizes = [TINY._replace(T=T, B=64, H=128) for T in (200, 400)]
    arguments = {"name": "LSTM", "letter": "T", "sizes": sizes, "seconds_most": 60}
    shorter, longer = fresh("scale", arguments, module=scale.__name__)
    # What an LSTM keeps of a step: four gates, h and c at least, [64, 128] each.
    kept = 6 * 4 * 64 * 128 * 200 / 1e6
    assert kept < shorter < 4 * kept
    assert kept < longer - shorter < 4 * kept


def made_up(**changes: Any) -> dict[str, Any]:
    """Costs of powers of the slots: LSTM 0, NTM 1, DNC 2, sparse memories 0, full ones 1 in memory alone."""
    values = [64, 256, 1024]
    powers = {"LSTM": (0, 0), "NTM": (1, 1), "DNC": (2, 2), "SAM": (0, 0), "SDNC": (0, 0)}
    powers |= {"SAM, full": (0, 1), "SDNC, full": (0, 1)}
    milliseconds = {name: [2 * (value / 256) ** power for value in values] for name, (power, _) in powers.items()}
    megabytes = {name: [10 * (value / 256) ** power for value in values] for name, (_, power) in powers.items()}
    sweep: dict[str, Any] = {"values": values, "milliseconds": milliseconds, "megabytes": megabytes, "killed": {}}
    others = {cost: {name: sweep[cost][name] for name in scale.MODELS} for cost in scale.COSTS}
    how = {"threads": 1, "rounds": 5, "seconds": 10.0, "bytes": 4e9, "ram": 10_000_000_000, "load": 0.5}
    sweeps = {"N": sweep, "T": {**sweep, **others}, "B": {**sweep, **others}}
    return {"base": TINY._replace(N=256)._asdict(), **how, "sweeps": sweeps, **changes}


def test_the_answer_says_what_was_found() -> None:
    text = scale.answer(made_up())
    assert "With 256 slots training takes, for a time step and at its peak: LSTM 2 ms, 10 MB; NTM 2 ms, 10 MB;" in text
    assert (
        "NTM 1.00 and 1.00; DNC 2.00 and 2.00; SAM 0.00 and 0.00; SDNC 0.00 and 0.00; SAM, full 0.00 and 1.00" in text
    )
    assert "a second for a time step or 10.0 GB of RAM" in text
    # A second is 500 times as much, 10 GB are 1000 times as much, at 256 slots.
    assert "NTM ≈ 130,000 (time); DNC ≈ 5,700 (time); SAM at none, being level;" in text
    assert "SAM, full ≈ 260,000 (memory)" in text


def test_the_answer_of_other_numbers_is_another() -> None:
    found = made_up()
    found["sweeps"]["N"]["milliseconds"]["SAM"] = [1.0, 4.0, 16.0]
    found["sweeps"]["N"]["milliseconds"]["NTM"] = [None, None, None]
    found["sweeps"]["N"]["megabytes"]["NTM"] = [None, None, None]
    text = scale.answer(found)
    assert "SAM 1.00 and 0.00" in text
    assert "SAM ≈ 64,000 (time)" in text
    assert "NTM – ms, – MB" in text
    assert "NTM not known" in text


def test_tables_have_slopes_and_estimates() -> None:
    found = made_up()
    found["sweeps"]["N"]["milliseconds"]["DNC"][-1] = None
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in "\n".join(scale.lines(found)).splitlines()]
    assert ["N", "64", "256", "1024", "slope"] in rows
    assert ["DNC", "0.125", "2", "–", "2.00"] in rows
    assert ["DNC", *["≈ 5,700", "≈ 8,100"] * 3] in rows
    assert ["SAM, full", "level", "≈ 260,000", "–", "–", "–", "–"] in rows


def test_a_model_that_is_killed_is_told(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(name: str, arguments: dict[str, Any], module: str) -> Any:
        if arguments["name"] == "DNC":
            raise KilledError("measuring scale failed: the process was killed by signal 9")
        return here(name, arguments, module)

    monkeypatch.setattr(scale, "fresh", kill)
    monkeypatch.setattr(scale, "MODELS", ("LSTM", "DNC"))
    monkeypatch.setattr(scale, "FULL", {})
    found = scale.measure(Plan(tiny, quick=True))
    assert found["sweeps"]["T"]["milliseconds"]["DNC"] == [None, None]
    text = "\n".join(scale.lines(found))
    assert "DNC, time steps T: measuring scale failed: the process was killed by signal 9; signal 9 is" in text
    assert "DNC – ms, – MB" in scale.answer({**found, "base": {**found["base"], "N": 16}})


def test_labels_have_room() -> None:
    assert [*map(scale.short, (16, 1000, 2048, 65536, 2**20))] == ["16", "1000", "2k", "64k", "1M"]
    assert scale.apart([1, 2, 4]) == [1, 2, 4]
    assert len(scale.apart(scale.SWEEPS["N"])) <= scale.TICKS + 1


def test_the_study_at_tiny_sizes(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    threads = torch.get_num_threads()
    assert cli.main(["study", "scale", "--quick", "--out", "here"]) == 0
    assert torch.get_num_threads() == threads
    found = json.loads(Path("here/scale.json").read_text())["found"]
    for letter, sweep in found["sweeps"].items():
        for cost in scale.COSTS:
            assert [*sweep[cost]] == [*(ALL if letter == "N" else scale.MODELS)]
            assert all(value > 0 for costs in sweep[cost].values() for value in costs)
    assert Path("here/scale.png").read_bytes().startswith(b"\x89PNG")
    page = Path("here/scale.md").read_text()
    assert page.startswith("# What do time and memory cost as the memory grows?\n")
    assert prose(scale.answer(found)) in page
    assert scale.answer(found) in capsys.readouterr().out
