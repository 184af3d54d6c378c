"""What nobody may read: fresh memory, padding, states of rows that are not run, what an earlier call left behind.

Each holds NaN or worse here, and the results are the same bits as if it did not.
"""

from __future__ import annotations

import hashlib
import math
import os
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from tests.engines.pairs import Case, asymmetric_state, everything, leaf_state, masks, model
from tests.engines.poison import dirty_memory
from torchdnc import DNCState, MemoryOptions

OPTIONS = MemoryOptions(skip_unwritten=True, deallocation=True, masking=True, mask_floor=0.2)
CASES = {
    "one step": Case(T=1, N=1, W=1),
    "two layers": Case(T=7, B=3, H=5, N=17, W=4, R=3, layers=2),
    "masks": Case(T=9, B=5, N=7, R=2, layers=2, masks=True),
    "long masks": Case(T=26, B=3, masks=True),
    "feedforward": Case(T=6, B=3, R=2, layers=2, controller="feedforward"),
    "feedforward masks": Case(T=8, B=4, controller="feedforward", masks=True),
    "options": Case(T=9, B=5, N=7, W=9, R=2, masks=True, normed=True, options=OPTIONS),
    "options, no links": Case(T=6, B=3, R=3, masks=True, bidirectional=True, options=replace(OPTIONS, links="none")),
}
ROOT = Path(__file__).parents[2]
POISONS = (math.nan, math.inf, -math.inf, 1e300)

by_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
by_poison = pytest.mark.parametrize("poison", POISONS)


def given(case: Case, dtype: torch.dtype = torch.float64) -> tuple[Any, Tensor, DNCState, dict[str, Any]]:
    """A model on the fused engine and a call of it."""
    made = model(case, "fused", dtype)
    torch.manual_seed(2)
    inputs = torch.randn(case.T, case.B, case.I, dtype=dtype).requires_grad_()
    return made, inputs, asymmetric_state(made, case.B), masks(case)


def same(got: list[Tensor], expected: list[Tensor]) -> bool:
    """Whether all bits are equal, and all numbers are numbers."""
    return all(torch.equal(*pair) and bool(pair[0].isfinite().all()) for pair in zip(got, expected, strict=True))


def padding(inputs: Tensor, lengths: Tensor) -> Tensor:
    """[T, B]: past the row's length."""
    return torch.arange(len(inputs)).unsqueeze(-1) >= lengths


@by_case
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_fresh_memory(case: Case, dtype: torch.dtype) -> None:
    made, inputs, state, call = given(case, dtype)
    expected = everything(made, inputs, state, **call)
    with dirty_memory():
        assert torch.empty(1).isnan()
        assert np.isnan(np.empty(1))
        got = everything(made, inputs, state, **call)
    assert same(got, expected)


@by_case
def test_fresh_memory_without_gradients(case: Case) -> None:
    made, inputs, state, call = given(case)

    def results() -> list[Tensor]:
        with torch.no_grad():
            step = () if case.bidirectional else made.step(inputs[0], state)
            return pytree.tree_leaves((made(inputs, state, **call), step))

    expected = results()
    with dirty_memory():
        assert same(results(), expected)


SCRIPT = """
import torch
from tests.engines.test_poison import CASES, digest
dirty = torch.empty(1000).max().item()
print(dirty > 1e38, *(digest(CASES[name]) for name in ("masks", "feedforward masks", "options")))
"""


def digest(case: Case) -> str:
    """Of every result of a case in both dtypes."""
    found = hashlib.sha256()
    for dtype in (torch.float64, torch.float32):
        made, inputs, state, call = given(case, dtype)
        for tensor in everything(made, inputs, state, **call):
            assert tensor.isfinite().all()
            found.update(tensor.detach().contiguous().numpy().tobytes())
    return found.hexdigest()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can fill what it allocates")
def test_fresh_memory_of_compiled_kernels() -> None:
    """Whatever any code allocates holds bytes 0x7f, numbers of 1e38 or 1e306, and what it frees holds others."""
    clean = os.environ | {"TORCHDNC_SHAPE_CHECKS": "0", "OMP_NUM_THREADS": "1"}
    # Small blocks that are freed and taken again would come unfilled from a cache.
    filled = clean | {"MALLOC_PERTURB_": str(0x7F ^ 0xFF), "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}
    runs = [
        subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, env=each, capture_output=True, text=True, check=True)
        for each in (clean, filled)
    ]
    (is_dirty, *expected), (was_dirty, *got) = (run.stdout.split() for run in runs)
    assert (is_dirty, was_dirty) == ("False", "True")
    assert got == expected


@by_poison
@pytest.mark.parametrize("controller", ["lstm", "feedforward"])
def test_padding(controller: str, poison: float) -> None:
    made, inputs, state, _ = given(Case(T=9, B=5, N=7, R=2, layers=2, controller=controller))
    lengths, reset = torch.tensor([0, 9, 4, 1, 8]), torch.rand(9, 5) < 0.3
    padded = padding(inputs, lengths)
    expected = everything(made, inputs, state, lengths=lengths, reset=reset & ~padded)
    poisoned = inputs.detach().masked_fill(padded.unsqueeze(-1), poison).requires_grad_()
    got = everything(made, poisoned, state, lengths=lengths, reset=reset | padded)
    assert same(got, expected)
    outputs, of_inputs = got[0], got[1 + len(pytree.tree_leaves(state))]
    assert not outputs[padded].any()
    assert not of_inputs[padded].any()


