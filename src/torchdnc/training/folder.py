"""A run's folder: config.json, metrics.jsonl, training.safetensors and model.safetensors."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torchdnc.training.checkpoint import write_atomically
from torchdnc.training.config import RunConfig
from torchdnc.training.metrics import MetricsFile

CONFIG = "config.json"


def make_empty(folder: Path) -> None:
    """Make a folder; raises ValueError if there is something in it."""
    if folder.exists() and (not folder.is_dir() or any(map(_counts, folder.iterdir()))):
        raise ValueError(f"{folder} must be a new or empty folder; to go on with the run in it, resume it")
    folder.mkdir(parents=True, exist_ok=True)


def _counts(path: Path) -> bool:
    # A run killed before it began leaves empty or unfinished files.
    return path.name != f"{CONFIG}.tmp" and (path.is_dir() or path.stat().st_size > 0)


@contextmanager
def new_run(folder: Path) -> Iterator[MetricsFile]:
    """Make the folder of a run and lock it; raises ValueError if there is something in it."""
    make_empty(folder)
    with MetricsFile(folder) as metrics:
        yield metrics


@contextmanager
def old_run(folder: Path) -> Iterator[tuple[MetricsFile, RunConfig, dict[str, Any]]]:
    """Lock the folder of a run and read its configuration and environment; raises ValueError if it is none."""
    _config_file(folder)
    with MetricsFile(folder) as metrics:
        yield metrics, *read_config(folder)


def write_config(folder: Path, config: RunConfig, environment: Mapping[str, Any]) -> None:
    """Write config.json: configuration, environment that the run began in, number of parameters, task's notes."""
    data = {
        "config": config.to_dict(),
        "environment": dict(environment),
        "parameters": config.model.count_parameters(config.task.spec),
        "notes": list(config.task.notes()),
    }
    write_atomically(folder / CONFIG, json.dumps(data, indent=2).encode() + b"\n")


def read_config(folder: Path) -> tuple[RunConfig, dict[str, Any]]:
    """The configuration of a run and the environment that it began in; raises ValueError if there is none."""
    path = _config_file(folder)
    try:
        data = json.loads(path.read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    # Runs of before it was counted have no number of parameters.
    if not isinstance(data, dict) or {"parameters", *data} != {"config", "environment", "parameters", "notes"}:
        raise ValueError(f"{path} must hold config, environment and notes, as a run writes them")
    if not isinstance(data["environment"], dict):
        raise ValueError(f"{path}: environment must be a table, got {data['environment']!r}")
    return RunConfig.from_dict(data["config"], str(path)), data["environment"]


def _config_file(folder: Path) -> Path:
    path = folder / CONFIG
    if not path.is_file():
        raise ValueError(f"{folder} holds no run: it has no {CONFIG}")
    return path
