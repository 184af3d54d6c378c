"""The soak: no mismatch where there is none, one for every planted error, and a record of what it did."""

from __future__ import annotations

import importlib
import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from tests.engines import verdict
from tests.engines.draws import Draw, draw
from tests.engines.nudges import Nudges
from tests.engines.pairs import Case, asymmetric_state, everything, model, worst
from tests.engines.verdict import Findings, judge
from torchdnc import DNC, MemoryOptions, ops

SMALL = {"T": 9, "B": 3, "I": 4, "H": 7, "N": 11, "W": 5, "R": 3, "layers": 2}


def small(number: int, **changes: Any) -> Draw:
    """A quick case."""
    drawn = draw(number)
    sizes = {name: min(most, getattr(drawn.case, name)) for name, most in SMALL.items()}
    return replace(drawn, case=replace(drawn.case, **sizes), threads=1, shared=False, **changes)


def judged(*draws: Draw) -> Findings:
    findings = Findings()
    for drawn in draws:
        judge(drawn, findings)
    return findings


def test_a_case_follows_from_its_number() -> None:
    assert draw(7) == draw(7) != draw(8)
    json.dumps([draw(number).about() for number in range(50)], allow_nan=False)


def test_the_engines_agree() -> None:
    findings = judged(*map(small, range(25)))
    assert findings.mismatches == []
    assert findings.counts["compared"] >= 25
    assert set(findings.errors) == {"float32", "float64"}


# The package's `access` is the function of that name.
ACCESS = importlib.import_module("torchdnc.ops.access")


def by(run: Callable[..., Any]) -> Callable[[DNC], None]:
    """Gives a model another way to run a call, which is told the model's own."""

    def plant(made: DNC) -> None:
        own = made._run
        made._run = lambda call: run(own, call)  # type: ignore[method-assign]

    return plant


def end_by(change: Callable[[Any], Any]) -> Callable[[DNC], None]:
    def run(own: Any, call: Any) -> Any:
        features, end = own(call)
        return features, end._replace(memory=change(end.memory))

    return by(run)


def operation_by(name: str, operation: Callable[..., Tensor]) -> Callable[[DNC], None]:
    def run(own: Any, call: Any) -> Any:
        with mock.patch.object(ACCESS, name, operation):
            return own(call)

    return by(run)


def gradient_by(factor: float) -> Callable[[DNC], None]:
    def plant(made: DNC) -> None:
        *_, bias = made.interface.parameters()
        bias.register_hook(lambda gradient: gradient * factor)

    return plant


def allocation_by_hundredths(usage: Tensor, exists: Any) -> Tensor:
    order = (usage * 100).round().argsort(dim=-1, stable=True)
    ascending = usage.gather(-1, order)
    used_before = torch.cat([torch.ones_like(usage[..., :1]), ascending.cumprod(-1)[..., :-1]], -1)
    return torch.zeros_like(usage).scatter(-1, order, (1 - ascending) * used_before)


def usage_rounded_otherwise(*arguments: Tensor) -> Tensor:
    usage = ops.usage(*arguments)
    return usage * (1 + torch.finfo(usage.dtype).eps * (-1) ** torch.arange(usage.shape[-1]).to(usage))


def written_above(least: float) -> Callable[..., Tensor]:
    return lambda before, weights: before.detach().masked_fill(weights > least, 1)


MILLIONTH = {
    "a gradient a millionth off": gradient_by(1 + 1e-6),
    "a final link a millionth off": end_by(lambda memory: memory._replace(link=memory.link * (1 + 1e-6))),
}
"""Float32 does not resolve these."""
ERRORS = MILLIONTH | {
    "no number in a gradient": gradient_by(math.nan),
    "usages of the wrong slots": end_by(lambda memory: memory._replace(usage=memory.usage.roll(1, -1))),
    "slots of little weight taken for unwritten": operation_by("written", written_above(1e-3)),
    "near slots taken for tied": operation_by("allocation_weights", allocation_by_hundredths),
    "resets forgotten": by(lambda own, call: own(call._replace(reset=None))),
    "lengths forgotten": by(lambda own, call: own(call._replace(lengths=None))),
}
SINGLE = [(name, torch.float32) for name in ERRORS if name not in MILLIONTH]
DOUBLE = [(name, torch.float64) for name in ERRORS]


def judged_with(plant: Callable[[DNC], None], draws: list[Draw]) -> Findings:
    """With an error in what takes the fused engine's place: the reference, whose operations it is planted in."""

    def wrong(case: Case, engine: str, dtype: torch.dtype = torch.float64) -> DNC:
        made = model(case, "reference", dtype)
        if engine == "fused":
            plant(made)
        return made

    with mock.patch.object(verdict, "model", wrong):
        return judged(*draws)


def plain(dtype: torch.dtype, start: str) -> list[Draw]:
    """A few whole calls with links, lengths and resets."""
    changes: dict[str, Any] = {"way": "whole", "layout": "time first", "padding": 1.0, "lengths": True, "reset": True}
    draws = [small(number, start=start, dtype=dtype, **changes) for number in range(3)]
    changes = {"T": 6, "B": 3, "N": 11, "scale": 1.0, "options": MemoryOptions(skip_unwritten=True)}
    return [replace(drawn, case=replace(drawn.case, **changes)) for drawn in draws]


