"""torchdnc ask."""

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from torchdnc.checks import check_size
from torchdnc.commands.parsing import RefusedError, parse, refusing
from torchdnc.tasks.babi.text import Sentence, read_text
from torchdnc.training.ask import Answer, Asker

SHOWN = 3
"""Lines of a story that are shown as read, at most."""

Story = tuple[Sentence, ...]


@dataclass(frozen=True)
class AskArguments:
    """Tell a model that was trained on bAbI a story, ask, and see what it read for its answer.

    A line that ends in "?" is a question about the story so far; every other is a sentence of it. An empty line begins
    a new story. The numbers of the bAbI format are ignored, except that 1 begins a new story, and so is what follows a
    tab, except that the answer has as many words as stand there. Ctrl-D ends.

    Below an answer and its probability stand the lines read for it: a line's share in what the read heads saw from the
    end of the question on, its number in the story, and the line.

    For example:
      torchdnc ask runs/babi
      torchdnc ask runs/babi story.txt
      torchdnc ask runs/babi --json < story.txt
    """

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run, or any with its config.json and model.safetensors."""
    story: Annotated[Path | None, tyro.conf.Positional] = None
    """Text to read instead of what is typed or piped in."""
    words: int = 1
    """Words of an answer, for questions whose answer is a list."""
    json: bool = False
    """Print a line of JSON for each answer, with the share of every line of its story."""


def ask_command(arguments: list[str]) -> int:
    """Tell a bAbI model a story, ask, and see what it read for its answer."""
    given = parse(AskArguments, "torchdnc ask", arguments)
    with refusing():
        check_size("words", given.words)
        asker = Asker(given.run)
    if given.story is None and sys.stdin.isatty():
        _note(asker)
        with suppress(EOFError, KeyboardInterrupt):
            _converse(asker, given)
        print()
        return 0
    with refusing():
        text = sys.stdin.read() if given.story is None else read_text(given.story)
        # Everything is read before anything is answered.
        asked = list(_questions(asker, text.split("\n"), given.words, str(given.story or "the input")))
    if not asked:
        raise RefusedError(f'{given.story or "the input"} must have a question, a line that ends in "?", and has none')
    _note(asker)
    for story in asked:
        if not given.json:
            print(_said(story[-1]))
        _print(asker.answer(story), story, given.json)
    return 0


def _note(asker: Asker) -> None:
    if not asker.tells_what_it_read:
        print(
            f"note: what was read for an answer is told of a DNC alone, and this is a model of kind {asker.kind}",
            file=sys.stderr,
        )


def _questions(asker: Asker, lines: Iterable[str], words: int, name: str) -> Iterator[Story]:
    """The stories up to each of their questions."""
    story: Story = ()
    for at, line in enumerate(lines, 1):
        try:
            story = _continued(asker, story, line, words)
        except ValueError as error:
            raise ValueError(f"{name}, line {at}: {error}") from None
        if story and story[-1].answers:
            yield story


def _continued(asker: Asker, story: Story, line: str, words: int) -> Story:
    """The story with one more line, or a new one."""
    if not line.strip():
        return ()
    begins, sentence = asker.line(line, words)
    return (sentence,) if begins else (*story, sentence)


def _converse(asker: Asker, given: AskArguments) -> None:
    """Answers what is typed, until the input ends."""
    with suppress(ImportError):
        import readline  # noqa: F401  the keys that edit a line work
    story: Story = ()
    while True:
        try:
            story = _continued(asker, story, input(f"{len(story) + 1} "), given.words)
        except ValueError as error:
            print(f"{error}; the line was left out")
            continue
        if story and story[-1].answers:
            _print(asker.answer(story), story, given.json)


def _print(answer: Answer, story: Story, as_json: bool) -> None:
    read = sorted(enumerate(answer.read or (), 1), key=lambda line: -line[1])
    lines = [{"share": share, "line": number, "sentence": _said(story[number - 1])} for number, share in read]
    if as_json:
        row = {"question": _said(story[-1]), "answer": answer.words, "probability": answer.probability}
        print(json.dumps(row | {"read": None if answer.read is None else lines}), flush=True)
        return
    print(f"{' '.join(answer.words)}  {answer.probability:.0%}")
    for line in lines[:SHOWN]:
        print(f"{line['share']:6.0%}  {line['line']}  {line['sentence']}")
    sys.stdout.flush()


def _said(sentence: Sentence) -> str:
    """The words of a line without the places of its answer."""
    return " ".join(sentence.words[: len(sentence.words) - len(sentence.answers)])
