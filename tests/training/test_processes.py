"""Several processes train as one does, and whatever stops one of them stops them all, as it would stop one alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest
import safetensors.torch
import torch

from tests.training.runs import At, assert_same_run, copied, interrupt, rows, tiny
from tests.training.test_crashes import largest_file
from tests.training.test_parallel import REPEATS, own_text
from torchdnc.tasks import Batch, Copy
from torchdnc.training import DiskError, DNCModel, Group, LostError, NonFiniteError, RunConfig, resume, train
from torchdnc.training.folder import read_config
from torchdnc.training.launch import led
from torchdnc.training.metrics import METRICS
from torchdnc.training.plain import to_toml
from torchdnc.training.seeds import train_seeds

MODEL = cast(DNCModel, tiny().model)

TIME_LIMIT = 300
"""Seconds: many times what any of it takes."""
SOON = 30
"""Seconds in which the others notice that a process is gone: seconds, or less than one on a machine that is free."""


def off(run: Path, other: Path) -> float:
    """The largest difference between the weights of two runs."""
    ours, theirs = (safetensors.torch.load_file(folder / "model.safetensors") for folder in (run, other))
    return max(float((value - theirs[name]).abs().max()) for name, value in ours.items())


def assert_same_to_rounding(run: Path, config: RunConfig, folder: Path) -> None:
    """Fails unless one process has the run's weights and metrics, up to what another engine's rounding changes."""
    train(config, folder / "fused")
    train(replace(config, model=replace(MODEL, engine="reference")), folder / "reference")
    train(replace(config, seed=config.seed + 1), folder / "other")
    rounding = off(folder / "fused", folder / "reference")
    assert 0 < rounding < 1e-4
    assert off(run, folder / "fused") <= 4 * rounding < 0.01 * off(run, folder / "other")
    for ours, theirs in zip(rows(run), rows(folder / "fused"), strict=True):
        assert _flat(ours) == pytest.approx(_flat(theirs), rel=1e-3)


def _flat(row: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in (row | row.get("valid", {})).items() if name != "valid"}


def command(*arguments: str, torchrun: bool = False) -> subprocess.Popen[str]:
    """The command in a session of its own, as a terminal has it."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"] if torchrun else []
    return subprocess.Popen(
        [sys.executable, *launcher, "-m", "torchdnc.cli", "train", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def written(config: RunConfig, path: Path) -> str:
    path.write_text(to_toml(config.to_dict()))
    return str(path)


def wait_for_row(run: Path, after: int = 0) -> None:
    until = time.monotonic() + TIME_LIMIT
    while not ((run / METRICS).exists() and any(row["step"] > after for row in rows(run))):
        assert time.monotonic() < until, "the run made no progress"
        time.sleep(0.02)


def children(process: subprocess.Popen[str]) -> list[int]:
    """The processes that train beside this one; multiprocessing's tracker of resources is none."""
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(pid) for pid in found if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]


def assert_gone(pids: list[int]) -> None:
    until = time.monotonic() + SOON
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < until, f"one of {pids} stays behind"
        time.sleep(0.02)


def test_stopped_by_two_and_resumed_by_one(tmp_path: Path) -> None:
    """The clipping binds: it must see the gradient of the whole batch."""
    config = tiny(optimizer=replace(tiny().optimizer, clip_norm=0.05))
    run = tmp_path / "run"
    result = train(replace(config, processes=2), run, At(6, interrupt))
    assert (result.status, result.step, result.signal) == ("interrupted", 6, signal.SIGINT)
    assert resume(run, processes=1).status == "finished"
    assert read_config(run)[0].processes == 1
    assert min(row["grad_norm"] for row in rows(run) if "grad_norm" in row) > 0.05
    assert_same_to_rounding(run, config, tmp_path)


def test_stopped_by_one_and_resumed_by_two(tmp_path: Path) -> None:
    config = tiny(task=own_text(tmp_path), batch_size=4)
    run = tmp_path / "run"
    train(config, run, At(6, interrupt))
    assert resume(run, processes=2).status == "finished"
    assert_same_to_rounding(run, config, tmp_path)


def test_torchrun(tmp_path: Path) -> None:
    """By its environment alone; the processes that do not lead print nothing."""
    config = tiny(task=REPEATS)
    recipe, run = written(config, tmp_path / "tiny.toml"), tmp_path / "run"
    process = command(recipe, "--out", str(run), torchrun=True)
    out, err = process.communicate(timeout=TIME_LIMIT)
    assert process.returncode == 0, err
    assert out.count("finished at step 12") == out.count("step 12/12  valid") == 1
    assert read_config(run)[0].processes == 2
    assert_same_to_rounding(run, config, tmp_path)


def test_two_go_on_bit_for_bit(tmp_path: Path) -> None:
    """Also what each of them draws at random, from the checkpoint of step 4 that a kill after step 6 would leave."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    config = tiny(processes=2, model=replace(MODEL, bypass_dropout=0.5))
    train(config, whole, At(6, lambda: copied(whole, killed)))
    assert resume(killed).status == "finished"
    assert_same_run(killed, whole)


@dataclass(frozen=True)
class PoisonedRow(Copy):
    """The shortest row of its seventh batch is not finite: process 0, which has the longest, does not see it."""

    def sample(self, batch_size: int, *, seed: int, step: int) -> Batch:
        batch = super().sample(batch_size, seed=seed, step=step)
        if step == 6:
            batch.inputs[:, batch.lengths.argmin()] = torch.nan
        return batch


def test_a_loss_that_is_not_finite_in_another_process(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match=r"at step 7: training stopped; the checkpoint of step 4 in .* is intact"):
        train(tiny(task=PoisonedRow(bits=2, max_length=3), processes=2), tmp_path / "run")


def test_full_disk(tmp_path: Path) -> None:
    with ExitStack() as stack:
        fill = At(6, lambda: stack.enter_context(largest_file(1000)))
        with pytest.raises(DiskError, match=r"training\.safetensors could not be written"):
            train(tiny(processes=2), tmp_path / "run", fill)


def test_ctrl_c_then_a_killed_process(tmp_path: Path) -> None:
    recipe, run = written(tiny(steps=100_000), tmp_path / "tiny.toml"), tmp_path / "run"
    process = command(recipe, "--processes", "2", "--out", str(run))
    wait_for_row(run)
    others = children(process)
    assert len(others) == 1
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=TIME_LIMIT)
    assert (process.returncode, err) == (130, "")
    assert out.endswith(f"saved in {run}\ngo on with: torchdnc train --resume {run}\n")
    step = int(out[out.index("interrupted at step ") :].split()[3].rstrip(","))
    assert_gone(others)

    process = command("--resume", str(run))
    wait_for_row(run, after=step)
    others = children(process)
    os.kill(others[0], signal.SIGKILL)
    _, err = process.communicate(timeout=SOON)
    assert process.returncode == 1
    assert err.startswith("error: another process of the run has ended after step ")
    assert err.endswith(f" in {run} is intact\n")
    assert err.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_for_the_leading_process(tmp_path: Path, number: int) -> None:
    recipe, run = written(tiny(steps=100_000, processes=2), tmp_path / "tiny.toml"), tmp_path / "run"
    process = command(recipe, "--out", str(run))
    wait_for_row(run)
    others = children(process)
    process.send_signal(number)
    out, err = process.communicate(timeout=TIME_LIMIT)
    assert_gone(others)
    assert err == ""
    if number == signal.SIGTERM:
        assert process.returncode == 128 + number
        assert "interrupted at step " in out
        assert (run / "training.safetensors").exists()
    else:
        assert process.returncode == -number


class Deadly:
    """Ends whatever process it is handed to."""

    def __reduce__(self) -> Any:
        return os._exit, (3,)

    def __call__(self, group: Group) -> None:
        raise AssertionError("it is not reached")


def test_a_process_that_ends_before_it_begins() -> None:
    with pytest.raises(LostError, match="another process of the run has ended"), led(2, Deadly()):
        pass


def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="processes must be at least 1, got 0"):
        tiny(processes=0)
    with pytest.raises(ValueError, match="processes must be at most batch_size, 4, so that each has rows, got 5"):
        tiny(processes=5)
    for name, value in {"RANK": "0", "WORLD_SIZE": "9", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=r"processes must be at most batch_size, 4, .* got 9"):
        train(tiny(), tmp_path / "run")
    with pytest.raises(ValueError, match="seeds must be trained without torchrun"):
        train_seeds(tiny(), tmp_path / "run", 2)
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(ValueError, match=r"process 0 of torchrun leads the run, .* got RANK 1"):
        train(tiny(), tmp_path / "run")
    assert not (tmp_path / "run").exists()
