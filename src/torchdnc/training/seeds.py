"""The same run from several seeds, one after another."""

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torchdnc.checks import check_size
from torchdnc.training.checkpoint import write_atomically
from torchdnc.training.config import RunConfig
from torchdnc.training.folder import CONFIG, make_empty
from torchdnc.training.launch import by_torchrun
from torchdnc.training.loop import check, resume, train
from torchdnc.training.plain import to_plain
from torchdnc.training.report import NonFiniteError, Reporter, Result

SEEDS = "seeds.json"


@dataclass(frozen=True)
class SeedRun:
    """How one seed ended; status "failed" where its loss was no longer finite."""

    seed: int
    status: str
    step: int | None = None
    seconds: float | None = None
    scores: dict[str, float] | None = None


Reporters = Callable[[RunConfig], Sequence[Reporter]]
"""Makes the reporters of one seed's run."""


def train_seeds(
    config: RunConfig, out: str | Path, seeds: int, reporters: Reporters = lambda config: ()
) -> tuple[list[SeedRun], Result | None]:
    """Train seeds seed, seed+1, ..., in folders out/seed-K.

    Args:
        config: the run of the first seed.
        out: a new or empty folder.
        seeds: how many.
        reporters: hear of each seed's run.
    Returns:
        how each seed ended, also written to out/seeds.json; and the run that a signal interrupted.
    Raises:
        ValueError, TypeError: a setting is bad, or the folder holds something; nothing was written.
        RunError: as in `train`, except that the other seeds go on where one's loss is not finite.
    """
    out = Path(out)
    check_size("seeds", seeds)
    _refuse_torchrun()
    check(config)
    make_empty(out)
    write_seeds(out, config, seeds, [])
    return resume_seeds(out, reporters)


def resume_seeds(out: str | Path, reporters: Reporters = lambda config: ()) -> tuple[list[SeedRun], Result | None]:
    """Go on with seeds where they stopped; those that ended stay as they are. As `train_seeds` otherwise."""
    out = Path(out)
    _refuse_torchrun()
    config, count, runs = read_seeds(out)
    for seed in range(config.seed + len(runs), config.seed + count):
        run = replace(config, seed=seed)
        try:
            result = _start_or_resume(run, out / f"seed-{seed}", reporters(run))
        except NonFiniteError:
            runs.append(SeedRun(seed, "failed"))
        else:
            if result.status == "interrupted":
                return runs, result
            runs.append(SeedRun(seed, result.status, result.step, result.seconds, dict(result.scores)))
        write_seeds(out, config, count, runs)
    return runs, None


def _refuse_torchrun() -> None:
    if by_torchrun():
        raise ValueError("seeds must be trained without torchrun, which starts processes for one run; use processes")


def _start_or_resume(config: RunConfig, folder: Path, reporters: Sequence[Reporter]) -> Result:
    if (folder / CONFIG).exists():
        return resume(folder, *reporters)
    return train(config, folder, *reporters)


def write_seeds(out: Path, config: RunConfig, count: int, runs: Sequence[SeedRun]) -> None:
    """Write seeds.json: what is to be trained, how each seed ended, and their summary."""
    data = {
        "config": config.to_dict(),
        "seeds": count,
        "runs": [to_plain(run) for run in runs],
        "summary": summarise(runs),
    }
    write_atomically(out / SEEDS, json.dumps(data, indent=2).encode() + b"\n")


def read_seeds(out: Path) -> tuple[RunConfig, int, list[SeedRun]]:
    """Configuration, number of seeds, and those that ended; raises ValueError if the folder holds none."""
    path = out / SEEDS
    try:
        data = json.loads(path.read_text())
        runs = [SeedRun(**run) for run in data["runs"]]
        return RunConfig.from_dict(data["config"], str(path)), data["seeds"], runs
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{out} holds no seeds: {path} cannot be read") from error


def summarise(runs: Sequence[SeedRun]) -> dict[str, Any]:
    """Share solved, and mean and standard deviation of steps, seconds and every score."""
    ended = [run for run in runs if run.scores is not None]
    columns: dict[str, list[float]] = {}
    for run in ended:
        for name, value in {"step": run.step, "seconds": run.seconds, **(run.scores or {})}.items():
            columns.setdefault(name, []).append(float(value or 0))
    solved = sum(run.status == "solved" for run in runs)
    return {
        "solved": solved / len(runs) if runs else 0.0,
        "failed": len(runs) - len(ended),
        "means": {name: mean_and_deviation(values) for name, values in columns.items()},
    }


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation of a sample (n - 1 below; 0 of a single value)."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0
