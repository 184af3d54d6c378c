"""Times of interleaved calls, by a clock that tells what each call takes."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable

import pytest

from torchdnc.bench import timing
from torchdnc.bench.goals import Goal
from torchdnc.bench.plan import cores
from torchdnc.bench.text import judged, number, table
from torchdnc.bench.timing import Rounds, interleaved


class Clock:
    """Stands still but for calls, which take their time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.called = 0.0, list[str]()
        monkeypatch.setattr("torchdnc.bench.timing.time", self)

    def perf_counter(self) -> float:
        return self.now

    def call(self, name: str, *seconds: float) -> Callable[[], None]:
        """Takes these seconds in turn, the last of them from then on."""
        rest = itertools.chain(seconds, itertools.repeat(seconds[-1]))

        def called() -> None:
            self.now += next(rest)
            self.called.append(name)

        return called


def test_every_round_makes_every_call_and_warming_up_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    # The first call compiles, the second tells how often to repeat it; then come the rounds.
    calls = {"slow": clock.call("slow", 100, 5, 8, 2, 4), "fast": clock.call("fast", 50, 1)}
    timed = interleaved(calls, 3)
    assert [each["slow"] for each in timed.rounds] == [8, 2, 4]
    assert timed.median("slow") == 4
    assert timed.median("fast") == 1
    assert timed.ratio("slow", "fast") == (4, 3, 6)
    order = ["slow", "fast"]
    assert clock.called[4:] == [*order, *reversed(order), *order]


def test_short_calls_are_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    timed = interleaved({"short": clock.call("short", 1, 0.004), "shortest": clock.call("shortest", 1, 1e-9)}, 1)
    assert timed.median("short") == pytest.approx(0.004)
    assert clock.called.count("short") == 2 + 5
    assert clock.called.count("shortest") == 2 + timing.MOST


def test_ratios_are_within_rounds() -> None:
    """A machine that slows down by the round leaves the ratio alone."""
    timed = Rounds([{"a": 3.0 * speed, "b": 1.0 * speed} for speed in (1, 7, 2)])
    assert timed.ratio("a", "b") == (3, 3, 3)
    assert Rounds([{"a": 3.0, "b": 2.0}]).ratio("a", "b") == (1.5, 1.5, 1.5)


def test_the_collector_of_garbage_works_again_afterwards() -> None:
    seen = []
    interleaved({"look": lambda: seen.append(gc.isenabled())}, 1)
    assert not seen[-1]
    assert gc.isenabled()


@pytest.mark.parametrize(
    ("value", "faster", "smaller"),
    [
        (16, "goal", "missed"),
        (15, "goal", "missed"),
        (12, "bound", "missed"),
        (10, "bound", "bound"),
        (9, "missed", "bound"),
        (8, "missed", "goal"),
        (1, "missed", "goal"),
    ],
)
def test_goals(value: float, faster: str, smaller: str) -> None:
    assert Goal(15, 10).verdict(value) == faster
    assert Goal(8, 10).verdict(value) == smaller
    assert judged(value, [15, 10]) == ("15 / 10", faster)
    assert judged(value, None) == ("–", "–")


def test_a_table_is_markdown_in_columns() -> None:
    assert table(["a", "value"], [["long name", number(12345.6)], ["b", number(None)]]).splitlines() == [
        "| a         | value |",
        "| --------- | ----: |",
        "| long name | 12346 |",
        "| b         |     – |",
    ]


def test_cores() -> None:
    assert cores() >= 1
