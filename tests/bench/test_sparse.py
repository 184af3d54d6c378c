"""What is measured of the sparse memory, at sizes that take no time."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from torchdnc.bench import Plan, describe, fresh, run, sparse
from torchdnc.bench.sizes import Size
from torchdnc.engines.sparse.dense import snapshot

TINY = Size(B=2, T=3, I=3, H=4, N=40, W=5, R=2)


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SIZE": TINY, "SMALL": 20, "FULL": 30, "DENSE": 25, "DENSE_STEPS": 2}.items():
        monkeypatch.setattr(sparse, name, value)
    monkeypatch.setattr("torchdnc.bench.timing.MOST", 1)


def test_every_row(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, Any]] = []

    def answer(name: str, arguments: dict[str, Any]) -> int:
        asked.append((name, arguments["kind"]))
        return {"SDNC": 2, "SAM": 1, "DNC": 500}[arguments["kind"]] * sparse.MEBIBYTE

    monkeypatch.setattr(sparse, "fresh", answer)
    told: list[str] = []
    record = run("sparse", Plan(rounds=2, threads=1), told.append)
    assert told
    rows = {(row["kind"], row["what"]): row for row in record["found"]["rows"]}
    assert len(rows) == 2 * 5 + 2
    assert rows["SDNC", "growth"]["value"] == 2
    assert rows["DNC / SDNC", "memory"]["value"] == 250
    assert all(row["value"] > 0 for row in rows.values())
    assert ("against_dense", "DNC") in asked
    text = describe(record)
    assert "| DNC / SDNC |" in text
    assert "240 / 200 |    goal |" in text
    assert "1M slots, all written" not in describe(run("sparse", Plan(quick=True, rounds=1, threads=1), told.append))


def test_a_written_memory_is_full_and_goes_on() -> None:
    model = sparse.sparse(TINY, "SDNC")
    slots = snapshot(sparse.written(model, 2).memory)
    assert slots.exists.all()
    assert slots.accessed.tolist() == [list(range(1, TINY.N + 1))] * 2
    going = sparse.Going(model, torch.randn(TINY.T, 2, TINY.I))
    going()
    assert snapshot(going.state.memory).accessed.max() == TINY.N + TINY.T


def test_growth_is_of_a_process_of_its_own() -> None:
    """Of a full memory it is what a call touches, not the memory: 8 MB of words."""
    grown = fresh.fresh("sparse", {"kind": "SAM", "threads": 1})
    assert 0 <= grown < 8 * sparse.MEBIBYTE
