"""What a part found, with all that it depends on, as a file."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import torchdnc
from torchdnc.bench.plan import Found
from torchdnc.bench.text import prose
from torchdnc.training.checkpoint import write_atomically
from torchdnc.training.environment import machine

PACKAGES = ("torchdnc", "torch", "numpy", "numba")


def commit() -> str:
    """The commit of the checkout this package lies in, marked if files differ from it; "unknown" outside of one."""
    package = Path(torchdnc.__file__).parent
    # An environment may lie in a checkout of something else.
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return "unknown"
    return _git(package, "describe", "--always", "--dirty") or "unknown"


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints; None if it fails or is not there."""
    try:
        run = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return run.stdout.strip()


def versions() -> dict[str, str]:
    """Of what the times depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def environment() -> Found:
    """Commit, machine, its load and versions, as they are now."""
    return {"commit": commit(), "machine": machine(), "load": os.getloadavg()[0], "versions": versions()}


def header(record: Found) -> str:
    """Where the figures of a record come from, for a reader."""
    of = record["versions"]
    told = ", ".join(f"{name} {of[name]}" for name in ("torch", "numba", "python"))
    rounds = f"{record['rounds']} {'round' if record['rounds'] == 1 else 'rounds'}"
    line = (
        f"`{record['command']}`, commit {record['commit']}; {record['machine']}, {record['threads']} thread(s), {told};"
        f" seed {record['seed']}, {rounds}; load {record['load']:.1f} before."
    )
    return prose(f"{line} A quick look: too few rounds for a record." if record["quick"] else line)


def write(path: Path, record: Found) -> None:
    """Replaces the file; raises DiskError and leaves the old one where that fails."""
    write_atomically(path, json.dumps(record, indent=2).encode() + b"\n")
