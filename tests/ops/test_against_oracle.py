"""Every operation gives the oracle's numbers, whatever the sizes."""

import numpy as np
import pytest
import torch
from torch.utils import _pytree as pytree

from tests.conftest import assert_close
from tests.ops.inputs import (
    CASES,
    KINDS,
    OPTIONS,
    SIZES,
    VARIANTS,
    Sizes,
    access_case,
    arrays,
    edges,
    interface_of,
    ordinary,
    state_of,
    tensors,
)
from torchdnc import ops
from torchdnc.types import PAPER, MemoryState

DTYPES = [torch.float64, torch.float32]
by_name = pytest.mark.parametrize("case", CASES + VARIANTS, ids=lambda case: case.name)
by_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def as_tuple(result):
    return result if isinstance(result, tuple) else (result,)


@by_name
@by_dtype
@pytest.mark.parametrize("kind", [ordinary, edges])
def test_every_size_gives_the_oracles_numbers(case, dtype, kind):
    for seed, sizes in enumerate(SIZES):
        arguments = tensors(case, kind(sizes, seed), dtype)
        actual, expected = as_tuple(case.op(*arguments)), as_tuple(case.oracle(*arrays(arguments)))
        assert_close(actual, expected)
        assert all(tensor.dtype == dtype for tensor in actual)


@by_name
@pytest.mark.parametrize("kind", KINDS[2:])
def test_extreme_values_give_the_oracles_numbers(case, kind):
    for seed, sizes in enumerate([Sizes(2, 5, 3, 3), Sizes(1, 1, 1, 1), Sizes(3, 17, 2, 1)]):
        arguments = tensors(case, kind(sizes, seed), torch.float64)
        actual, expected = as_tuple(case.op(*arguments)), as_tuple(case.oracle(*arrays(arguments)))
        # A strength of 1e4 multiplies the rounding of the cosine.
        assert_close(actual, expected, tolerance=1e-11)


@by_name
def test_rows_may_have_no_batch_dimension_or_two(case):
    arguments = tensors(case, ordinary(Sizes(4, 5, 3, 2)), torch.float64)
    expected = as_tuple(case.op(*arguments))

    def reshaped(change):
        changed = [change(value) if isinstance(value, torch.Tensor) else value for value in arguments]
        return as_tuple(case.op(*changed))

    assert_close(reshaped(lambda value: value[1]), tuple(value[1] for value in expected))
    folded = reshaped(lambda value: value.unflatten(0, (2, 2)))
    assert_close(folded, tuple(value.unflatten(0, (2, 2)) for value in expected))


@by_name
def test_arguments_are_left_as_they_were(case):
    arguments = tensors(case, ordinary(Sizes(2, 5, 3, 2)), torch.float64)
    before = arrays([value.clone() if isinstance(value, torch.Tensor) else value for value in arguments])
    case.op(*arguments)
    for now, then in zip(arrays(arguments), before, strict=True):
        assert np.array_equal(now, then)


@pytest.mark.parametrize("options", [PAPER, *OPTIONS.values()], ids=str)
def test_access_gives_a_state_of_the_same_shapes(options):
    case = access_case(options)
    values = dict(zip(case.arguments, tensors(case, ordinary(Sizes(2, 5, 3, 2)), torch.float64), strict=True))
    before = state_of(values, options)
    _, state = ops.access(interface_of(values, options), before, options)
    assert type(state) is MemoryState
    assert pytree.tree_map(torch.Tensor.size, state) == pytree.tree_map(torch.Tensor.size, before)
