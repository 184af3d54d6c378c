"""A run on the terminal: a live table, or plain lines where there is no terminal."""

import sys
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from torchdnc.training.config import RunConfig
from torchdnc.training.plain import to_toml
from torchdnc.training.report import Progress, Reporter, Result
from torchdnc.training.seeds import SeedRun, summarise

ROWS = 12
"""Rows of the live table."""
LINE = 150
"""Longest line of the configuration that is printed whole; config.json has all of it."""


def reporter() -> "Lines":
    """The live table on a terminal, plain lines elsewhere."""
    return LiveTable() if sys.stdout.isatty() else Lines()


def clock(seconds: float) -> str:
    """A time as 0:07, 12:34 or 3:12:34."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def number(value: float) -> str:
    """A number in four significant digits."""
    return f"{value:.4g}"


def scores_line(scores: Mapping[str, float]) -> str:
    """Scores on one line, without those of single groups such as the tasks of bAbI."""
    return "  ".join(f"{name} {number(value)}" for name, value in scores.items() if "/" not in name)


def scores_table(scores: Mapping[str, float]) -> str:
    """Scores on a line each; error shares of bAbI in percent, as the papers give them, all others as they are."""
    width = max(map(len, scores), default=0) + 2
    return "\n".join(f"  {name:{width}}{_score(name, value)}" for name, value in scores.items())


def seeds_table(runs: Sequence[SeedRun]) -> str:
    """A line per seed, then mean ± standard deviation and how many solved the task."""
    lines = [_seed_line(run) for run in runs]
    for name, (mean, deviation) in summarise(runs)["means"].items():
        lines.append(f"  {name:24}{number(mean)} ± {number(deviation)}")
    return "\n".join([*lines, f"  {'solved':24}{sum(run.status == 'solved' for run in runs)} of {len(runs)}"])


def _seed_line(run: SeedRun) -> str:
    if run.scores is None:
        return f"seed {run.seed}: failed, its loss was no longer finite"
    where = f"{run.status} at step {run.step}, {number(run.seconds or 0)} s"
    return f"seed {run.seed}: {where}  {scores_line(run.scores)}"


def _score(name: str, value: float) -> str:
    return f"{100 * value:.2f} %" if "error" in name else number(value)


def _shortened(text: str) -> str:
    """The text with long lines cut: a vocabulary fills a screen."""
    lines = [line if len(line) <= LINE else f"{line[:LINE]} ..." for line in text.splitlines()]
    return "\n".join(lines)


class Pace:
    """Steps per second and time left, from the rows of training loss."""

    def __init__(self, config: RunConfig, progress: Progress) -> None:
        self.config, self.step, self.seconds = config, progress.step, progress.seconds

    def advance(self, step: int, seconds: float) -> tuple[float, float]:
        """Steps per second since the last call, and the seconds left at that rate."""
        rate = (step - self.step) / max(seconds - self.seconds, 1e-9)
        self.step, self.seconds = step, seconds
        left = (self.config.steps - step) / rate
        if self.config.max_minutes is not None:
            left = min(left, max(60 * self.config.max_minutes - seconds, 0))
        return rate, left


class Lines(Reporter):
    """One line per row of metrics."""

    began = False
    """Whether a run was under way: what goes wrong from then on is no bad argument."""

    def started(self, config: RunConfig, run_dir: Path, progress: Progress) -> None:
        self.began = True
        self.config, self.pace = config, Pace(config, progress)
        print(_shortened(to_toml(config.to_dict())))
        for note in config.task.notes():
            print(f"note: {note}")
        print(f"# {config.model.count_parameters(config.task.spec):,} parameters")
        begun = f"going on at step {progress.step}" if progress.step else "training"
        print(f"{begun} in {run_dir}", flush=True)

    def warned(self, sentence: str) -> None:
        print(f"warning: {sentence}", file=sys.stderr)

    def logged(self, row: Mapping[str, Any]) -> None:
        if "valid" in row:
            parts = ["valid", scores_line(row["valid"]), *([f"lesson {row['lesson']}"] if "lesson" in row else [])]
        else:
            rate, left = self.pace.advance(row["step"], row["seconds"])
            parts = [f"loss {number(row['loss'])}", f"grad {number(row['grad_norm'])}"]
            parts += [f"{number(rate)} steps/s", f"left {clock(left)}"]
        print(f"step {row['step']}/{self.config.steps}", *parts, sep="  ", flush=True)

    def ended(self, result: Result | None) -> None:
        if result is None:
            return
        print(f"{result.status} at step {result.step}, {number(result.seconds)} s")
        if result.status == "finished" and self.config.goal is not None:
            print(f"the goal was not reached: {self.config.goal.metric} at most {self.config.goal.at_most}")
        if result.scores:
            print(scores_table(result.scores))
        print(f"saved in {result.run_dir}", flush=True)


class LiveTable(Lines):
    """The latest rows of metrics in a table that is drawn anew."""

    def started(self, config: RunConfig, run_dir: Path, progress: Progress) -> None:
        super().started(config, run_dir, progress)
        self.rows: deque[dict[str, str]] = deque(maxlen=ROWS)
        self.live = Live(console=Console(), auto_refresh=False)
        self.live.start()

    def logged(self, row: Mapping[str, Any]) -> None:
        if not self.rows or self.rows[-1]["step"] != str(row["step"]):
            self.rows.append({"step": str(row["step"])})
        self.rows[-1] |= self._scores(row["valid"]) if "valid" in row else self._training(row)
        self.live.update(self._table(), refresh=True)

    def ended(self, result: Result | None) -> None:
        self.live.stop()
        super().ended(result)

    def _training(self, row: Mapping[str, Any]) -> dict[str, str]:
        rate, left = self.pace.advance(row["step"], row["seconds"])
        return {
            "loss": number(row["loss"]),
            "gradient": number(row["grad_norm"]),
            "steps/s": number(rate),
            "left": clock(left),
        }

    def _scores(self, scores: Mapping[str, float]) -> dict[str, str]:
        shown = [name for name in scores if "/" not in name]
        name = self.config.goal.metric if self.config.goal else shown[0]
        return {name: number(scores[name])}

    def _table(self) -> Table:
        table = Table()
        columns = dict.fromkeys(name for row in self.rows for name in row)
        for name in columns:
            table.add_column(name, justify="right")
        for row in self.rows:
            table.add_row(*(row.get(name, "") for name in columns))
        return table
