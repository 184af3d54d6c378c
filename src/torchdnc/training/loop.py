"""The training loop: a batch, a step, now and then a row of metrics, an evaluation, a checkpoint."""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from torchdnc.tasks import Batch, Task
from torchdnc.training.checkpoint import load_checkpoint, save_checkpoint
from torchdnc.training.config import RunConfig
from torchdnc.training.environment import differences, environment
from torchdnc.training.evaluate import evaluate, predict
from torchdnc.training.folder import new_run, old_run, write_config
from torchdnc.training.metrics import MetricsFile
from torchdnc.training.models import check_room
from torchdnc.training.optim import Optimizer
from torchdnc.training.report import NonFiniteError, Progress, Reporter, Result, Status


def train(config: RunConfig, run_dir: str | Path, *reporters: Reporter) -> Result:
    """Train a model until its goal, its last step, its time limit or a signal.

    SIGINT and SIGTERM finish the step and save; a second one stops at once, as far as the last checkpoint.

    Args:
        config: the run.
        run_dir: a new or empty folder; it receives config.json, metrics.jsonl and the checkpoints.
        reporters: hear of its events.
    Raises:
        ValueError, TypeError, FileNotFoundError: a setting or the data is bad; nothing was written.
        RunError: loss or gradient is not finite, the disk is full, or another process trains this run.
    """
    run_dir, config = Path(run_dir), config.prepared()
    with _settings(config):
        learner = _Learner(config)
        with new_run(run_dir) as metrics:
            write_config(run_dir, config, environment(config))
            return _Run(config, run_dir, metrics, reporters, learner, Progress()).go()


def resume(
    run_dir: str | Path, *reporters: Reporter, steps: int | None = None, max_minutes: float | None = None
) -> Result:
    """Go on with a run from its last checkpoint, to the very weights and metrics that it would have had.

    Args:
        run_dir: its folder.
        reporters: hear of its events.
        steps, max_minutes: new limits; None keeps the old.
    Raises:
        ValueError, FileNotFoundError: there is no such run, or its data is gone.
        RunError: as in `train`.
    """
    run_dir = Path(run_dir)
    with old_run(run_dir) as (metrics, old, before):
        limits = {"steps": steps, "max_minutes": max_minutes}
        changes: dict[str, Any] = {name: value for name, value in limits.items() if value is not None}
        config = replace(old, **changes).prepared()
        with _settings(config):
            learner = _Learner(config)
            progress = load_checkpoint(run_dir, learner.model, learner.optimizer) or Progress()
            if steps is not None and steps < progress.step:
                raise ValueError(f"steps must be at least {progress.step}, which the run has made, got {steps}")
            metrics.cut_after(progress.step)
            if config != old:
                write_config(run_dir, config, before)
            for sentence in differences(before, environment(config)):
                for reporter in reporters:
                    reporter.warned(sentence)
            return _Run(config, run_dir, metrics, reporters, learner, progress).go()


def check(config: RunConfig) -> None:
    """Raise ValueError, TypeError or FileNotFoundError if the run cannot begin."""
    with _settings(config):
        _Learner(config.prepared())


