"""Text in the bAbI format, read into stories of one word per step."""

import re
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

ANSWER = "-"
"""The input word at each step at which an answer word is due."""


class Story(NamedTuple):
    """A sequence of words; equal stories have equal content."""

    words: tuple[str, ...]
    """One per step, lower-cased, with one `-` per answer word."""
    answers: tuple[str, ...]
    """The answer word of each `-`."""


class Sentence(NamedTuple):
    """A line of text, its words as they stand in a story."""

    words: tuple[str, ...]
    answers: tuple[str, ...]


@cache
def read_stories(path: Path) -> tuple[Story, ...]:
    """The stories of a text file, which is read once per process; raises FileNotFoundError, and as `parse_stories`."""
    return parse_stories(read_text(path), path)


def parse_stories(text: str, name: Path) -> tuple[Story, ...]:
    """The stories of a text in the bAbI format, which errors name.

    A line is `number text` or `number question<TAB>answer`, the latter often with `<TAB>supporting lines`
    behind; number 1 begins a story. The words of an answer stand apart by commas or blanks. Blank lines
    mean nothing.

    Raises:
        ValueError: a line is not of this form, or a story has no question; names the text and the line.
    """
    drafts: list[tuple[int, list[str], list[str]]] = []
    for at, number, sentence in _sentences(text, name):
        if number == 1:
            drafts.append((at, [], []))
        drafts[-1][1].extend(sentence.words)
        drafts[-1][2].extend(sentence.answers)
    for at, _, answers in drafts:
        if not answers:
            raise ValueError(f"{name}, line {at}: the story that begins here has no question")
    if not drafts:
        raise ValueError(f"{name} holds no story")
    return tuple(Story(tuple(words), tuple(answers)) for _, words, answers in drafts)


def line_of(word: str, text: str, name: Path) -> int:
    """The first line of a text that has this word in a sentence or an answer."""
    return next(at for at, _, sentence in _sentences(text, name) if word in sentence.words + sentence.answers)


def _sentences(text: str, name: Path) -> Iterator[tuple[int, int, Sentence]]:
    """Line in the text, number in the story, and sentence."""
    previous = 0
    for at, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                previous, sentence = _numbered(line, previous)
            except ValueError as error:
                raise ValueError(f"{name}, line {at}: {error}") from None
            yield at, previous, sentence


def read_text(path: Path) -> str:
    """The text of a file; raises FileNotFoundError if there is none, ValueError if it is not in UTF-8."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be text in UTF-8, got {error}") from None


def _numbered(line: str, previous: int) -> tuple[int, Sentence]:
    digits, _, rest = line.partition(" ")
    if not digits.isdecimal():
        raise ValueError(f'a line must begin with its number in the story and a blank, got "{line}"')
    number = int(digits)
    if number not in (1, previous + 1):
        raise ValueError(f"the number must be 1 or follow the number before, {previous}, got {number}")
    text, *behind = rest.split("\t")
    if len(behind) > 2:
        raise ValueError(f'a line must have at most two tabs (before the answer and after it), got "{line}"')
    return number, _sentence(text, behind[0] if behind else None)


def typed(line: str, answer_words: int) -> tuple[bool, Sentence]:
    """A line that is typed: `text`, or one of the bAbI format, see `parse_stories`.

    A question is a line that ends in "?" or has an answer behind it. What is right is not asked here: its answers are a
    `-` each, as many as the answer behind it has words, else `answer_words`.

    Returns:
        whether its number is 1, and the sentence.
    Raises:
        ValueError: there is no word in it, or a "-".
    """
    number, rest = re.fullmatch(r"\s*(\d+(?=\s))?(.*)", line, re.DOTALL).groups()  # type: ignore[union-attr]
    text, *behind = rest.split("\t")
    sentence = _sentence(text, behind[0] if behind else None)
    due = len(sentence.answers) or (answer_words if sentence.words[-1] == "?" else 0)
    words = sentence.words[: len(sentence.words) - len(sentence.answers)]
    return number == "1", Sentence((*words, *[ANSWER] * due), (ANSWER,) * due)


# A few thousand sentences make up all of bAbI's million lines.
@lru_cache(maxsize=1 << 16)
def _sentence(text: str, answer: str | None) -> Sentence:
    words = re.findall(r"[.?]|[^\s.?]+", text.lower())
    if not words or ANSWER in words:
        raise ValueError(f'a sentence must have words, none of them "{ANSWER}", got "{text}"')
    if answer is None:
        return Sentence(tuple(words), ())
    answers = re.findall(r"[^\s,]+", answer.lower())
    if not answers or ANSWER in answers:
        raise ValueError(f'an answer must have words, none of them "{ANSWER}", got "{answer}"')
    return Sentence((*words, *[ANSWER] * len(answers)), tuple(answers))
