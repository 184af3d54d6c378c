"""Measurements in a process of their own, which has loaded and allocated nothing yet."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from torchdnc.training.report import RunError


class ChildError(RunError):
    """A process that was to measure something failed."""


class KilledError(ChildError):
    """A process was killed, as the system does where memory runs out."""


def fresh(
    name: str,
    arguments: Mapping[str, Any],
    environment: Mapping[str, str] | None = None,
    module: str = "torchdnc.bench.child",
) -> Any:
    """What a function returns in a new interpreter.

    Args:
        name: of the function.
        arguments: of the function, plain enough for JSON.
        environment: variables besides this process's own.
        module: whose `CHILDREN` has the function under that name.
    Raises:
        KilledError: the process was killed.
        ChildError: it failed in another way.
    """
    code = f"from torchdnc.bench.child import main; from {module} import CHILDREN; main(CHILDREN)"
    command = [sys.executable, "-c", code, name, json.dumps(arguments)]
    run = subprocess.run(
        command, env={**os.environ, **(environment or {})}, capture_output=True, text=True, check=False
    )
    if run.returncode < 0:
        raise KilledError(f"measuring {name} failed: the process was killed by signal {-run.returncode}")
    if run.returncode:
        raise ChildError(f"measuring {name} failed: {_exception(run.stderr) or f'exit code {run.returncode}'}")
    return json.loads(run.stdout.splitlines()[-1])


def _exception(complaint: str) -> str:
    """The first line of the exception at the end of a traceback; the last line where there is none."""
    lines = complaint.strip().splitlines()
    named = [line for line in lines if re.match(r"[\w.]+(Error|Exception|Warning)\b", line)]
    return (named or lines or [""])[-1]
