"""Real data, as in tests/tasks."""

from tests.tasks.conftest import babi_data

__all__ = ["babi_data"]
