"""Threads that share a call: rows of a batch, or pieces of every row where it has fewer rows than there are threads."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch.utils import _pytree as pytree

from tests.engines.pairs import Case, masks, model, run, worst
from tests.engines.test_stepwise import run as run_stepwise
from torchdnc import MemoryOptions
from torchdnc.engines.fused import compiled

# Of everything that is cut in pieces there is enough for several cache lines, and something is left over.
WIDE = Case(T=6, B=1, H=40, N=71, W=19, R=3, layers=2)
OPTIONS = MemoryOptions(skip_unwritten=True, deallocation=True, masking=True, mask_floor=0.2)
CASES = {
    "one row": WIDE,
    "two rows": Case(T=4, B=2, H=20, N=37, W=5, R=2),
    "three rows with masks": Case(T=9, B=3, H=20, N=37, W=5, R=2, masks=True),
    "two rows with masks": Case(T=9, B=2, H=33, N=50, W=21, R=2, layers=2, masks=True),
    "feedforward": Case(T=7, B=1, H=35, N=66, W=17, R=2, layers=2, controller="feedforward"),
    "less than a piece each": Case(T=4, B=1, N=5, R=2),
    "links made again": Case(T=26, B=1, H=20, N=37, R=2, masks=True),
    "options": replace(WIDE, normed=True, options=OPTIONS),
    "options, no links": replace(WIDE, B=2, masks=True, bidirectional=True, options=replace(OPTIONS, links="none")),
}


@pytest.fixture(autouse=True)
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Threads share the smallest call."""
    threads = torch.get_num_threads()
    monkeypatch.setattr(compiled, "WORTH_SHARING", 0)
    yield
    torch.set_num_threads(threads)


needs_openmp = pytest.mark.skipif(not compiled._openmp(), reason="PyTorch has no OpenMP here that is called as GNU's")


@needs_openmp
@pytest.mark.parametrize("threads", [2, 3, 7])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_pieces_of_a_row_equal_the_reference(case: Case, threads: int) -> None:
    expected = run(case, "reference")
    torch.set_num_threads(threads)
    assert compiled.team(1).threads == threads
    assert worst(run(case, "fused"), expected) < 1e-9


@needs_openmp
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_pieces_of_a_row_are_as_exact_as_the_reference(case: Case) -> None:
    """In float32, against the reference in float64."""
    exact = run(case, "reference")
    own = worst(run(case, "reference", torch.float32), exact)
    torch.set_num_threads(7)
    assert worst(run(case, "fused", torch.float32), exact) < max(4 * own, 1e-5)


@needs_openmp
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_pieces_of_a_row_without_a_tape(case: Case) -> None:
    torch.set_num_threads(7)
    made, inputs, call = model(case, "fused"), torch.randn(case.T, case.B, case.I, dtype=torch.float64), masks(case)
    outputs, end = made(inputs, **call)
    with torch.no_grad():
        again, other = made(inputs, **call)
    assert torch.equal(again, outputs)
    assert all(map(torch.equal, pytree.tree_leaves(other), pytree.tree_leaves(end)))


@needs_openmp
@pytest.mark.parametrize("threads", [2, 3, 7])
def test_pieces_of_a_row_with_a_controller_of_ones_own(threads: int) -> None:
    expected = run_stepwise("own controller", WIDE, "reference")
    torch.set_num_threads(threads)
    assert worst(run_stepwise("own controller", WIDE, "fused"), expected) < 1e-9


@needs_openmp
@pytest.mark.parametrize("threads", [2, 3, 5])
def test_rows_of_their_own_change_nothing(threads: int) -> None:
    case = Case(T=4, B=5, N=9, R=2, masks=True)
    torch.set_num_threads(1)
    alone = run(case, "fused"), run_stepwise("own controller", case, "fused")
    torch.set_num_threads(threads)
    together = run(case, "fused"), run_stepwise("own controller", case, "fused")
    for one, other in zip(alone, together, strict=True):
        assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))


def test_a_short_call_has_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(2)
    monkeypatch.setattr(compiled, "WORTH_SHARING", 10)
    assert compiled.team(9).threads == 1
    assert compiled.team(10).threads == (2 if compiled._openmp() else 1)


def test_without_openmp_there_is_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(2)
    monkeypatch.setattr(compiled, "_openmp", tuple)
    assert compiled.team(10**9).threads == 1
    assert worst(run(WIDE, "fused"), run(WIDE, "reference")) < 1e-9


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_is_alone() -> None:
    torch.set_num_threads(2)
    expected = run(WIDE, "fused")
    child = os.fork()
    if child == 0:
        alone = compiled.team(10**9).threads == 1
        # PyTorch's own operations would wait for OpenMP's threads for ever; a DataLoader's worker sets this too.
        torch.set_num_threads(1)
        os._exit(0 if alone and worst(run(WIDE, "fused"), expected) < 1e-9 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


FEWER = """
import torch
from tests.engines.test_team import WIDE, compiled, run, worst

compiled.WORTH_SHARING = 0
torch.set_num_threads(3)
assert compiled.team(1).threads == 3
print(worst(run(WIDE, "fused"), run(WIDE, "reference")))
"""


@needs_openmp
@pytest.mark.parametrize("limit", ["1", "2"])
def test_openmp_may_give_fewer_threads_than_asked_for(limit: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", FEWER],
        env={**os.environ, "OMP_THREAD_LIMIT": limit, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert float(ended.stdout) < 1e-9
