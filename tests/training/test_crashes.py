"""Whatever stops a run, going on with it gives what it would have given."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor, nn

from tests.training.runs import At, assert_same_run, copied, interrupt, rows, tiny, uninterrupted
from torchdnc.tasks import Batch, Copy, Spec
from torchdnc.training import (
    MODELS,
    DiskError,
    LSTMModel,
    Model,
    NonFiniteError,
    Optimizer,
    Reporter,
    RunError,
    resume,
    train,
)
from torchdnc.training.metrics import METRICS, MetricsFile
from torchdnc.training.plain import to_toml


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing stopped."""
    return uninterrupted(tmp_path_factory.mktemp("whole") / "run")


def test_comparison_sees_a_difference(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        assert_same_run(whole, uninterrupted(tmp_path / "run", seed=1))
    other = copied(whole, tmp_path / "copy")
    with (other / METRICS).open("a") as file:
        file.write('{"step": 12}\n')
    with pytest.raises(AssertionError):
        assert_same_run(whole, other)


def test_same_seed_gives_same_run(whole: Path, tmp_path: Path) -> None:
    torch.rand(3)  # What happened before in this process must not matter.
    assert_same_run(uninterrupted(tmp_path / "run"), whole)


def test_training_leaves_random_numbers_and_threads_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected, threads = torch.rand(2), torch.get_num_threads()
    torch.manual_seed(5)
    inside: list[int] = []
    train(
        tiny(steps=1, threads=threads + 1),
        tmp_path / "run",
        At(1, lambda: inside.append(torch.get_num_threads())),
    )
    assert torch.equal(torch.rand(2), expected)
    assert inside == [threads + 1] * 2
    assert torch.get_num_threads() == threads


class Snapshots:
    """Copies the run's folder before and after every touch of the disk: what a kill there would leave."""

    def __init__(self, run: Path, to: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.run, self.to, self.taken = run, to, list[Path]()
        for name in ("replace", "fsync"):
            self._wrap(monkeypatch, os, name)
        for name in ("append", "sync"):
            self._wrap(monkeypatch, MetricsFile, name)

    def _wrap(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        function = getattr(owner, name)

        def wrapped(*args: Any) -> Any:
            self._take()
            result = function(*args)
            self._take()
            return result

        monkeypatch.setattr(owner, name, wrapped)

    def _take(self) -> None:
        if (self.run / "config.json").exists():
            self.taken.append(copied(self.run, self.to / str(len(self.taken))))


def test_killed_at_any_write(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        snapshots = Snapshots(tmp_path / "run", tmp_path / "killed", patch)
        train(tiny(), tmp_path / "run")
    # 8 rows; 4 saves of two files, each synced, replaced and its folder synced, behind a sync of the metrics.
    assert len(snapshots.taken) > 2 * (8 + 4 * 2 * 3)
    distinct = {_content(killed): killed for killed in snapshots.taken}
    assert len(distinct) > 15
    for killed in distinct.values():
        resume(killed)
        assert_same_run(killed, whole)
        assert not list(killed.glob("*.tmp"))


def _content(run: Path) -> tuple[tuple[str, bytes], ...]:
    return tuple(sorted((path.name, path.read_bytes()) for path in run.iterdir()))


@pytest.mark.parametrize("torn", ['{"step": 7, "sec', '{"step": 7}', "\x00\x00"])
def test_torn_row(whole: Path, tmp_path: Path, torn: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tiny(), tmp_path / "run", At(6, _stop_at_once))
    with (tmp_path / "run" / METRICS).open("a") as file:
        file.write(torn)
    resume(tmp_path / "run")
    assert_same_run(tmp_path / "run", whole)


@pytest.mark.parametrize("line", ["{}", "[]", "3", "torn", '{"step": null}', "\xff"])
def test_foreign_row(whole: Path, tmp_path: Path, line: str) -> None:
    run = copied(whole, tmp_path / "run")
    with (run / METRICS).open("a", encoding="latin-1") as file:
        file.write(f"{line}\n")
    # Two of loss and validation at 12 steps in all: rows of 3, 5, 6, 9, 10 and twice 12 come before.
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 8: must be a row with a step, got '.*'$"):
        resume(run)


@pytest.mark.parametrize(
    ("lost", "sentence"),
    [
        ({"random"}, "lacks random$"),
        ({"progress"}, "lacks progress$"),
        ({"optimizer"}, "lacks optimizer$"),
        ({"random", "progress"}, "random and progress$"),
    ],
)
def test_foreign_checkpoint(whole: Path, tmp_path: Path, lost: set[str], sentence: str) -> None:
    run = copied(whole, tmp_path / "run")
    path = run / "training.safetensors"
    with safe_open(path, framework="pt") as file:
        metadata = {name: value for name, value in file.metadata().items() if name not in lost}
    tensors = {name: value for name, value in safetensors.torch.load_file(path).items() if name not in lost}
    safetensors.torch.save_file(tensors, path, metadata)
    with pytest.raises(ValueError, match=rf"training\.safetensors is no checkpoint of a run: it .*{sentence}"):
        resume(run)


def _stop_at_once() -> None:
    raise KeyboardInterrupt


def test_weights_without_their_training_state_are_not_overwritten(whole: Path, tmp_path: Path) -> None:
    run = copied(whole, tmp_path / "run")
    (run / "training.safetensors").unlink()
    before = (run / "model.safetensors").read_bytes()
    with pytest.raises(ValueError, match=r"has model.safetensors and no training.safetensors"):
        resume(run)
    assert (run / "model.safetensors").read_bytes() == before


def test_another_optimizer_in_the_configuration_is_refused(whole: Path, tmp_path: Path) -> None:
    run = copied(whole, tmp_path / "run")
    text = (run / "config.json").read_text()
    assert '"name": "adam"' in text
    (run / "config.json").write_text(text.replace('"name": "adam"', '"name": "rmsprop"'))
    with pytest.raises(ValueError, match="was saved with the optimizer Adam, and config"):
        resume(run, steps=20)


def test_fewer_steps_than_made_are_refused(whole: Path, tmp_path: Path) -> None:
    run = copied(whole, tmp_path / "run")
    with pytest.raises(ValueError, match="steps must be at least 12, which the run has made, got 5"):
        resume(run, steps=5)
    assert '"steps": 12' in (run / "config.json").read_text()


def test_more_threads_than_can_be_are_refused() -> None:
    with pytest.raises(ValueError, match="threads must be at most 1024, got 100000"):
        tiny(threads=100_000)


def test_kill_9(tmp_path: Path) -> None:
    """A process killed twice, each time at a random moment of a run too long to end before."""
    config = tiny(steps=100_000, checkpoint_every=7)
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(to_toml(config.to_dict()))
    run, chance = tmp_path / "run", random.Random(1)
    seen = -1
    for start in (["train", str(recipe), "--out", str(run)], ["train", "--resume", str(run)]):
        process = subprocess.Popen([sys.executable, "-m", "torchdnc.cli", *start], stdout=subprocess.PIPE)
        seen = _wait_for_progress(run, seen)
        time.sleep(chance.uniform(0, 0.1))
        process.kill()
        assert process.wait() == -signal.SIGKILL
        process.communicate()
    # At most a checkpoint and its row lie between the last row and the kill.
    end = rows(run)[-1]["step"] + 20
    assert resume(run, steps=end).step == end
    assert_same_run(run, uninterrupted(tmp_path / "whole", steps=end, checkpoint_every=7))


def _wait_for_progress(run: Path, seen: int) -> int:
    """Wait for a row later than any before; returns its step."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if (run / METRICS).exists() and (found := rows(run)) and found[-1]["step"] > seen:
            return int(found[-1]["step"])
        time.sleep(0.01)
    raise AssertionError("the run made no progress")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_finishes_the_step_and_saves(whole: Path, tmp_path: Path, number: int) -> None:
    before = signal.getsignal(number)
    result = train(tiny(), tmp_path / "run", At(6, lambda: interrupt(number)))
    assert (result.status, result.step, result.signal) == ("interrupted", 6, number)
    assert signal.getsignal(number) is before
    assert rows(tmp_path / "run")[-1]["step"] == 6
    with safe_open(tmp_path / "run" / "training.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["progress"])["step"] == 6
    assert resume(tmp_path / "run").status == "finished"
    assert_same_run(tmp_path / "run", whole)


def test_second_interrupt_stops_at_once(whole: Path, tmp_path: Path) -> None:
    def twice() -> None:
        interrupt()
        # Another thread may be the one that hears it: two at once would be heard as one.
        time.sleep(0.2)
        interrupt()

    with pytest.raises(KeyboardInterrupt):
        train(tiny(), tmp_path / "run", At(6, twice))
    resume(tmp_path / "run")
    assert_same_run(tmp_path / "run", whole)


@contextmanager
def largest_file(size: int):
    """No file can grow beyond this size, as if the disk were full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_full_disk_at_a_checkpoint(whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(tiny(), run, At(6, interrupt))
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    with (
        largest_file(len(before["training.safetensors"]) - 1),
        pytest.raises(DiskError, match=r"training\.safetensors could not be written: File too large"),
    ):
        resume(run)
    after = {path.name: path.read_bytes() for path in run.iterdir()}
    assert after.pop(METRICS).startswith(before.pop(METRICS))
    assert after == before
    resume(run)
    assert_same_run(run, whole)


def test_full_disk_at_a_row(whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    # Without checkpoints on the way, the first thing to be written is a row; it fits in part.
    train(tiny(checkpoint_every=100), run, At(6, interrupt))
    size = (run / METRICS).stat().st_size
    before = (run / "training.safetensors").read_bytes()
    with largest_file(size + 10), pytest.raises(DiskError, match=r"metrics\.jsonl could not be written"):
        resume(run)
    assert (run / METRICS).stat().st_size == size + 10
    assert (run / "training.safetensors").read_bytes() == before
    resume(run)
    assert_same_run(run, whole)


def test_row_that_fits_in_part_is_an_error(tmp_path: Path) -> None:
    with MetricsFile(tmp_path) as metrics, largest_file(10), pytest.raises(DiskError, match="No space left"):
        metrics.append({"step": 1000})
    assert (tmp_path / METRICS).read_bytes() == b'{"step": 1'


@dataclass(frozen=True)
class Poisoned(Copy):
    """Its seventh batch is not finite."""

    def sample(self, batch_size: int, *, seed: int, step: int) -> Batch:
        batch = super().sample(batch_size, seed=seed, step=step)
        return batch._replace(inputs=batch.inputs * torch.nan) if step == 6 else batch


def test_non_finite_loss(tmp_path: Path) -> None:
    run = tmp_path / "run"
    task = Poisoned(bits=2, min_length=1, max_length=3)
    sentence = r"loss is nan .* at step 7: training stopped; the checkpoint of step 4 in .*run is intact"
    with pytest.raises(NonFiniteError, match=sentence):
        train(tiny(task=task), run)
    # The copy task of config.json is not poisoned: going on from step 4 ends as a sound run does.
    resume(run)
    assert_same_run(run, uninterrupted(tmp_path / "sound"))


def test_non_finite_loss_before_any_checkpoint(tmp_path: Path) -> None:
    task = Poisoned(bits=2, min_length=1, max_length=3)
    with pytest.raises(NonFiniteError, match="no checkpoint was saved before"):
        train(tiny(task=task, checkpoint_every=100), tmp_path / "run")
    assert not list((tmp_path / "run").glob("*.safetensors"))


def test_run_in_training_is_refused(whole: Path, tmp_path: Path) -> None:
    run = copied(whole, tmp_path / "run")
    with MetricsFile(run), pytest.raises(RunError, match="run is being trained by another process"):
        resume(run, steps=20)
    assert resume(run, steps=20).step == 20


def test_more_steps_continue_the_same_run(tmp_path: Path) -> None:
    # Ends that coincide with evaluations and rows of the longer run leave no rows of their own.
    short = uninterrupted(tmp_path / "short", steps=15)
    resume(short, steps=30)
    assert_same_run(short, uninterrupted(tmp_path / "long", steps=30))


def test_other_optimizers_and_models_resume(tmp_path: Path) -> None:
    changes = {"model": LSTMModel(hidden_size=8, num_layers=2), "optimizer": Optimizer("rmsprop", 1e-3)}
    train(tiny(**changes), tmp_path / "run", At(6, interrupt))
    resume(tmp_path / "run")
    assert_same_run(tmp_path / "run", uninterrupted(tmp_path / "whole", **changes))


class Warned(Reporter):
    def __init__(self) -> None:
        self.sentences: list[str] = []

    def warned(self, sentence: str) -> None:
        self.sentences.append(sentence)


def test_changed_environment_is_warned_of(whole: Path, tmp_path: Path) -> None:
    run = copied(whole, tmp_path / "run")
    data = json.loads((run / "config.json").read_text())
    data["environment"] |= {"torch": "1.0", "threads": 7}
    (run / "config.json").write_text(json.dumps(data))
    listener = Warned()
    resume(run, listener)
    assert [sentence.partition(" and is now")[0] for sentence in listener.sentences] == [
        "the version of torch was '1.0'",
        "the number of threads was 7",
    ]


class Noisy(nn.Module):
    """Draws random numbers whenever it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(3, 2)

    def forward(self, inputs: Tensor) -> tuple[Tensor, None]:
        return self.map(inputs + torch.randn_like(inputs)), None


@dataclass(frozen=True)
class NoisyModel(Model):
    name = "noisy"

    def build(self, spec: Spec) -> nn.Module:
        return Noisy()


def test_random_numbers_of_the_model_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "noisy", NoisyModel)
    train(tiny(model=NoisyModel()), tmp_path / "run", At(6, interrupt))
    resume(tmp_path / "run")
    assert_same_run(tmp_path / "run", uninterrupted(tmp_path / "whole", model=NoisyModel()))


def test_killed_before_it_began(tmp_path: Path) -> None:
    (tmp_path / METRICS).touch()
    (tmp_path / "config.json.tmp").write_text('{"config"')
    assert train(tiny(), tmp_path).status == "finished"
