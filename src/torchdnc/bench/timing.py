"""Times of several calls, side by side."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

Call = Callable[[], object]

SHORTEST = 0.02
"""Seconds; a shorter call is repeated for as long, since one alone would tell more of the clock and the scheduler."""
MOST = 200
"""Repetitions, at most."""


class Ratio(NamedTuple):
    """Median of the rounds' ratios, and their lower and upper quartile."""

    median: float
    low: float
    high: float


class Rounds:
    """Seconds that every call took in every round."""

    def __init__(self, rounds: Sequence[Mapping[str, float]]) -> None:
        self.rounds = rounds

    def median(self, name: str) -> float:
        """Seconds of a call, median of the rounds."""
        return statistics.median(each[name] for each in self.rounds)

    def ratio(self, above: str, below: str) -> Ratio:
        """How often the time of one call goes into that of another, within each round."""
        ratios = sorted(each[above] / each[below] for each in self.rounds)
        if len(ratios) == 1:
            return Ratio(*ratios * 3)
        low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
        return Ratio(median, low, high)


def interleaved(calls: Mapping[str, Call], rounds: int) -> Rounds:
    """Times calls one after another, in so many rounds, every other one in reverse order.

    A machine whose speed drifts then slows all of them alike, and none is always the one that follows the largest.
    Each is first called twice: once to be compiled, once to see how often it must be repeated.
    """
    for call in calls.values():
        call()
    repeats = {name: min(MOST, math.ceil(SHORTEST / seconds(call))) for name, call in calls.items()}
    found = []
    for count in range(rounds):
        order = list(calls)[:: 1 if count % 2 == 0 else -1]
        with _no_collection():
            found.append({name: seconds(calls[name], repeats[name]) for name in order})
    return Rounds(found)


def seconds(call: Call, repeats: int = 1) -> float:
    """Wall time of a call, the mean of some in a row."""
    began = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - began) / repeats


@contextmanager
def _no_collection() -> Iterator[None]:
    """Python's collector of garbage at rest, as in `timeit`: it would charge one call with what others left."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
