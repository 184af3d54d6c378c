"""Tasks: data as code, each with its sizes as fields, its loss and its score."""

from torchdnc.tasks.associative_recall import AssociativeRecall
from torchdnc.tasks.babi import BAbI
from torchdnc.tasks.base import Batch, Spec, Split, Task, Totals, add_totals
from torchdnc.tasks.copy import Copy
from torchdnc.tasks.keyed_recall import KeyedRecall
from torchdnc.tasks.ngrams import NGrams
from torchdnc.tasks.priority_sort import PrioritySort
from torchdnc.tasks.repeat_copy import RepeatCopy

TASKS: dict[str, type[Task]] = {
    task.name: task for task in (Copy, RepeatCopy, AssociativeRecall, KeyedRecall, NGrams, PrioritySort, BAbI)
}

__all__ = [
    "TASKS",
    "AssociativeRecall",
    "BAbI",
    "Batch",
    "Copy",
    "KeyedRecall",
    "NGrams",
    "PrioritySort",
    "RepeatCopy",
    "Spec",
    "Split",
    "Task",
    "Totals",
    "add_totals",
]
