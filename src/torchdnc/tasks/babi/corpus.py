"""Stories as numbers, and the batches made of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from torchdnc.tasks.babi.sources import Section, Source, place_of, sections
from torchdnc.tasks.babi.text import ANSWER, Sentence, Story
from torchdnc.tasks.base import Batch, random_stream

BLANK = -1
"""In place of a word, at steps to think."""
# Batches whose stories are sorted by length together: enough to pad little, few enough to mix lengths and tasks.
BATCHES_PER_BUCKET = 4


@dataclass(frozen=True, eq=False)
class Corpus:
    """The stories of a split, one after the other."""

    words: np.ndarray
    """[words] int32, places in the vocabulary; `BLANK` at steps without a word."""
    answers: np.ndarray
    """[words] int32: the place of the answer word at each `-`, -1 elsewhere."""
    starts: np.ndarray
    """[stories + 1] int64: where each story begins, and the end of the last."""
    groups: np.ndarray
    """[stories] int64."""

    @property
    def lengths(self) -> np.ndarray:
        """[stories] int64: words of each story."""
        return np.diff(self.starts)

    def batch(self, stories: np.ndarray, vocabulary_size: int) -> Batch:
        """These stories, side by side, one-hot."""
        lengths = self.lengths[stories]
        inside = np.arange(lengths.max())[:, None] < lengths
        t, row = np.nonzero(inside)
        place = self.starts[stories][row] + t
        words, answers = np.full(inside.shape, BLANK), np.full(inside.shape, -1, np.int64)
        words[t, row], answers[t, row] = self.words[place], self.answers[place]
        arrays = (one_hot(words, vocabulary_size), answers.clip(0), answers >= 0, lengths, self.groups[stories])
        return Batch(*(torch.from_numpy(array) for array in arrays))


def one_hot(words: np.ndarray, size: int) -> np.ndarray:
    """[*, size] float32 of places in a vocabulary of that size, [*]; zeros at a `BLANK`."""
    inputs = np.zeros((*words.shape, size), np.float32)
    said = words != BLANK
    inputs[said, words[said]] = 1
    return inputs


@lru_cache(maxsize=8)
def corpus(source: Source, split: str, vocabulary: tuple[str, ...], max_words: int = 0, think_steps: int = 0) -> Corpus:
    """The stories of a split as numbers, each `shortened` to `max_words`, with so many blanks before each answer.

    Raises:
        FileNotFoundError: see `sections`.
        ValueError: see `sections`; or the split has no stories, or a word is not in the vocabulary.
    """
    index = {word: place for place, word in enumerate(vocabulary)}
    parts = sections(source, split)
    stories = [shortened(story, max_words) for part in parts for story in part.stories]
    if not stories:
        raise ValueError(f"the {split} split must have stories, got none; give more text or {split}_files")
    for part in parts:
        _check_words(part, index)
    groups = np.repeat([part.group for part in parts], [len(part.stories) for part in parts])
    return encoded(stories, groups, index, think_steps)


def encoded(
    stories: Sequence[Story | Sentence], groups: np.ndarray, index: Mapping[str, int], think_steps: int
) -> Corpus:
    """Stories, or the sentences of one, as numbers, with so many blanks before each answer."""
    words = np.array([index[word] for story in stories for word in story.words], np.int32)
    answers = np.full(len(words), -1, np.int32)
    answers[words == index[ANSWER]] = [index[word] for story in stories for word in story.answers]
    starts = np.cumsum([0, *(len(story.words) for story in stories)])
    return _with_blanks(Corpus(words, answers, starts, groups), think_steps)


def _with_blanks(stories: Corpus, think_steps: int) -> Corpus:
    """So many steps without a word between each question and its answer."""
    asked = stories.answers >= 0
    # A question comes before an answer: no story begins with one.
    begins = np.flatnonzero(asked & ~np.roll(asked, 1))
    places = np.repeat(begins, think_steps)
    return Corpus(
        words=np.insert(stories.words, places, BLANK),
        answers=np.insert(stories.answers, places, -1),
        starts=stories.starts + think_steps * np.searchsorted(begins, stories.starts),
        groups=stories.groups,
    )


def _check_words(section: Section, index: dict[str, int]) -> None:
    for story in section.stories:
        for word in story.words + story.answers:
            if word not in index:
                raise ValueError(
                    f'{place_of(word, section)}: "{word}" is not one of the {len(index)} words of the vocabulary'
                )


def shortened(story: Story, max_words: int) -> Story:
    """The story up to its last question that ends within `max_words` words (0: all), but at least one."""
    if max_words == 0 or len(story.words) <= max_words:
        return story
    ends = [end for end in range(1, len(story.words)) if story.words[end - 1] == ANSWER != story.words[end]]
    end = max((end for end in ends if end <= max_words), default=(*ends, len(story.words))[0])
    words = story.words[:end]
    return Story(words, story.answers[: words.count(ANSWER)])


def training_rows(stories: Corpus, batch_size: int, *, seed: int, step: int) -> np.ndarray:
    """The stories of a training step; each is seen once an epoch, beside others of about its length."""
    epoch, index = divmod(step, math.ceil(len(stories.groups) / batch_size))
    return _epoch(stories, batch_size, seed, epoch)[index]


@lru_cache(maxsize=4)
def _epoch(stories: Corpus, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    rng, total = random_stream("train", seed, epoch), len(stories.groups)
    count = math.ceil(total / batch_size)
    ends = np.arange(1, count + 1) * total // count
    bucket = np.searchsorted(ends, np.arange(total), side="right") // BATCHES_PER_BUCKET
    order = rng.permutation(total)
    order = order[np.lexsort((stories.lengths[order], bucket))]
    batches = np.split(order, ends[:-1])
    return [batches[i] for i in rng.permutation(count)]
