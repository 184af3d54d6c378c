"""Which stories make up a split: the official files of the tasks chosen, or a user's own."""

from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

from torchdnc.tasks.babi import task3
from torchdnc.tasks.babi.text import ANSWER, Story, line_of, parse_stories, read_stories, read_text

Edition = Literal["en", "en-10k"]
StandIn = Literal["partial", "generated", "both"]
PARTIAL_TASK = 3
PARTIAL = Path("en-10k-partial", "qa3_three-supporting-facts_train.partial.txt")
"""Beside the official folder: what there is of the one training file that copies of the data tend to lack."""
GENERATED = Path("the generated stories of task 3")
"""Stands for a file of them; there is none."""

OWN_TEXT = 0
"""The group of stories from a user's files; those of an official task have its number."""

# en-10k has published validation files; of other text every tenth story is held out, the paper's share.
HELD_OUT = slice(9, None, 10)


class Source(NamedTuple):
    """Where stories come from: a user's files, or where there are none the official tasks in a folder."""

    folder: Path
    edition: Edition
    tasks: tuple[int, ...]
    train_files: tuple[Path, ...]
    valid_files: tuple[Path, ...]
    test_files: tuple[Path, ...]
    task3: StandIn = "partial"


class Section(NamedTuple):
    """Stories of one file."""

    path: Path
    """Or `GENERATED`."""
    group: int
    stories: tuple[Story, ...]


@lru_cache(maxsize=16)
def sections(source: Source, split: str) -> tuple[Section, ...]:
    """The files of a split ("train", "valid" or "test") and the stories that it takes from each.

    Raises:
        FileNotFoundError: a file is absent; says what to do.
        ValueError: a file is malformed, or there is training text of a user's own and no test text.
    """
    own = {"train": source.train_files, "valid": source.valid_files, "test": source.test_files}
    if own[split] and (split != "train" or source.valid_files):
        return tuple(_whole(path, OWN_TEXT) for path in own[split])
    if own["train"] and split == "test":
        raise ValueError("test_files must be given to test on text like that of train_files, got none")
    if own["train"]:
        pairs = [_divide(path, None, OWN_TEXT) for path in own["train"]]
    elif split == "test":
        return tuple(_whole(_official(source, task, "test"), task) for task in source.tasks)
    else:
        files = [(path, task) for task in source.tasks for path in _training_files(source, task)]
        if split == "valid":
            # Files of one task have their validation stories in common.
            files = list({task: (path, task) for path, task in files}.values())
        pairs = [_divide(path, _valid_file(source, task), task) for path, task in files]
    return tuple(valid if split == "valid" else train for train, valid in pairs)


@lru_cache(maxsize=16)
def words_of(source: Source) -> tuple[str, ...]:
    """Every word of every split, and `-`, in alphabetical order."""
    splits = ["train", "valid", "test"] if source.test_files or not source.train_files else ["train", "valid"]
    stories = [story for split in splits for section in sections(source, split) for story in section.stories]
    return tuple(sorted({ANSWER}.union(*(story.words + story.answers for story in stories))))


def stand_ins(source: Source) -> tuple[Path, ...]:
    """What stands in for the full training file of task 3, where that is wanted and absent; () if that is too."""
    official = source.edition == "en-10k" and PARTIAL_TASK in source.tasks and not source.train_files
    if not official or _find(source.folder / source.edition, f"qa{PARTIAL_TASK}_*_train.txt"):
        return ()
    partial = source.folder.parent / PARTIAL
    chosen = {"partial": (partial,), "generated": (GENERATED,), "both": (partial, GENERATED)}[source.task3]
    return chosen if partial not in chosen or partial.is_file() else ()


def place_of(word: str, section: Section) -> str:
    """Where in the text of a section this word is."""
    text = task3.generated() if section.path == GENERATED else read_text(section.path)
    return f"{section.path}, line {line_of(word, text, section.path)}"


def _training_files(source: Source, task: int) -> tuple[Path, ...]:
    others = stand_ins(source) if task == PARTIAL_TASK else ()
    return others or (_official(source, task, "train"),)


def _valid_file(source: Source, task: int) -> Path | None:
    if source.edition == "en":
        return None
    return _required(source.folder / "en-valid-10k", f"qa{task}_valid.txt")


def _official(source: Source, task: int, split: str) -> Path:
    return _required(source.folder / source.edition, f"qa{task}_*_{split}.txt")


def _required(folder: Path, pattern: str) -> Path:
    found = _find(folder, pattern)
    if found is None:
        raise FileNotFoundError(
            f"there is no {pattern} in {folder}: fetch it with `torchdnc data babi`, or name the folder that "
            "holds it with --data-dir or TORCHDNC_DATA"
        )
    return found


def _find(folder: Path, pattern: str) -> Path | None:
    return next(iter(sorted(folder.glob(pattern))), None)


def _whole(path: Path, group: int) -> Section:
    return Section(path, group, _stories(path))


@lru_cache(maxsize=1)
def _generated_stories() -> tuple[Story, ...]:
    return parse_stories(task3.generated(), GENERATED)


def _stories(path: Path) -> tuple[Story, ...]:
    return _generated_stories() if path == GENERATED else read_stories(path)


def _divide(path: Path, valid_path: Path | None, group: int) -> tuple[Section, Section]:
    """The training stories without those of the same content held out for validation, and these."""
    stories = _stories(path)
    valid = Section(path, group, stories[HELD_OUT]) if valid_path is None else _whole(valid_path, group)
    held_out = set(valid.stories)
    return Section(path, group, tuple(story for story in stories if story not in held_out)), valid
