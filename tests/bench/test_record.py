"""What a record says of where it comes from."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import torchdnc
from torchdnc.bench import record
from torchdnc.training import environment


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package's first file, as if it lay in a repository of its own."""
    path = tmp_path / "torchdnc" / "__init__.py"
    path.parent.mkdir()
    path.write_text("first\n")
    monkeypatch.setattr(torchdnc, "__file__", str(path))
    # A repository above the folder of the tests is none of theirs.
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    return path


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org"]
    return subprocess.run(["git", *who, *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout


def test_commit_is_that_of_the_package_itself(package: Path) -> None:
    assert environment.commit() == "unknown"
    git(package.parents[1], "init", "--quiet")
    # In an environment within somebody's checkout.
    (package.parents[1] / "theirs.py").touch()
    git(package.parents[1], "add", "theirs.py")
    git(package.parents[1], "commit", "--quiet", "--message", "theirs")
    assert environment.commit() == "unknown"
    git(package.parents[1], "add", ".")
    git(package.parents[1], "commit", "--quiet", "--message", "ours")
    commit = git(package.parents[1], "rev-parse", "--short", "HEAD").strip()
    assert environment.commit() == commit
    package.write_text("second\n")
    assert environment.commit() == f"{commit}-dirty"


def test_without_git_the_commit_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert environment.commit() == "unknown"


def test_header_names_everything() -> None:
    found = {
        "command": "torchdnc bench steps",
        "commit": "abc",
        "machine": "a machine",
        "load": 0.25,
        "threads": 2,
        "seed": 0,
        "rounds": 1,
        "quick": True,
        "versions": {"torch": "2.1", "numba": "0.6", "python": "3.11"},
    }
    text = " ".join(record.header(found).split())
    words = [
        "`torchdnc bench steps`, commit abc",
        "a machine",
        "2 thread(s)",
        "torch 2.1",
        "numba 0.6",
        "seed 0",
        "load 0.2",
    ]
    assert all(word in text for word in [*words, "1 round;", "A quick look"])
    assert "A quick look" not in record.header(found | {"quick": False})
