"""A task that becomes harder as it is learned."""

from dataclasses import dataclass, fields, replace

from torchdnc.checks import check_size, check_type
from torchdnc.tasks import Task


@dataclass(frozen=True)
class Curriculum:
    """A setting of the task that is multiplied whenever the goal is met; the run is solved when it is met at the most.

    Rae et al. 2016, section 4.3, double the largest number of items. Tests of a saved run are of the first lesson, or
    of the length that they are given.
    """

    setting: str
    """The task's setting that grows, such as max_items; the first lesson has the task's own value."""
    most: int
    """Its value in the last lesson."""
    factor: int = 2
    """What it is multiplied by."""

    def __post_init__(self) -> None:
        check_type("curriculum.setting", self.setting, str)
        check_size("curriculum.most", self.most)
        check_size("curriculum.factor", self.factor, least=2)

    def check(self, task: Task) -> None:
        """Raises ValueError unless the task has the setting, and it grows from a whole number to the most."""
        numbers = {name: value for field in fields(task) if type(value := getattr(task, name := field.name)) is int}
        if self.setting not in numbers:
            raise ValueError(f"curriculum.setting must be one of {', '.join(numbers)}, got {self.setting!r}")
        if self.most < numbers[self.setting]:
            first = numbers[self.setting]
            raise ValueError(f"curriculum.most must be at least the task's {self.setting}, {first}, got {self.most}")
        if numbers[self.setting] < 1:
            raise ValueError(f"curriculum.setting must begin with a number above 0, got {self.setting} 0")
        if replace(task, **{self.setting: self.most}).spec != task.spec:
            raise ValueError(
                f"curriculum.setting must leave inputs and outputs as wide as they are, got {self.setting!r}"
            )

    def after(self, lesson: int) -> int:
        """The lesson behind one that was learned."""
        return min(self.most, self.factor * lesson)


def lesson_of(curriculum: Curriculum | None, task: Task, lesson: int | None) -> Task:
    """The task of a lesson; None: of the first, or of a run without lessons."""
    return task if curriculum is None or lesson is None else replace(task, **{curriculum.setting: lesson})


def next_lesson(curriculum: Curriculum | None, task: Task, lesson: int | None, met: bool) -> int | None:
    """The lesson after an evaluation; the same one if the goal was not met, or if it is the last."""
    if curriculum is None:
        return None
    now: int = getattr(task, curriculum.setting) if lesson is None else lesson
    return curriculum.after(now) if met else now
