"""docs/why-it-scales.md: the four questions, answered by what the studies found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from torchdnc.bench.text import prose
from torchdnc.studies import STUDIES


class Question(NamedTuple):
    """What is asked, what the equations say of it, and the studies that measure it."""

    asked: str
    said: str
    studies: tuple[str, ...]


HEAD = """# Why it scales

Written by `python benchmarks/pages.py`: every number below is of the study that is linked, which one command makes
again. Of each, the equations say something and the measurements the rest.
"""
QUESTIONS = (
    Question(
        "Why does it scale? Does the controller drown in addresses?",
        """An LSTM keeps what it knows in activations. A DNC would be no better off if it kept the addresses of its
        slots there. It never sees one: look-ups by content, allocation and links treat all slots alike,
        ties aside, so that with the slots numbered in another way every read word, and with it
        everything that the controller does, is the same. A slot is found again by what it holds, by when
        it was written, or by being free; what grows with the items is the memory, and no parameter
        depends on its size.""",
        ("addresses", "resize", "scale"),
    ),
    Question(
        "How does it relate to an LSTM?",
        """An LSTM's cell is s = f s + i g, h = o tanh(s): i says what is written, f what is kept, o what is seen. A
        DNC's memory is M = M ∘ (1 − w eᵀ) + w vᵀ, r = Mᵀ w^r: the write weighting w stands where i does,
        1 − w eᵀ where f does, the read weighting w^r where o does. But an LSTM has one gate for every
        unit at every step, while w sums to at most 1 and can be about 0 almost everywhere: what is not
        written to is kept whole, however long. A network for every gate, the super-LSTM, decides by more
        than a linear map, about the same cells.""",
        ("retention",),
    ),
    Question(
        "Are the temporal links worth it?",
        """Links say what was written next; content says what is like. Where each item brings its key, content
        suffices; where order alone tells what is next, a controller without links has to make an order
        of its own, for instance by counting.""",
        ("links",),
    ),
    Question(
        "What happens when it runs out of memory?",
        """A write to fresh slots can place 1 − Π u of itself: when every usage is 1, nothing. [When the memory is
        full](full-memory.md) has what each policy guarantees.""",
        ("full", "reuse"),
    ),
)


def describe(records: Mapping[str, dict[str, Any]]) -> Iterator[str]:
    """The page from the records of studies by name; a study that was not done is said to be missing."""
    yield HEAD
    for question in QUESTIONS:
        yield f"## {question.asked}\n\n{prose(question.said)}\n"
        for name in question.studies:
            if name in records:
                yield f"**[{STUDIES[name].question}](studies/{name}.md)**\n\n{_answer(name, records[name])}\n"
            else:
                yield f"`torchdnc study {name}` was not done yet: there is no answer to *{STUDIES[name].question}*\n"


def _answer(name: str, record: dict[str, Any]) -> str:
    return prose(STUDIES[name].answer(record["found"])) + f"\n\n![{STUDIES[name].question}](studies/{name}.png)"
