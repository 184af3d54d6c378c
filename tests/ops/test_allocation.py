"""Retention, usage and allocation, worked by hand."""

import pytest
import torch

from tests.conftest import assert_close
from tests.ops.inputs import double
from tests.ops.test_against_oracle import by_dtype
from torchdnc.ops import allocation_weights, retention, usage


def test_retention_multiplies_over_heads():
    free_gates = double([1.0, 0.5])
    read = double([[0.0, 1.0, 0.5], [0.0, 0.0, 1.0]])
    assert_close(retention(free_gates, read), [1.0, 0.0, 0.25])


def test_usage_is_the_union_of_used_and_written_less_what_was_freed():
    used, written, kept = double([0.5, 0.2, 0.0]), double([0.5, 0.0, 0.3]), double([1.0, 0.5, 0.1])
    assert_close(usage(used, written, kept), [0.75, 0.1, 0.03])


@by_dtype
def test_usage_is_exact_at_1_whatever_is_written(dtype):
    written, ones = torch.linspace(0, 1, 1001, dtype=dtype), torch.ones(1001, dtype=dtype)
    assert torch.equal(usage(ones, written, ones), ones)
    assert torch.equal(usage(written, ones, ones), ones)


@by_dtype
def test_usage_is_exact_at_0_when_freed_and_when_nothing_is_written(dtype):
    used, zeros = torch.linspace(0, 1, 1001, dtype=dtype), torch.zeros(1001, dtype=dtype)
    assert torch.equal(usage(used, used, zeros), zeros)
    assert torch.equal(usage(zeros, zeros, zeros + 1), zeros)


def test_allocation_goes_to_the_least_used_first():
    # Slots 1, 3, 0, 2: 0.8, 0.5 · 0.2, 0.25 · 0.5 · 0.2, 0.1 · 0.75 · 0.5 · 0.2.
    assert_close(allocation_weights(double([0.75, 0.2, 0.9, 0.5])), [0.025, 0.8, 0.0075, 0.1])


def test_tied_usages_are_served_lowest_slot_first():
    # Slots 1, 2, 0, 3: 0.8, 0.8 · 0.2, 0.5 · 0.04, 0.1 · 0.02.
    assert_close(allocation_weights(double([0.5, 0.2, 0.2, 0.9])), [0.02, 0.8, 0.16, 0.002])
    assert_close(allocation_weights(double([0.5] * 4)), [0.5, 0.25, 0.125, 0.0625])


@by_dtype
@pytest.mark.parametrize("slots", [1, 2, 3, 17, 1000])
def test_ties_of_many_slots_keep_their_order(dtype, slots):
    halves = torch.full((slots,), 0.5, dtype=dtype)
    halving = 0.5 ** torch.arange(1, slots + 1, dtype=torch.float64)
    assert_close(allocation_weights(halves), halving)
    assert (allocation_weights(halves).diff() <= 0).all()


@by_dtype
@pytest.mark.parametrize("slots", [1, 2, 3, 17])
def test_a_memory_never_written_gives_its_first_slot(dtype, slots):
    assert allocation_weights(torch.zeros(slots, dtype=dtype)).tolist() == [1.0] + [0.0] * (slots - 1)


@by_dtype
@pytest.mark.parametrize("slots", [1, 2, 3, 17])
def test_a_full_memory_gives_nothing(dtype, slots):
    assert allocation_weights(torch.ones(slots, dtype=dtype)).tolist() == [0.0] * slots


@by_dtype
def test_the_one_free_slot_of_a_full_memory_is_given_whole(dtype):
    for free in range(5):
        used = 1 - torch.eye(5, dtype=dtype)[free]
        assert torch.equal(allocation_weights(used), 1 - used)


def test_a_slot_partly_free_in_a_full_memory_is_given_as_far_as_it_is_free():
    assert allocation_weights(double([1.0, 0.25, 1.0])).tolist() == [0.0, 0.75, 0.0]


def test_the_gradient_at_a_tie_is_that_of_the_order_taken():
    used = double([0.5, 0.5]).requires_grad_()
    # a[0] = 1 − u[0] and a[1] = (1 − u[1]) u[0].
    jacobian = torch.autograd.functional.jacobian(allocation_weights, used)
    assert jacobian.tolist() == [[-1.0, 0.0], [0.5, -0.5]]