@by_poison
def test_padding_without_gradients(poison: float) -> None:
    made, inputs, state, _ = given(CASES["two layers"])
    lengths = torch.tensor([3, 0, 7])
    poisoned = inputs.masked_fill(padding(inputs, lengths).unsqueeze(-1), poison)
    with torch.no_grad():
        found = [pytree.tree_leaves(made(each, state, lengths=lengths)) for each in (poisoned, inputs)]
    assert same(*found)


def poisoned_rows(state: DNCState, rows: list[int], poison: float) -> DNCState:
    def fill(leaf: Tensor) -> Tensor:
        return leaf.detach().clone().index_fill_(0, torch.tensor(rows), poison)

    return leaf_state(pytree.tree_map(fill, state))


@by_poison
@pytest.mark.parametrize("controller", ["lstm", "feedforward"])
def test_the_state_of_an_empty_row_reaches_no_other(controller: str, poison: float) -> None:
    """It comes out as it went in; other rows, and the gradients of their inputs and starts, are as without it."""
    case = Case(T=6, B=4, N=5, R=2, layers=2, controller=controller)
    made, inputs, state, _ = given(case)
    lengths, others = torch.tensor([0, 6, 0, 3]), torch.tensor([1, 3])
    poisoned = poisoned_rows(state, [0, 2], poison)

    def found(start: DNCState) -> list[Tensor]:
        outputs, end = made(inputs, start, lengths=lengths)
        leaves = pytree.tree_leaves(start)
        gradients = torch.autograd.grad(outputs.square().sum(), [inputs, *leaves])
        of_rows = [each[others] for each in (*pytree.tree_leaves(end), *gradients[1:])]
        return [outputs, gradients[0], *of_rows]

    assert same(found(poisoned), found(state))
    with torch.no_grad():
        _, end = made(inputs, poisoned, lengths=lengths)
    for before, after in zip(pytree.tree_leaves(poisoned), pytree.tree_leaves(end), strict=True):
        torch.testing.assert_close(after[[0, 2]], before[[0, 2]], rtol=0, atol=0, equal_nan=True)


@by_poison
@pytest.mark.parametrize("controller", ["lstm", "feedforward"])
def test_a_reset_row_forgets_its_state(controller: str, poison: float) -> None:
    """The first step starts afresh: nothing of what was before reaches a result or a gradient."""
    made, inputs, state, _ = given(Case(T=5, B=3, N=5, R=2, layers=2, controller=controller))
    reset = torch.zeros(5, 3, dtype=torch.bool)
    reset[0, 1], reset[3, 2] = True, True
    expected = everything(made, inputs, state, reset=reset)
    got = everything(made, inputs, poisoned_rows(state, [1], poison), reset=reset)
    assert same(got, expected)


@by_poison
def test_a_reset_row_forgets_its_past(poison: float) -> None:
    """A sequence that was lost before the reset is in order after it."""
    made, inputs, state, _ = given(Case(T=8, B=3, N=5, R=2, layers=2))
    reset = torch.zeros(8, 3, dtype=torch.bool)
    reset[4, 1] = True
    lost = inputs.detach().clone()
    lost[1:4, 1] = poison
    with torch.no_grad():
        (outputs, end), (expected, right) = (made(each, state, reset=reset) for each in (lost, inputs))
    assert torch.equal(outputs[4:], expected[4:])
    assert torch.equal(outputs[:, [0, 2]], expected[:, [0, 2]])
    assert same(pytree.tree_leaves(end), pytree.tree_leaves(right))


@by_poison
def test_a_lost_row_stays_alone(poison: float) -> None:
    """Nothing of one row reaches another."""
    made, inputs, state, _ = given(Case(T=6, B=4, N=5, R=2, layers=2))
    lost, others = inputs.detach().clone(), [0, 1, 3]
    lost[2, 2] = poison
    found = []
    for each in (lost, inputs.detach()):
        each.requires_grad_()
        outputs, end = made(each, state)
        gradients = torch.autograd.grad(outputs[:, others].square().sum(), [each, *pytree.tree_leaves(state)])
        rows = [leaf[others] for leaf in (*pytree.tree_leaves(end), *gradients[1:])]
        found.append([outputs[:, others], gradients[0][:, others], *rows])
    assert same(*found)


@by_case
def test_an_earlier_call_leaves_nothing_behind(case: Case) -> None:
    """One of NaN alone, of the same sizes and of larger ones, gone through backward too."""
    made, inputs, state, call = given(case)
    expected = everything(made, inputs, state, **call)
    for T in (case.T, 2 * case.T + 1):
        lost = torch.full((T, case.B, case.I), math.nan, dtype=torch.float64, requires_grad=True)
        everything(made, lost, poisoned_rows(state, list(range(case.B)), math.nan))
        assert same(everything(made, inputs, state, **call), expected)


@pytest.mark.parametrize("controller", ["lstm", "feedforward"])
def test_a_batch_of_empty_rows(controller: str) -> None:
    made, inputs, state, _ = given(Case(T=4, B=3, N=5, R=2, layers=2, controller=controller))
    lost = torch.full_like(inputs, math.nan).requires_grad_()
    outputs, end = made(lost, state, lengths=torch.zeros(3, dtype=torch.int64))
    leaves = pytree.tree_leaves(state)
    assert not outputs.any()
    assert same(pytree.tree_leaves(end), leaves)
    seeds = [torch.randn_like(leaf) for leaf in leaves]
    wanted = [lost, *made.parameters(), *leaves]
    gradients = torch.autograd.grad(
        [outputs.sum(), *pytree.tree_leaves(end)], wanted, [torch.ones(()).to(lost), *seeds]
    )
    assert same(list(gradients[-len(leaves) :]), seeds)
    assert not any(gradient.any() for gradient in gradients[: -len(leaves)])
