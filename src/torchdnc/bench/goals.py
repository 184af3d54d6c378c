"""What a figure should be, and what it must be at least."""

from __future__ import annotations

from typing import NamedTuple


class Goal(NamedTuple):
    """The goal, and the bound beyond which a figure is a failure; for speeds above, for times and sizes below it."""

    goal: float
    bound: float

    def verdict(self, value: float) -> str:
        """Which of the two a figure reaches."""
        sign = 1 if self.goal >= self.bound else -1
        if sign * value >= sign * self.goal:
            return "goal"
        return "bound" if sign * value >= sign * self.bound else "missed"

    def __str__(self) -> str:
        return f"{self.goal:g} / {self.bound:g}"
