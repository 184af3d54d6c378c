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

import numpy as np
import torch

from torchdnc.tasks import Batch, Task
from torchdnc.training.checkpoint import load_checkpoint, save_checkpoint
from torchdnc.training.config import RunConfig
from torchdnc.training.curriculum import lesson_of, next_lesson
from torchdnc.training.environment import differences, environment
from torchdnc.training.evaluate import evaluate, predict
from torchdnc.training.folder import new_run, old_run, write_config
from torchdnc.training.launch import launched, led
from torchdnc.training.metrics import MetricsFile
from torchdnc.training.models import check_room
from torchdnc.training.optim import Optimizer
from torchdnc.training.parallel import Group
from torchdnc.training.pressure import full_memory
from torchdnc.training.report import LostError, NonFiniteError, Progress, Reporter, Result, Status


def train(config: RunConfig, run_dir: str | Path, *reporters: Reporter) -> Result:
    """Train a model until its goal, its last step, its time limit or a signal.

    SIGINT and SIGTERM finish the step and save; a second one stops at once, as far as the last checkpoint.
    Under torchrun process 0 calls this, and all others `follow(group)` in `with joined() as group`. A program that
    trains with `processes` above 1 is imported by each: what it does belongs under `if __name__ == "__main__"`.

    Args:
        config: the run.
        run_dir: a new or empty folder; it receives config.json, metrics.jsonl and the checkpoints.
        reporters: hear of its events.
    Raises:
        ValueError, TypeError, FileNotFoundError: a setting or the data is bad; nothing was written.
        RunError: loss or gradient is not finite, the disk is full, another process trains this run, or one of
            those that share it has ended.
    """
    run_dir, config = Path(run_dir), launched(config).prepared()
    with _settings(config):
        learner = _Learner(config)
        with new_run(run_dir) as metrics:
            write_config(run_dir, config, environment(config))
            return _Run(config, run_dir, metrics, reporters, learner, Progress()).go()


def resume(
    run_dir: str | Path,
    *reporters: Reporter,
    steps: int | None = None,
    max_minutes: float | None = None,
    processes: int | None = None,
) -> Result:
    """Go on with a run from its last checkpoint, to the very weights and metrics that it would have had.

    With another number of processes these are the same to rounding.

    Args:
        run_dir: its folder.
        reporters: hear of its events.
        steps, max_minutes: new limits; None keeps the old.
        processes: new number of them; None keeps the old.
    Raises:
        ValueError, FileNotFoundError: there is no such run, or its data is gone.
        RunError: as in `train`.
    """
    run_dir = Path(run_dir)
    with old_run(run_dir) as (metrics, old, before):
        settings = {"steps": steps, "max_minutes": max_minutes, "processes": processes}
        changes: dict[str, Any] = {name: value for name, value in settings.items() if value is not None}
        config = launched(replace(old, **changes)).prepared()
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


def follow(group: Group) -> Result:
    """Train the run that the group's process 0 leads, which this process has no other part in.

    Args:
        group: of the processes that share it.
    Raises:
        RunError: process 0 or another one has ended.
    """
    config, weights, state, step, lesson = group.hand(None)
    with _settings(config), _signals() as caught:
        learner = _Learner(config)
        learner.model.load_state_dict(weights)
        learner.optimizer.load_state_dict(state)
        while not any(group.agree(False, caught)):
            # What a model draws is each process's own; drawn anew at each step, it needs no place in a checkpoint.
            torch.manual_seed(int(np.random.SeedSequence([config.seed, step, group.rank]).generate_state(1)[0]))
            _learn(learner, config, step, lesson, group)
            step += 1
            if _due(config, step, config.eval_every):
                lesson = _lesson_after(config, lesson, _evaluate(learner, config, lesson, group))
    result: Result = group.hand(None)
    return result


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
        torch.set_num_threads(config.threads or (threads if config.processes == 1 else 1))
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


def update(learner: _Learner, task: Task, batch: Batch, settings: Optimizer, group: Group) -> tuple[float, float]:
    """One update; returns the loss and the gradient's norm before clipping, both of the group's whole batch."""
    share, part = group.share(batch)
    loss = torch.zeros(())
    learner.optimizer.zero_grad()
    if part > 0:
        loss = part * task.loss(predict(learner.model, share), share)
        loss.backward()
    total = group.add(loss, learner.parameters)
    norm = settings.clip(learner.parameters)
    learner.optimizer.step()
    return total, norm.item()


def _learn(learner: _Learner, config: RunConfig, step: int, lesson: int | None, group: Group) -> tuple[float, float]:
    task = lesson_of(config.curriculum, config.task, lesson)
    batch = task.sample(config.batch_size, seed=config.seed, step=step)
    config.optimizer.set_rate(learner.optimizer, step / config.steps)
    return update(learner, task, batch, config.optimizer, group)


