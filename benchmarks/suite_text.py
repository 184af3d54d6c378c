"""What benchmarks/suite.py found, in words and tables."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from typing import Any

from torchdnc.bench.text import NONE, number, prose, table

HEAD = """## Models on the tasks of Neural Turing Machines

Every run is bounded in time and stops earlier once its task is solved: what is not solved was not solved in that time
on this machine, which is a statement about speed as much as about the model. DNC and sparse memories run on compiled
kernels, the others in plain PyTorch. *dnc-variant* normalises its interface, wipes what is freed, and looks up what
was written alone. Tables of names that end in *-sparse* compare the sparse memories with the DNC: *sam* without links,
*sdnc* with them; both read 4 slots with every head, normalise their interface, and are in no figure. Hidden sizes give
every model as many parameters as the DNC has, to within 2%; memories are of 128 slots of 20 numbers; all are trained
by Adam on one thread, in batches of 16. *bits* is the cross-entropy in bits per sequence on 1000 test sequences;
*sequences* and *seconds* are what training took. Numbers are medians over the seeds, with least and most in brackets.
*paper* is what Graves et al. (2014) report, most of it read off their figures: by RMSProp, after up to a million
sequences. Their LSTMs have three layers and 1.4 to 80 times as many parameters as their NTM, which here is the one
with an LSTM controller. Of n-grams the first 5 bits, which nobody can predict, are not counted here, and taken off the
paper's numbers.
"""
RATES_HEAD = """### How the learning rates were chosen

Trials on copy, one seed each, by which each kind of model got its rate; the sparse memories have that of the recipe
`recall-sam`.
"""
PAPER: dict[str, dict[str, str]] = {
    "copy": {"lstm": "0.5 after 1M sequences", "ntm": "0 by 100k sequences"},
    "repeat-copy": {"lstm": "0", "ntm": "0"},
    "associative-recall": {"lstm": "not solved by 1M sequences", "ntm": "0 by 30k sequences"},
    "ngrams": {"lstm": "131", "ntm": "128.5"},
    "priority-sort": {"lstm": "58 at 1M sequences", "ntm": "18 to 20 at 1M sequences"},
}
"""Task -> contender -> bits per sequence, all about; of n-grams without the first 5, as they are counted here."""
PAPER_CURVES: dict[str, dict[str, dict[int, str]]] = {
    "items": {
        "lstm": {6: "2", 10: "36.5", 15: "40", 20: "38.5"},
        "ntm": {6: "0", 10: "1.8", 15: "4.8", 20: "7"},
    }
}
"""What is counted -> contender -> size -> bits per sequence."""


def describe(record: dict[str, Any]) -> Iterator[str]:
    """Lines of a page."""
    name, where = record["suite"], record["environment"]
    yield RATES_HEAD if name == "rates" else f"### suite: {name}\n"
    yield prose(
        f"`{record['command']}`, commit {record['commit']}; {where['machine']}, {where['threads']} thread(s), torch "
        f"{where['torch']}. Every run is bounded to {number(60 * record['minutes'])} s of training; solved is at most "
        f"{record['solved']:g} bits.{_optimum(record)}"
    )
    paper = PAPER.get(name, {})
    head = ["model", "parameters", "rate", "solved", "bits", "sequences", "seconds", *(["paper"] if paper else [])]
    rows = (
        [*_row(model), *([paper.get(contender, NONE)] if paper else [])]
        for contender, model in _named(record["models"])
    )
    yield f"\n{table(head, rows)}\n"
    for counted, curve in record["curves"].items():
        yield f"Bits by {counted}; training had at most {curve['trained']}.\n"
        yield f"{table(['model', *map(str, curve['values'])], _curve_rows(record, counted, curve['values']))}\n"


def _named(models: dict[str, dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each contender with its model, which carries the name from here on."""
    yield from ((name, model | {"name": name}) for name, model in models.items())


def _row(model: dict[str, Any]) -> list[str]:
    runs = model["runs"]
    ended = [run for run in runs if run["status"] != "failed"]
    failed = len(runs) - len(ended)
    solved = f"{sum(run['status'] == 'solved' for run in runs)} of {len(runs)}"
    return [
        model["name"],
        f"{model['parameters']:,}",
        f"{model['learning_rate']:g}",
        solved + (f", {failed} failed" if failed else ""),
        spread([run["test"]["bits_per_sequence"] for run in ended]),
        spread([run["sequences"] for run in ended], thousands),
        spread([run["seconds"] for run in ended], lambda seconds: f"{seconds:.0f}"),
    ]


def _curve_rows(record: dict[str, Any], counted: str, values: list[int]) -> Iterator[list[str]]:
    for name, model in record["models"].items():
        yield [name, *(spread(bits) for bits in columns(model["runs"], counted, len(values)))]
    for name, published in PAPER_CURVES.get(counted, {}).items() if record["suite"] in PAPER else ():
        yield [f"{name}, paper", *(published.get(value, NONE) for value in values)]


def columns(runs: list[dict[str, Any]], counted: str, count: int) -> list[list[float]]:
    """For each of so many sizes, the bits of every run that was tested."""
    curves = [run["curves"][counted] for run in runs if run["status"] != "failed"]
    return [[curve[i] for curve in curves] for i in range(count)]


def _optimum(record: dict[str, Any]) -> str:
    """What the best estimator there is would pay, where the task knows it."""
    tests = [run["test"] for model in record["models"].values() for run in model["runs"] if "test" in run]
    optima = [test["optimal_bits_per_sequence"] for test in tests if "optimal_bits_per_sequence" in test]
    return f" The optimal estimator pays {spread(optima)} on the same sequences." if optima else ""


def thousands(count: float) -> str:
    """A number of sequences, in thousands."""
    return f"{count / 1000:.3g}k"


def spread(values: list[float], tell: Callable[[float], str] = number) -> str:
    """The median, and the least and the most where there are several; a dash for nothing."""
    if not values:
        return NONE
    median, least, most = tell(statistics.median(values)), tell(min(values)), tell(max(values))
    return median if least == most else f"{median} ({least} to {most})"
