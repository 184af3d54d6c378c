"""A run says once that its memory loses writes."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from torchdnc import DNC
from torchdnc.tasks import Copy
from torchdnc.training import Reporter, RunConfig, train
from torchdnc.training.models import DNCModel, LSTMModel
from torchdnc.training.pressure import full_memory
from torchdnc.types import MemoryOptions

TASK = Copy(bits=3, min_length=8, max_length=8)


def writing(memory_size: int, options: MemoryOptions) -> DNC:
    """A DNC that writes to a fresh slot at every step, and frees none."""
    spec = TASK.spec
    model = DNC(spec.input_size, 6, spec.output_size, memory_size=memory_size, word_size=4, options=options)
    gates = 4 + 1 + 4 + 1 + 4 + 4
    with torch.no_grad():
        model.interface.weight.zero_()
        model.interface.bias[gates] = -9
        model.interface.bias[gates + 1 : gates + 3] = 9
    return model


def test_a_memory_that_loses_writes_is_told_with_the_remedy() -> None:
    # 17 steps, each of which writes.
    sentence = full_memory(writing(5, MemoryOptions()), TASK, 0) or ""
    assert sentence.startswith("the memory of 5 slots is full: of the writes of a sequence 1")
    assert 'more slots would keep them, or the model option overflow "grow" or "reclaim"' in sentence


@pytest.mark.parametrize(
    ("slots", "options"),
    [
        (20, MemoryOptions()),
        (5, MemoryOptions(overflow="reclaim")),
        (5, MemoryOptions(overflow="grow", max_memory_size=20)),
    ],
)
def test_a_memory_that_loses_none_is_not_told(slots: int, options: MemoryOptions) -> None:
    assert full_memory(writing(slots, options), TASK, 0) is None


class Heard(Reporter):
    def __init__(self) -> None:
        self.sentences: list[str] = []

    def warned(self, sentence: str) -> None:
        self.sentences.append(sentence)


def test_a_run_says_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = Heard()
    config = RunConfig(TASK, DNCModel(8, 2, 4, 1), batch_size=2, steps=4, eval_every=1, eval_sequences=2, log_every=1)
    monkeypatch.setattr("torchdnc.training.pressure.LOST", 0.0)
    train(config, tmp_path / "dnc", heard)
    assert len(heard.sentences) == 1
    train(replace(config, model=LSTMModel(8)), tmp_path / "lstm", heard)
    assert len(heard.sentences) == 1
