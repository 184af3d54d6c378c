"""Programs of their own: tracing cannot pass the shape checks of this process, and ranks are processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).parents[2]
TIME_LIMIT = 300
"""Seconds: many times what any of them takes, compiling on a busy machine included."""


def start(script: str, **environment: str) -> subprocess.Popen[str]:
    """A Python that runs the script from the root of the repository, one thread, shape checks off."""
    settings = {"PYTHONPATH": str(ROOT), "TORCHDNC_SHAPE_CHECKS": "0", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", dedent(script)],
        cwd=ROOT,
        env=os.environ | settings | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def succeed(*processes: subprocess.Popen[str]) -> None:
    """Waits for the processes; fails with what one has printed unless all of them exit with 0."""
    try:
        printed = [process.communicate(timeout=TIME_LIMIT)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    for process, text in zip(processes, printed, strict=True):
        assert process.returncode == 0, text
