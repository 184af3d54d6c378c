"""Files that are either wholly the old ones or wholly the new ones, whatever happens meanwhile."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from torchdnc.training.report import DiskError, Progress

WEIGHTS = "model.safetensors"
TRAINING = "training.safetensors"


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file by these bytes, on disk when this returns; raises DiskError and leaves the old file."""
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise DiskError(f"{path} could not be written: {error.strerror}; earlier files are intact") from error
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    # The new name is an entry of the folder, which has its own place on disk.
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def save_checkpoint(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
    """Write what a resume needs, as one file so that it is of one step, then the weights alone for users."""
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    tensors = {f"model/{name}": tensor for name, tensor in weights.items()}
    tensors |= _optimizer_tensors(optimizer) | {"random": torch.get_rng_state()}
    metadata = {"format": "pt", "progress": json.dumps(asdict(progress)), "optimizer": type(optimizer).__name__}
    write_atomically(folder / TRAINING, safetensors.torch.save(tensors, metadata))
    write_atomically(folder / WEIGHTS, safetensors.torch.save(weights, {"format": "pt"}))


def load_checkpoint(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> Progress | None:
    """Put model, optimiser and torch's random numbers where a run stood; None if it never was saved."""
    path = folder / TRAINING
    if not path.exists():
        if (folder / WEIGHTS).exists():
            # It is written after the other: the run was saved, and starting afresh would overwrite it.
            raise ValueError(f"{folder} has {WEIGHTS} and no {TRAINING}, without which the run cannot go on")
        return None
    tensors, metadata = _read(path)
    if missing := [name for name in ("random", "progress", "optimizer") if name not in tensors | metadata]:
        raise ValueError(f"{path} is no checkpoint of a run: it lacks {' and '.join(missing)}")
    _fill(model, _under("model/", tensors), path)
    if (saved := metadata["optimizer"]) != type(optimizer).__name__:
        name = type(optimizer).__name__
        raise ValueError(f"{path} was saved with the optimizer {saved}, and config.json asks for {name}")
    _load_optimizer(optimizer, _under("optimizer/", tensors))
    torch.set_rng_state(tensors["random"])
    return Progress(**json.loads(metadata["progress"]))


def load_weights(folder: Path, model: nn.Module) -> None:
    """Load a run's weights; raises ValueError if there are none or if they are another model's."""
    path = folder / WEIGHTS
    if not path.exists():
        raise ValueError(f"{folder} holds no {WEIGHTS}: the run was never saved")
    _fill(model, _read(path)[0], path)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            # Copies lie aligned in memory, as tensors that were computed do; views into the file would not.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            return tensors, file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def _fill(model: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        why = " ".join(str(error).split())
        raise ValueError(f"{path} does not fit the model of config.json: {why}") from error


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {
        f"optimizer/{index}/{name}": tensor.contiguous()
        for index, tensors in state.items()
        for name, tensor in tensors.items()
    }


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition("/")
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
