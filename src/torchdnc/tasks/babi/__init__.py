"""Question answering on bAbI."""

from torchdnc.tasks.babi.task import BAbI

__all__ = ["BAbI"]