@pytest.mark.parametrize(("name", "dtype"), SINGLE + DOUBLE)
def test_a_planted_error_is_found(name: str, dtype: torch.dtype) -> None:
    assert judged_with(lambda made: None, plain(dtype, "random")).mismatches == []
    assert judged_with(ERRORS[name], plain(dtype, "random")).mismatches


def test_nan_is_found_where_the_reference_is_rough() -> None:
    """Weights so large that sequences are cut."""
    draws = [small(number, dtype=torch.float32, way="whole") for number in range(36, 48)]
    draws = [replace(drawn, case=replace(drawn.case, T=9, scale=40.0)) for drawn in draws]
    assert judged(*draws).counts["cut"] > 0
    assert len(judged_with(ERRORS["no number in a gradient"], draws).mismatches) >= len(draws)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_slots_ordered_by_rounding_are_no_mismatch_and_are_counted(dtype: torch.dtype) -> None:
    """Slots that tie exactly and hold different words: another last bit of their usages has another one written to."""
    otherwise = operation_by("usage", usage_rounded_otherwise)
    draws = [replace(drawn, reset=False) for drawn in plain(dtype, "tied")]
    findings = judged_with(otherwise, draws)
    assert findings.mismatches == []
    assert findings.counts["undecided"] == len(draws)
    assert judged_with(otherwise, plain(dtype, "random")).counts["undecided"] == 0


def test_a_weight_next_to_nothing_is_no_mismatch_and_is_counted() -> None:
    """One of 3e-39, which kernels may take for 0: a slot is written to, or is not."""
    drawn = draw(700239)
    findings = judged_with(operation_by("written", written_above(torch.finfo(torch.float32).tiny)), [drawn])
    assert findings.mismatches == []
    assert findings.counts["undecided"] > 0
    assert judged_with(lambda made: None, [drawn]).counts["undecided"] == 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_nudges_move_results_by_rounding(dtype: torch.dtype) -> None:
    case = Case(T=4, N=7, R=2)
    made = model(case, "reference", dtype)
    inputs = torch.randn(case.T, case.B, case.I, dtype=dtype).requires_grad_()
    state = asymmetric_state(made, case.B)
    plain = everything(made, inputs, state)
    found = []
    for seed in (0, 0, 1):
        with Nudges(seed):
            found.append(everything(made, inputs, state))
    assert worst(found[0], found[1]) == 0 < worst(found[0], found[2])
    assert 0 < worst(found[0], plain) < 100 * torch.finfo(dtype).eps


@pytest.fixture
def soak(monkeypatch: pytest.MonkeyPatch) -> Any:
    """benchmarks/soak.py, with quick cases."""
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    import soak

    monkeypatch.setattr(soak, "draw", small)
    return soak


def run(soak: Any, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["soak.py", *arguments])
    code: int = soak.main()
    return code


def test_a_soak_tells_what_it_did(soak: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    out = tmp_path / "soak.json"
    assert run(soak, monkeypatch, "--minutes", "0.02", "--seed", "3", "--out", str(out)) == 0
    record = json.loads(out.read_text())
    assert record["command"] == "python benchmarks/soak.py --minutes 0.02 --seed 3"
    assert (record["first"], record["interrupted"], record["mismatches"]) == (3, False, [])
    assert record["cases"] > 0
    assert all(sum(kind.values()) == record["cases"] for kind in record["drawn"].values())


def test_an_interrupted_soak_writes_what_it_had_done(
    soak: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupted(drawn: Draw, findings: Findings) -> None:
        if drawn.number == 2:
            raise KeyboardInterrupt
        judge(drawn, findings)

    monkeypatch.setattr(soak, "judge", interrupted)
    out = tmp_path / "soak.json"
    assert run(soak, monkeypatch, "--minutes", "1", "--out", str(out)) == 130
    record = json.loads(out.read_text())
    assert (record["cases"], record["interrupted"]) == (2, True)


def test_a_mismatch_is_told_with_the_command_that_repeats_it(
    soak: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError("here")

    with mock.patch.object(soak, "judge", lambda drawn, findings: judge_wrongly(findings)):
        assert run(soak, monkeypatch, "--case", "5") == 1
    assert "--case 5" in capsys.readouterr().err
    with mock.patch.object(soak, "judge", fail):
        assert run(soak, monkeypatch, "--case", "6") == 1
    told = capsys.readouterr()
    assert "ZeroDivisionError('here'): python benchmarks/soak.py --case 6" in told.err
    assert json.loads(told.out)["mismatches"][0]["raised"] == "ZeroDivisionError('here')"


def judge_wrongly(findings: Findings) -> None:
    findings.mismatches += judged_with(ERRORS["usages of the wrong slots"], [small(5)]).mismatches


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--minutes", "0"], "--minutes must be a finite number above 0, got 0.0"),
        (["--minutes", "nan"], "--minutes must be a finite number above 0, got nan"),
        (["--seed", "-1"], "--seed must be at least 0, got -1"),
        (["--case", "-2"], "--case must be at least 0, got -2"),
        (["--out", "/nowhere/soak.json"], "--out must be in a folder that exists, got /nowhere/soak.json"),
    ],
)
def test_bad_arguments(
    soak: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    sentence: str,
) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(soak, monkeypatch, *arguments)
    assert sentence in capsys.readouterr().err
