"""What a part found, with all that it depends on, as a file."""

from __future__ import annotations

import json
import os
from pathlib import Path

from torchdnc.bench.plan import Found
from torchdnc.bench.text import prose
from torchdnc.training.checkpoint import write_atomically
from torchdnc.training.environment import commit, machine, versions


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
