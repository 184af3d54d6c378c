"""The page that ties the studies together: every question, with what was found."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from torchdnc.studies import STUDIES, Study


@pytest.fixture
def pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """benchmarks/pages.py with its files in `tmp_path`, and studies that answer with what was found."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    import pages

    monkeypatch.setattr(pages, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(pages, "PAGE", tmp_path / "docs" / "results.md")
    for name, study in STUDIES.items():
        monkeypatch.setitem(STUDIES, name, _stub(study))
    return pages


def _stub(study: Study) -> Study:
    return replace(study, figure=lambda found: b"png", answer=lambda found: found["told"], lines=lambda found: iter(()))


def test_the_page_has_what_every_study_found(pages: Any, tmp_path: Path) -> None:
    for name in STUDIES:
        record = {
            "study": name,
            "command": f"torchdnc study {name}",
            "commit": "abc",
            "machine": "one",
            "versions": {"torch": "2", "numba": "0", "python": "3"},
            "quick": False,
            "found": {"told": f"Found by {name}."},
        }
        (tmp_path / "results" / "studies").mkdir(parents=True, exist_ok=True)
        (tmp_path / "results" / "studies" / f"{name}.json").write_text(json.dumps(record))
    pages.write_studies()
    page = (tmp_path / "docs" / "why-it-scales.md").read_text()
    for name in STUDIES:
        assert page.count(f"Found by {name}.") == 1
        assert f"Found by {name}." in (tmp_path / "docs" / "studies" / f"{name}.md").read_text()
    assert page.count("\n## ") == 4
    assert "not done" not in page


def test_a_study_that_was_not_done_is_said_to_be_missing(pages: Any, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    pages.write_studies()
    page = (tmp_path / "docs" / "why-it-scales.md").read_text()
    for name in STUDIES:
        assert page.count(f"`torchdnc study {name}` was not done yet") == 1
