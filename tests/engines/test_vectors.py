"""The kernels' own functions of numbers, against exact values."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numba import njit, types
from numba.np.numpy_support import from_dtype

from torchdnc.engines.fused.kernels import vectors
from torchdnc.engines.fused.kernels.denormals import flush_denormals, restore_denormals
from torchdnc.engines.fused.kernels.memory import sort_free_list
from torchdnc.engines.fused.kernels.options import ENTRY
from torchdnc.engines.fused.kernels.simd import (
    Vector,
    intrinsic,
    lanes,
    load,
    store,
    store_in_parts,
    store_masked,
)

DTYPES = [np.float32, np.float64]
NUMBERS = [-1e4, -708.0, -100.0, -88.0, -40.0, -10.0, -1.0, -1e-3, -1e-30, 0.0, 1e-30, 1e-3, 0.5, 1.0, 10.0, 40.0, 80.0]


def of_vectors(function: Any) -> Callable[[Any], Any]:
    """A function of vectors as one of arrays."""

    @njit(**ENTRY)
    def fill(out, numbers):
        for i in range(0, numbers.shape[0], lanes(numbers)):
            n = numbers.shape[0] - i
            store(out, i, function(load(numbers, i, n)), n)

    def call(numbers: Any) -> Any:
        out = np.empty_like(numbers)
        fill(out, numbers)
        return out

    return call


def exact(function: Callable[[Any], Any], numbers: Any) -> Any:
    with np.errstate(over="ignore"):
        return function(numbers.astype(np.longdouble))


SQUASHERS: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "exp": (vectors.exp, np.exp),
    "sigmoid": (vectors.sigmoid, lambda x: 1 / (1 + np.exp(-x))),
    "tanh": (vectors.tanh, np.tanh),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SQUASHERS)
def test_squashing_is_exact_to_the_last_digits(name: str, dtype: Any) -> None:
    function, right = SQUASHERS[name]
    numbers = np.concatenate([np.linspace(-20, 20, 4001), NUMBERS]).astype(dtype)
    got, expected = of_vectors(function)(numbers), exact(right, numbers)
    small = np.finfo(dtype).tiny * 1e2
    error = np.abs(got - expected) / np.maximum(np.abs(expected), small / np.finfo(dtype).eps)
    assert error.max() < 4 * np.finfo(dtype).eps


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["sigmoid", "tanh"])
def test_squashing_of_what_is_no_number_or_none_that_ends(name: str, dtype: Any) -> None:
    function, right = SQUASHERS[name]
    numbers = np.array([math.nan, math.inf, -math.inf], dtype)
    np.testing.assert_allclose(of_vectors(function)(numbers), exact(right, numbers).astype(dtype), atol=1e-30)


def storing(store: Any) -> Any:
    """One way to store the first n lanes of a vector, as a function of arrays."""

    @intrinsic
    def of_vector(typing: Any, a: Any, x: Any, n: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            pointer = context.make_array(signature.args[0])(context, builder, values[0]).data
            store(builder, x, pointer, values[1], values[2])
            return context.get_dummy_value()

        return types.void(a, x, types.intp), generate

    @njit(**ENTRY)
    def fill(out, numbers, n):
        of_vector(out, load(numbers, 0, lanes(numbers)), n)

    return fill


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("store", [store_masked, store_in_parts])
def test_of_a_vector_the_first_lanes_are_stored(store: Any, dtype: Any) -> None:
    fill, numbers = storing(store), np.arange(1, 21, dtype=dtype)
    most = Vector(from_dtype(np.dtype(dtype))).lanes
    for n in range(-most - 1, most + 3):
        out = np.zeros_like(numbers)
        fill(out, numbers, n)
        stored = min(max(n, 0), most)
        assert out.tolist() == [*numbers[:stored], *[0] * (len(out) - stored)]


@njit(**ENTRY)
def _softmax(scores, size):
    vectors.softmax(scores, size)


@pytest.mark.parametrize("shift", [-1000.0, -100.0, 0.0, 100.0, 1000.0])
@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_does_not_depend_on_where_its_scores_lie(dtype: Any, shift: float) -> None:
    scores = np.array([shift, shift - 1, shift - 2], dtype)
    _softmax(scores, 3)
    expected = np.exp([0.0, -1, -2]) / np.exp([0.0, -1, -2]).sum()
    np.testing.assert_allclose(scores, expected, rtol=1e-6 if dtype is np.float32 else 1e-14)


@pytest.mark.parametrize("size", [1, 2, 7, 15, 16, 17, 31, 33, 64, 100])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(3))
def test_the_free_list_is_a_stable_sort(size: int, dtype: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    levels = [0.0, -0.0, 0.25, 0.5, 1.0, -1.0, math.inf]
    usages = [rng.random(size), rng.choice(levels, size), np.zeros(size), np.sort(rng.random(size))[::-1]]
    for usage in usages:
        order = sorted_slots(usage.astype(dtype))
        assert order.tolist() == np.argsort(usage.astype(dtype), kind="stable").tolist()


@pytest.mark.parametrize("dtype", DTYPES)
def test_with_usages_that_are_no_numbers_every_slot_is_in_the_free_list_once(dtype: Any) -> None:
    order = sorted_slots(np.array([2, math.nan, 1, math.nan, 0, 2, math.inf], dtype))
    assert sorted(order.tolist()) == list(range(7))


@njit(**ENTRY)
def _sort(order, usage):
    sort_free_list(order, usage, usage.shape[0])


def sorted_slots(usage: Any) -> Any:
    order = np.full(len(usage), 10**6, np.int32)
    _sort(order, usage)
    return order


@njit(**ENTRY)
def _halve(numbers, flushing):
    before = flush_denormals() if flushing else np.int32(0)
    numbers[0] *= numbers[1]
    if flushing:
        restore_denormals(before)
    numbers[2] *= numbers[1]


@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() == "DEFAULT", reason="no x86")
def test_small_numbers_are_flushed_inside_only() -> None:
    tiny = float(np.finfo(np.float64).tiny)
    numbers = np.array([tiny, 0.5, tiny])
    _halve(numbers, True)
    assert numbers.tolist() == [0, 0.5, tiny / 2]
