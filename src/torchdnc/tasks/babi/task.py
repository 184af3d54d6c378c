"""Question answering on bAbI, word by word (Graves et al. 2016, Nature 538, Methods)."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import ClassVar, Self, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from torchdnc.checks import check_choice, check_size
from torchdnc.tasks.babi.corpus import corpus, training_rows
from torchdnc.tasks.babi.sources import OWN_TEXT, Edition, Source, sections, stand_in, words_of
from torchdnc.tasks.babi.text import ANSWER
from torchdnc.tasks.base import SPLITS, Batch, Spec, Split, Task, Totals, masked
from torchdnc.tasks.data import babi_folder

BLANK_SHOWN = "_"
"""What a step without a word looks like."""
FAILED_ABOVE = 0.05
"""Share of wrong questions above which a task counts as failed."""


@dataclass(frozen=True)
class BAbI(Task):
    """Read a story word by word and answer its questions where they stand.

    A story is one sequence; words are lower-cased, and `.` and `?` are words. After a question the input is
    `-` once for each word of the answer; these steps alone count. A question is right if all its words are.

        input   mary went to the kitchen . where is mary ? -
        target                                             kitchen
    """

    name: ClassVar[str] = "babi"

    tasks: tuple[int, ...] = tuple(range(1, 21))
    """Which of the 20 tasks to learn jointly; a story does not tell its task."""
    edition: Edition = "en-10k"
    """10,000 training questions for each task, or 1,000 ("en"); the test questions are the same."""
    data_dir: Path | None = None
    """Folder that holds `babi`; else $TORCHDNC_DATA, else torchdnc in the user's cache folder."""
    train_files: tuple[Path, ...] = ()
    """Text of one's own in the bAbI format, to train on instead of the tasks."""
    valid_files: tuple[Path, ...] = ()
    """Text to validate on instead; without it, every tenth story of train_files."""
    test_files: tuple[Path, ...] = ()
    """Text to test on instead."""
    max_words: int = 0
    """Training stories longer than this are cut behind a question; 0 leaves them whole."""
    think_steps: int = 0
    """Steps without a word between each question and its answer, for the memory to be read."""
    vocabulary: tuple[str, ...] = ()
    """The words that inputs and outputs stand for, `-` among them; taken from the data if empty."""

    def __post_init__(self) -> None:
        check_size("max_words", self.max_words, least=0)
        check_size("think_steps", self.think_steps, least=0)
        for field in ("tasks", "train_files", "valid_files", "test_files", "vocabulary"):
            if not isinstance(getattr(self, field), tuple):
                raise TypeError(f"{field} must be a tuple, got {getattr(self, field)!r}")
        if not self.tasks or len(set(self.tasks)) < len(self.tasks) or set(self.tasks) - set(range(1, 21)):
            raise ValueError(f"tasks must be different numbers from 1 to 20, got {self.tasks}")
        check_choice("edition", self.edition, get_args(Edition))
        words = set(self.vocabulary)
        if words and (len(words) < len(self.vocabulary) or ANSWER not in words):
            raise ValueError(f'vocabulary must be different words and "{ANSWER}", got {self.vocabulary}')

    @property
    def source(self) -> Source:
        """Where the stories come from."""
        folder = babi_folder(self.data_dir)
        own = (tuple(map(Path, files)) for files in (self.train_files, self.valid_files, self.test_files))
        return Source(folder, self.edition, self.tasks, *own)

    @property
    def spec(self) -> Spec:
        size = len(self.resolved().vocabulary)
        return Spec(size, size)

    def resolved(self) -> Self:
        """The same task with its vocabulary filled in."""
        return self if self.vocabulary else replace(self, vocabulary=words_of(self.source))

    def notes(self) -> tuple[str, ...]:
        source = self.source
        if not (part := stand_in(source)):
            return ()
        count = sum(len(section.stories) for section in sections(source, "train") if section.path == part)
        return (
            f"task 3 trains on {count:,} stories of the incomplete copy {part}, since its full training file "
            f"is not in {source.folder}; `torchdnc data babi` fetches it.",
        )

    def sample(self, batch_size: int, *, seed: int, step: int) -> Batch:
        """The training stories of a step; each is seen once an epoch, beside others of about its length.

        The batches of an epoch have batch_size stories or one less.
        """
        check_size("batch_size", batch_size)
        check_size("seed", seed, least=0)
        check_size("step", step, least=0)
        words = self.resolved().vocabulary
        stories = corpus(self.source, "train", words, self.max_words, self.think_steps)
        return stories.batch(training_rows(stories, batch_size, seed=seed, step=step), len(words))

    def evaluation(
        self, split: Split, *, batch_size: int, sequences: int | None = None, seed: int = 0
    ) -> Iterator[Batch]:
        """The whole split in order, or `sequences` stories at even distances in it; no seed matters."""
        check_choice("split", split, SPLITS)
        check_size("batch_size", batch_size)
        words = self.resolved().vocabulary
        stories = corpus(self.source, split, words, think_steps=self.think_steps)
        count = len(stories.groups)
        if sequences is not None:
            check_size("sequences", sequences)
            count = min(count, sequences)
        chosen = np.arange(count) * len(stories.groups) // count
        starts = range(0, count, batch_size)
        return (stories.batch(chosen[start : start + batch_size], len(words)) for start in starts)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Mean of -ln softmax(output)[answer word] over the `-` steps."""
        return F.cross_entropy(masked(outputs, batch), batch.targets[batch.mask])

    def score(self, outputs: Tensor, batch: Batch) -> Totals:
        """Wrong questions and questions of each task."""
        right = (outputs.argmax(-1) == batch.targets) & ~outputs.isnan().any(-1)
        wrong, row = wrong_questions(right, batch.mask)
        groups = batch.groups[row]
        return {
            f"error/{group_name(group)}": (
                float(wrong[groups == group].sum()),
                float((groups == group).sum()),
            )
            for group in groups.unique().tolist()
        }

    def summary(self, totals: Totals) -> dict[str, float]:
        """Each task's share of wrong questions, their unweighted mean, and how many tasks fail (above 5%)."""
        errors = super().summary(totals)
        failed = sum(error > FAILED_ABOVE for error in errors.values())
        return errors | {"mean_error": sum(errors.values()) / len(errors), "failed_tasks": float(failed)}

    def with_length(self, length: int) -> Self:
        raise ValueError(f"the stories of {self.name} have the lengths they have: none can be set, got {length}")

    def render(self, batch: Batch, outputs: Tensor | None = None, row: int = 0) -> str:
        """A line per sentence; behind a question its answer and, if given, the model's."""
        length, words = int(batch.lengths[row]), self.resolved().vocabulary
        inputs = batch.inputs[:length, row]
        said = [
            words[i] if any_word else BLANK_SHOWN for i, any_word in zip(inputs.argmax(-1), inputs.any(-1), strict=True)
        ]
        right = [words[i] for i in batch.targets[:length, row]]
        given = None if outputs is None else [words[i] for i in outputs[:length, row].argmax(-1)]
        text = f"{group_name(int(batch.groups[row]))}, {length} words\n"
        for asked, run in groupby(range(length), key=batch.mask[:, row].tolist().__getitem__):
            steps = list(run)
            if asked:
                text += f" -> {_answer(right, given, steps)}\n"
            else:
                text += " ".join(said[t] for t in steps).replace(" . ", " .\n")
        return text.rstrip()


def _answer(right: list[str], given: list[str] | None, steps: list[int]) -> str:
    answer = " ".join(right[t] for t in steps)
    if given is None:
        return answer
    guess = " ".join(given[t] for t in steps)
    return f"{answer}, model: {guess}{'' if guess == answer else '  x'}"


def group_name(group: int) -> str:
    """What rows of this group are called in scores."""
    return "own text" if group == OWN_TEXT else f"task {group}"


def wrong_questions(right: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Whether any word of each question's answer is wrong, and the question's row.

    Args:
        right: [T, B] bool, read only where the mask is set.
        mask: [T, B] bool; the answer of a question is a run of set steps.

    Returns:
        Two tensors [questions], bool and int64.
    """
    asked = mask.T
    begins = asked & ~F.pad(asked[:, :-1], (1, 0))
    question = begins.flatten().cumsum(0)[asked.flatten()] - 1
    row = begins.nonzero()[:, 0]
    wrong_words = torch.zeros_like(row).index_add(0, question, (~right.T[asked]).long())
    return wrong_words > 0, row