@contextmanager
def _settings(config: RunConfig) -> Iterator[None]:
    """Seed and threads for the time of a run; afterwards they are as they were."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        torch.set_num_threads(config.threads or threads)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


class _Learner:
    """A model and its optimiser."""

    def __init__(self, config: RunConfig) -> None:
        self.model = config.model.build(config.task.spec)
        check_room(config.model, config.batch_size)
        self.parameters = list(self.model.parameters())
        self.optimizer = config.optimizer.build(self.parameters)


def learn(learner: _Learner, task: Task, batch: Batch, settings: Optimizer) -> tuple[float, float]:
    """One update; returns the loss and the gradient's norm before clipping."""
    outputs = predict(learner.model, batch)
    loss = task.loss(outputs, batch)
    learner.optimizer.zero_grad()
    loss.backward()
    norm = settings.clip(learner.parameters)
    learner.optimizer.step()
    return loss.item(), norm.item()


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collects the first SIGINT or SIGTERM; a second one acts as it would without us."""
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def catch(number: int, frame: Any) -> None:
        caught.append(number)
        restore()

    for number in before:
        signal.signal(number, catch)
    try:
        yield caught
    finally:
        restore()


class _Run:
    """A run under way."""

    def __init__(
        self,
        config: RunConfig,
        run_dir: Path,
        metrics: MetricsFile,
        reporters: tuple[Reporter, ...],
        learner: _Learner,
        progress: Progress,
    ) -> None:
        self.config, self.run_dir, self.metrics = config, run_dir, metrics
        self.reporters, self.learner, self.progress = reporters, learner, progress
        self.saved = progress.step
        self.began = time.perf_counter() - progress.seconds

    def go(self) -> Result:
        """Train to the end, whichever it is."""
        result = None
        self._tell(lambda reporter: reporter.started(self.config, self.run_dir, self.progress))
        try:
            with _signals() as caught:
                while (status := self._status(caught)) is None:
                    self._step()
                self._save()
            result = self._result(status, caught)
        finally:
            self._tell(lambda reporter: reporter.ended(result))
        return result

    def _tell(self, event: Callable[[Reporter], None]) -> None:
        for reporter in self.reporters:
            event(reporter)

    def _status(self, caught: list[int]) -> Status | None:
        """Why to stop now, or None."""
        config, progress = self.config, self.progress
        fresh = progress.scored == progress.step and progress.scores is not None
        if fresh and config.goal is not None and config.goal.met(progress.scores or {}):
            return "solved"
        if progress.step >= config.steps:
            return "finished"
        if caught:
            return "interrupted"
        if config.max_minutes is not None and progress.seconds >= 60 * config.max_minutes:
            return "out of time"
        return None

    def _step(self) -> None:
        config, step = self.config, self.progress.step + 1
        batch = config.task.sample(config.batch_size, seed=config.seed, step=self.progress.step)
        loss, norm = learn(self.learner, config.task, batch, config.optimizer)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise NonFiniteError(self._non_finite(step, loss, norm))
        before = self.progress
        self._progress(step=step, losses=before.losses + loss, norms=before.norms + norm, rows=before.rows + 1)
        if self._due(config.log_every):
            self._log()
        if self._due(config.eval_every):
            self._evaluate()
        if step % config.checkpoint_every == 0:
            self._save()

    def _due(self, every: int) -> bool:
        return self.progress.step % every == 0 or self.progress.step == self.config.steps

    def _progress(self, **changes: Any) -> None:
        self.progress = replace(self.progress, seconds=time.perf_counter() - self.began, **changes)

    def _log(self) -> None:
        progress = self.progress
        means = {"loss": progress.losses / progress.rows, "grad_norm": progress.norms / progress.rows}
        self._row(means)
        self._progress(losses=0.0, norms=0.0, rows=0)

    def _evaluate(self) -> None:
        config = self.config
        scores = evaluate(
            self.learner.model,
            config.task,
            "valid",
            batch_size=config.batch_size,
            sequences=config.eval_sequences,
            seed=config.seed,
        )
        self._progress(scored=self.progress.step, scores=scores)
        self._row({"valid": scores})

    def _row(self, values: dict[str, Any]) -> None:
        row = {"step": self.progress.step, "seconds": round(self.progress.seconds, 3)} | values
        self.metrics.append(row)
        self._tell(lambda reporter: reporter.logged(row))

    def _save(self) -> None:
        """Put metrics, then the checkpoint, on disk: a checkpoint's metrics are never missing."""
        self.metrics.sync()
        save_checkpoint(self.run_dir, self.learner.model, self.learner.optimizer, self.progress)
        self.saved = self.progress.step

    def _non_finite(self, step: int, loss: float, norm: float) -> str:
        kept = f"the checkpoint of step {self.saved} in {self.run_dir} is intact"
        where = kept if self.saved else "no checkpoint was saved before"
        return f"loss is {loss} and the gradient's norm {norm} at step {step}: training stopped; {where}"

    def _result(self, status: Status, caught: list[int]) -> Result:
        progress = self.progress
        return Result(
            run_dir=self.run_dir,
            status=status,
            step=progress.step,
            seconds=progress.seconds,
            scores=dict(progress.scores or {}),
            signal=caught[0] if status == "interrupted" else None,
        )
