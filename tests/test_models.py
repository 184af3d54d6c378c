"""The weights in models/: they load anywhere and answer a story that is in no data."""

from __future__ import annotations

from pathlib import Path

import pytest

from torchdnc.training.ask import Asker
from torchdnc.training.folder import read_config

ROOT = Path(__file__).parents[1]
NAME = "babi-biadnc"
STORY = ("Sandra went to the office.", "Daniel moved to the garden.", "Sandra journeyed to the kitchen.")


def test_it_answers_a_story_that_is_in_no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHDNC_DATA", str(tmp_path))
    asker = Asker(ROOT / "models" / NAME)
    for person, place in (("Daniel", "garden"), ("Sandra", "kitchen")):
        lines = [asker.line(line)[1] for line in (*STORY, f"Where is {person}?")]
        assert asker.answer(lines).words == (place,)


def test_it_names_no_place_of_the_machine_that_trained_it() -> None:
    config, _ = read_config(ROOT / "models" / NAME)
    assert config.to_dict()["task"]["data_dir"] is None
    text = (ROOT / "models" / NAME / "config.json").read_text() + (ROOT / "models" / NAME / "README.md").read_text()
    assert not [place for place in ("/root", "/work", "/home", "/tmp") if place in text]
