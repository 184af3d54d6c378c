"""The pages for readers: their examples run, and the tests, links and files that they name exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
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


def dead_links(page, folder):
    """The relative links of a page in a folder that lead nowhere."""
    links = re.findall(r"\]\(([^)#\s]+)", page)
    return [link for link in links if "://" not in link and not (folder / link).exists()]


def listed(page):
    """The paths in a page's drawing of the source tree."""
    (tree,) = re.findall(r"```\n(src/torchdnc/\n.*?)```", page, flags=re.DOTALL)
    names = re.findall(r"^( *)(\S+)", tree, flags=re.MULTILINE)
    return [f"src/torchdnc/{name}" if indent else name for indent, name in names]


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


EXAMPLES = [
    (page.name, example)
    for page in PAGES
    for example in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
]


@pytest.mark.parametrize(("name", "example"), EXAMPLES, ids=[name for name, _ in EXAMPLES])
def test_the_example_runs(name, example):
    exec(compile(example, name, "exec"), {})


def test_every_page_with_an_interface_has_an_example():
    assert {"README.md", "from-lstm.md", "sparse.md"} <= {name for name, _ in EXAMPLES}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    assert dead_links(path.read_text(encoding="utf-8"), path.parent) == []


def test_a_dead_link_is_noticed():
    page = (
        "[a](README.md) [b](docs/gone.md#part) [c](https://example.org/x) [d](docs/from-lstm.md#what-is-new) [e](#here)"
    )
    assert dead_links(page, ROOT) == ["docs/gone.md"]


def test_every_file_in_the_readmes_tree_exists():
    paths = listed(README.read_text(encoding="utf-8"))
    assert {"src/torchdnc/", "src/torchdnc/ops/"} < set(paths)
    assert [path for path in paths if not (ROOT / path).exists()] == []