def _lesson_after(config: RunConfig, lesson: int | None, scores: dict[str, float]) -> int | None:
    met = config.goal is not None and config.goal.met(scores)
    return next_lesson(config.curriculum, config.task, lesson, met)


def _evaluate(learner: _Learner, config: RunConfig, lesson: int | None, group: Group) -> dict[str, float]:
    return evaluate(
        learner.model,
        lesson_of(config.curriculum, config.task, lesson),
        "valid",
        batch_size=config.batch_size,
        sequences=config.eval_sequences,
        seed=config.seed,
        group=group,
    )


def _due(config: RunConfig, step: int, every: int) -> bool:
    return step % every == 0 or step == config.steps


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
        self.told_full = False

    def go(self) -> Result:
        """Train to the end, whichever it is."""
        result = None
        self._tell(lambda reporter: reporter.started(self.config, self.run_dir, self.progress))
        try:
            with led(self.config.processes, follow) as group:
                result = self._train(group)
        except LostError as error:
            raise LostError(f"{error} after step {self.progress.step}: training stopped; {self._kept()}") from error
        finally:
            self._tell(lambda reporter: reporter.ended(result))
        return result

    def _train(self, group: Group) -> Result:
        learner = self.learner
        progress = self.progress
        weights, state = learner.model.state_dict(), learner.optimizer.state_dict()
        group.hand((self.config, weights, state, progress.step, progress.lesson))
        with _signals() as caught:
            while (end := self._end(group, caught)) is None:
                self._step(group)
            self._save()
        result: Result = group.hand(self._result(*end))
        return result

    def _end(self, group: Group, caught: list[int]) -> tuple[Status, int | None] | None:
        """Why all processes stop now, and the signal if it is one; or None."""
        status = self._status()
        _, number = group.agree(status is not None, caught)
        if number and status in (None, "out of time"):
            return "interrupted", number
        return status and (status, None)

    def _tell(self, event: Callable[[Reporter], None]) -> None:
        for reporter in self.reporters:
            event(reporter)

    def _status(self) -> Status | None:
        """Why to stop now without a signal, or None."""
        config, progress = self.config, self.progress
        fresh = progress.scored == progress.step and progress.scores is not None
        if fresh and config.goal is not None and config.goal.met(progress.scores or {}):
            return "solved"
        if progress.step >= config.steps:
            return "finished"
        if config.max_minutes is not None and progress.seconds >= 60 * config.max_minutes:
            return "out of time"
        return None

    def _step(self, group: Group) -> None:
        config, step = self.config, self.progress.step + 1
        loss, norm = _learn(self.learner, config, self.progress.step, self.progress.lesson, group)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise NonFiniteError(self._non_finite(step, loss, norm))
        before = self.progress
        self._progress(step=step, losses=before.losses + loss, norms=before.norms + norm, rows=before.rows + 1)
        if _due(config, step, config.log_every):
            self._log()
        if _due(config, step, config.eval_every):
            self._score(_evaluate(self.learner, config, self.progress.lesson, group))
        if step % config.checkpoint_every == 0:
            self._save()

    def _progress(self, **changes: Any) -> None:
        self.progress = replace(self.progress, seconds=time.perf_counter() - self.began, **changes)

    def _log(self) -> None:
        progress = self.progress
        means = {"loss": progress.losses / progress.rows, "grad_norm": progress.norms / progress.rows}
        self._row(means)
        self._progress(losses=0.0, norms=0.0, rows=0)

    def _score(self, scores: dict[str, float]) -> None:
        curriculum, task, lesson = self.config.curriculum, self.config.task, self.progress.lesson
        now = next_lesson(curriculum, task, lesson, met=False)
        self._progress(scored=self.progress.step, scores=scores)
        self._row({"valid": scores} | ({} if now is None else {"lesson": now}))
        self._tell_if_full(lesson_of(curriculum, task, lesson))
        after = _lesson_after(self.config, lesson, scores)
        if after != now:
            # It was of an easier lesson.
            self._progress(lesson=after, scores=None)

    def _tell_if_full(self, task: Task) -> None:
        """Once in a run: writes are being lost."""
        if self.told_full or not self.reporters:
            return
        sentence = full_memory(self.learner.model, task, self.config.seed)
        if sentence is not None:
            self.told_full = True
            self._tell(lambda reporter: reporter.warned(sentence))

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
        return f"loss is {loss} and the gradient's norm {norm} at step {step}: training stopped; {self._kept()}"

    def _kept(self) -> str:
        if self.saved:
            return f"the checkpoint of step {self.saved} in {self.run_dir} is intact"
        return "no checkpoint was saved before"

    def _result(self, status: Status, signal: int | None) -> Result:
        progress = self.progress
        return Result(
            run_dir=self.run_dir,
            status=status,
            step=progress.step,
            seconds=progress.seconds,
            scores=dict(progress.scores or {}),
            signal=signal,
        )
