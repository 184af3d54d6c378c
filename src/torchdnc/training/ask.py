"""A trained run that is asked about a story."""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

import torch

from torchdnc.inspector.attribution import read_shares
from torchdnc.nn import DNC
from torchdnc.tasks import BAbI
from torchdnc.tasks.babi.text import Sentence, typed
from torchdnc.training.evaluate import load_run
from torchdnc.training.picture import weightings_of

ENDS = (".", "?")


class Answer(NamedTuple):
    """What a model says at the end of a story."""

    words: tuple[str, ...]
    """The likeliest word at each step at which one is due."""
    probability: float
    """Of these words together."""
    read: tuple[float, ...] | None
    """For each line of the story, its share in what was read for the answer; None of a model that is no DNC."""


class Asker:
    """A trained run of the task babi.

    Raises:
        ValueError: there is no such run, it was never saved, or it learned another task.
    """

    def __init__(self, run_dir: Path) -> None:
        config, self.model = load_run(run_dir)
        if not isinstance(config.task, BAbI):
            raise ValueError(
                f"{run_dir} must hold a model that was trained on babi, got one trained on {config.task.name}"
            )
        self.task = config.task
        self.kind = config.model.name

    @property
    def tells_what_it_read(self) -> bool:
        """Whether an answer says which lines were read for it."""
        return isinstance(self.model, DNC)

    def line(self, text: str, answer_words: int = 1) -> tuple[bool, Sentence]:
        """A line as it is typed; see `typed`. A full stop is added where the end of a sentence lacks it.

        Raises:
            ValueError: there is nothing in it, or a word that the model does not know.
        """
        begins, (words, answers) = typed(text, answer_words)
        if not answers and words[-1] not in ENDS and "." in self.task.vocabulary:
            words = (*words, ".")
        for word in words:
            if word not in self.task.vocabulary:
                near = get_close_matches(word, self.task.vocabulary)
                hint = f"; near ones are {', '.join(near)}" if near else ""
                raise ValueError(f'"{word}" is not a word that the model knows{hint}')
        return begins, Sentence(words, answers)

    @torch.no_grad()
    def answer(self, story: Sequence[Sentence]) -> Answer:
        """The answer to the question that the last line asks."""
        inputs, lines = self.task.encode(story)
        due = len(story[-1].answers)
        read = None
        if isinstance(self.model, DNC):
            outputs, states = self.model.trace(inputs)
            asking = torch.arange(len(inputs)) >= len(inputs) - due - self.task.think_steps
            read = tuple(read_shares(*weightings_of(states), lines, asking).tolist())
        else:
            outputs, _ = self.model(inputs)
        likeliest = outputs[-due:].softmax(-1).max(-1)
        words = tuple(self.task.vocabulary[place] for place in likeliest.indices.tolist())
        return Answer(words, float(likeliest.values.prod()), read)
