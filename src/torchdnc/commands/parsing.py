"""Arguments from the command line, and refusing bad ones."""

import contextlib
import io
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

import tyro

T = TypeVar("T")

# A recipe has chosen the kinds of task and model: their options are listed at once, not as subcommands.
CONFIG = (tyro.conf.AvoidSubcommands,)


class RefusedError(Exception):
    """A bad argument; its message is a sentence."""


@contextlib.contextmanager
def refusing(still: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """Turn the errors of bad arguments into a refusal, while `still` says that they can be that."""
    try:
        yield
    except (ValueError, TypeError, FileNotFoundError) as error:
        if not still():
            raise
        raise RefusedError(str(error)) from error


def parse(kind: Callable[..., T], prog: str, arguments: Sequence[str], default: Any = None) -> T:
    """The arguments as a dataclass; raises RefusedError with tyro's complaint as one sentence."""
    given: dict[str, Any] = {} if default is None else {"default": default}
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return cast(T, tyro.cli(kind, prog=prog, args=arguments, config=CONFIG, **given))
    except SystemExit as end:
        if end.code in (0, None):
            raise
        raise RefusedError(f"{_sentence(complaint.getvalue())}; see {prog} --help") from end
    except ValueError as error:
        raise RefusedError(str(error)) from error


def _sentence(box: str) -> str:
    """The first paragraph below the title of tyro's message, which has a frame only if stdout is UTF-8."""
    lines = [line.strip("│ ") for line in box.splitlines()[1:]]
    paragraphs = itertools.groupby(lines, lambda line: line.strip("─-") != "")
    text = next((" ".join(words) for is_text, words in paragraphs if is_text), box).rstrip(".")
    # The checks of settings name the setting; tyro's prefix would name our own fields.
    return re.sub(r"^Error parsing [a-z]\S*: ", "", text)
