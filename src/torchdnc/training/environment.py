"""What a run's numbers depend on besides its configuration."""

import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import torchdnc
from torchdnc.training.config import RunConfig

PACKAGES = ("torchdnc", "torch", "numpy", "numba")
LABELS = {
    "threads": "the number of threads",
    "processes": "the number of processes",
    "machine": "the machine",
    "engine": "the engine",
}


def environment(config: RunConfig) -> dict[str, Any]:
    """Versions, threads, processes, machine and engine; two equal ones give the same numbers bit for bit."""
    return versions() | {
        "threads": config.threads or torch.get_num_threads(),
        "processes": config.processes,
        "machine": machine(),
        "engine": getattr(config.model, "engine", "torch"),
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A sentence for each way in which the environment changed."""
    return [
        f"{LABELS.get(name, f'the version of {name}')} was {before[name]!r} and is now {value!r}: "
        "the rest of the run may differ in rounding"
        for name, value in now.items()
        if name in before and before[name] != value
    ]


def machine() -> str:
    """Processor, cores and system."""
    return f"{_processor()}, {os.cpu_count()} cores, {platform.system()}"


def _processor() -> str:
    """The processor's name, where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


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
