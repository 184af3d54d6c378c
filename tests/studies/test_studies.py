"""Studies: what they measure, what they write, and that they go on where they stopped."""

import importlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from torchdnc import cli
from torchdnc.bench.text import prose
from torchdnc.studies import STUDIES, Plan, full
from torchdnc.studies.recalling import item_of_question, recalled
from torchdnc.studies.study import trained
from torchdnc.tasks import KeyedRecall

TASK = KeyedRecall(key_bits=5, value_bits=3, min_items=6, max_items=6, min_delay=2, max_delay=2)


class Knows(nn.Module):
    """Answers with the values that it finds in its own input, of the first items alone."""

    def __init__(self, items: int) -> None:
        super().__init__()
        self.items = items

    def forward(self, inputs: torch.Tensor) -> Any:
        T, B, _ = inputs.shape
        outputs = torch.zeros(T, B, 3) - 1
        for t in range(T):
            for b in range(B):
                for item in range(self.items):
                    if t > item and torch.equal(inputs[t, b, :5], inputs[item, b, :5]):
                        outputs[t, b] = 2 * inputs[item, b, 5:8] - 1
        return outputs, None


def test_recall_is_told_item_by_item():
    shares = recalled(Knows(4), TASK, sequences=40)
    assert shares[:4].tolist() == [1, 1, 1, 1]
    # Three bits of 0 are a guess that is right once in eight.
    assert (shares[4:] < 0.4).all()


def test_what_is_not_asked_for_counts_as_not_recalled():
    assert recalled(Knows(6), replace(TASK, latest=2), sequences=10).tolist() == [0, 0, 0, 0, 1, 1]


def test_every_question_is_about_one_item():
    batch = TASK.sample(8, seed=0, step=0)
    items = item_of_question(TASK, batch)
    assert items.shape == (14, 8, 6)
    assert torch.equal(items.sum(-1), batch.mask.long())
    assert torch.equal(items.sum(0), torch.ones(8, 6, dtype=torch.long))


SMALL: dict[str, dict[str, Any]] = {
    "retention": {"DELAYS": (0, 20, 30)},
    "addresses": {
        "UNITS": {"dnc": (8, 12), "lstm": (8,)},
        "PROBED": 8,
        "MEMORIES": (32, 48, 64),
        "ITEMS": (2, 30),
    },
    "full": {"ITEMS": (24, 128), "REPORTED": (24, 128)},
    "reuse": {},
    "resize": {"SIZES": (3, 32, 40)},
}
"""What makes each study small, besides trainings of two steps."""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Studies of trainings of two steps and few measurements, in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    for name, constants in SMALL.items():
        module = importlib.import_module(f"torchdnc.studies.{name}")
        for constant, value in constants.items():
            monkeypatch.setattr(module, constant, value)
        monkeypatch.setattr(module, "trainings", shortened(module.trainings))
    return tmp_path


def shortened(trainings: Any) -> Any:
    """The same runs with two steps of two sequences."""

    def short(quick: bool) -> dict[str, Any]:
        change: dict[str, Any] = {"steps": 2, "eval_sequences": 2, "batch_size": 2, "goal": None, "curriculum": None}
        return {name: replace(run, **change) for name, run in trainings(quick).items()}

    return short


@pytest.mark.parametrize("name", SMALL)
def test_a_study_writes_a_record_a_figure_and_a_page(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    assert cli.main(["study", name, "--quick", "--out", "here"]) == 0
    record, study = json.loads(Path(f"here/{name}.json").read_text()), STUDIES[name]
    assert record["command"] == f"torchdnc study {name} --quick --out here"
    assert record["quick"] is True
    assert Path(f"here/{name}.png").read_bytes().startswith(b"\x89PNG")
    page = Path(f"here/{name}.md").read_text()
    assert page.startswith(f"# {study.question}\n")
    assert f"![What the tables below say]({name}.png)" in page
    assert "A quick look: too little training for a record." in page
    assert prose(study.answer(record["found"])) in page
    assert study.answer(record["found"]) in capsys.readouterr().out
    assert "nan" not in page


def test_every_policy_is_measured() -> None:
    found = full.measure(Plan(Path("runs"), quick=True))
    assert set(found["policies"]) == set(full.POLICIES)
    for asked in found["policies"].values():
        assert [len(seeds[0]) for seeds in asked.values()] == [2, 2]
    assert found["reports"]["drop"][0]["128"]["slots"] == 32


def test_a_study_goes_on_with_its_runs(small: Path) -> None:
    runs = [trained(Plan(small / "runs"), name, run, 1) for name, run in full.trainings(True).items()]
    files = {path: path.stat().st_mtime_ns for path in small.rglob("model.safetensors")}
    assert len(files) == 3
    again = [trained(Plan(small / "runs"), name, run, 1) for name, run in full.trainings(True).items()]
    assert runs == again
    assert files == {path: path.stat().st_mtime_ns for path in small.rglob("model.safetensors")}


def test_runs_of_other_settings_are_refused(small: Path) -> None:
    run = full.trainings(True)["dense"]
    folders = trained(Plan(small / "runs"), "dense", run, 1)
    assert [folder.name for folder in folders] == ["seed-0"]
    with pytest.raises(ValueError, match="holds runs of other settings: remove it to train anew"):
        trained(Plan(small / "runs"), "dense", replace(run, steps=3), 1)


def test_what_the_command_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["study", "nothing"]) == 2
    assert re.search("nothing|invalid", capsys.readouterr().err)
    with pytest.raises(SystemExit) as ended:
        cli.main(["study", "--help"])
    assert not ended.value.code
    assert "torchdnc study full --quick" in capsys.readouterr().out
