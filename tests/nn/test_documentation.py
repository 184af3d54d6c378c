"""The table "from `nn.LSTM` to `DNC`": its example runs, and every test that it names exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "from-lstm.md").read_text(encoding="utf-8")


def missing(page):
    """The tests that a page names and that are not there."""
    named = re.findall(r"(tests/[\w/]+\.py)::(\w+)", page)
    assert named
    return [f"{path}::{name}" for path, name in named if name not in functions(ROOT / path)]


def functions(path):
    if not path.exists():
        return set()
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}


def test_every_test_that_the_table_names_exists():
    assert missing(PAGE) == []


def test_a_test_that_is_not_there_is_noticed():
    here = "tests/nn/test_documentation.py"
    page = f"`{here}::test_nothing` `{here}::test_the_example_runs` `tests/gone.py::test_x`"
    assert missing(page) == [f"{here}::test_nothing", "tests/gone.py::test_x"]


def test_every_line_of_the_first_two_tables_names_a_test():
    tables = PAGE[: PAGE.index("## What is not there")]
    lines = [line for line in tables.splitlines() if line.startswith("| ") and "shown by" not in line]
    assert len(lines) > 30
    assert [line for line in lines if "::test_" not in line] == []


def test_the_example_runs():
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert "assert" in example
    exec(compile(example, "docs/from-lstm.md", "exec"), {})
