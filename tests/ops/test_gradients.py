"""First and second derivatives against finite differences; no NaN or infinity where values are extreme."""

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from tests import oracle
from tests.ops.inputs import CASES, KINDS, VARIANTS, Sizes, edges, ordinary, tensors
from tests.ops.test_against_oracle import as_tuple, by_dtype

DIFFERENTIABLE = [case for case in CASES + VARIANTS if case.name not in ("written", "age", "released")]
by_name = pytest.mark.parametrize("case", DIFFERENTIABLE, ids=lambda case: case.name)

# Below PyTorch's 1e-6: near an empty key the cosine bends within 1e-3, and fourth derivatives reach 1e13.
FINITE_STEP = 1e-7
# Far above the finite step, so that no step makes two usages change places.
LEAST_GAP = 1e-3


def least_gap(values):
    """The smallest distance between two usages of a row: those given, and those a step makes of them."""
    psi = oracle.retention(values["free_gates"], values["read_weights"])
    stepped = oracle.usage(values["usage"], values["write_weights"], psi)
    return min(np.diff(np.sort(usage, -1)).min() for usage in (values["usage"], stepped))


def bends_too_much(case, kind, check):
    """Where a link's weight is 0 sharpness bends within 1e-6: `test_links.py` has its second derivatives there."""
    return "forward_sharpness" in case.arguments and kind is edges and check is gradgradcheck


@by_name
@pytest.mark.parametrize("kind", [ordinary, edges])
@pytest.mark.parametrize("check", [gradcheck, gradgradcheck])
def test_derivatives_are_those_of_finite_differences(case, kind, check):
    if bends_too_much(case, kind, check):
        pytest.skip("no finite step is small enough")
    values = kind(Sizes(1, 4, 2, 2), seed=1)
    assert least_gap(values) > LEAST_GAP
    torch.manual_seed(0)  # gradgradcheck draws the cotangents
    assert check(case.op, tensors(case, values, torch.float64, requires_grad=True), eps=FINITE_STEP)


def test_edges_reach_retention_of_exactly_0_and_1():
    values = edges(Sizes(1, 4, 2, 2), seed=1)
    psi = oracle.retention(values["free_gates"], values["read_weights"])
    assert psi.tolist() == [[1, 1, 1, 0]]


@by_name
@by_dtype
@pytest.mark.parametrize("kind", KINDS)
def test_values_and_gradients_are_finite(case, dtype, kind):
    for sizes in (Sizes(2, 5, 3, 2), Sizes(1, 1, 1, 1)):
        arguments = tensors(case, kind(sizes), dtype, requires_grad=True)
        results = as_tuple(case.op(*arguments))
        leaves = [leaf for leaf in arguments if isinstance(leaf, torch.Tensor) and leaf.requires_grad]
        moving = [result for result in results if result.requires_grad]
        weights = [torch.linspace(-1, 2, result.numel(), dtype=dtype).view_as(result) for result in moving]
        gradients = torch.autograd.grad(moving, leaves, weights, allow_unused=True)
        given = [gradient for gradient in gradients if gradient is not None]
        assert given
        assert all(torch.isfinite(tensor).all() for tensor in (*results, *given))
