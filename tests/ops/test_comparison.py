"""The ways to compare fail on wrong answers, and shapes are checked while tests run."""

import os

import numpy as np
import pytest
import torch

from tests.conftest import assert_close, assert_only_close
from tests.ops.inputs import double
from torchdnc import MemoryState, ops

RIGHT = np.array([[1.0, 2.0], [3.0, 4.0]])


@pytest.mark.parametrize(
    "wrong",
    [
        RIGHT + 1e-10,
        RIGHT * (1 - 1e-10),
        np.where(RIGHT == 4, np.nan, RIGHT),
        np.where(RIGHT == 4, np.inf, RIGHT),
        RIGHT.T,
        RIGHT[:1],
        RIGHT[None],
        0.0,
    ],
)
def test_a_wrong_answer_is_told(wrong):
    assert_close(torch.tensor(RIGHT), RIGHT)
    with pytest.raises(AssertionError):
        assert_close(torch.tensor(wrong), RIGHT)


def test_float32_is_held_to_its_own_digits():
    rounded = torch.tensor(RIGHT / 3, dtype=torch.float32)
    assert_close(rounded, RIGHT / 3)
    with pytest.raises(AssertionError):
        assert_close(rounded + 1e-4, RIGHT / 3)


def test_one_wrong_part_of_several_is_told():
    pair = (torch.tensor(RIGHT), torch.tensor(RIGHT))
    assert_close(pair, (RIGHT, RIGHT))
    for wrong in [(RIGHT, RIGHT + 1), (RIGHT + 1, RIGHT), (RIGHT,), (RIGHT, RIGHT, RIGHT)]:
        with pytest.raises((AssertionError, ValueError)):
            assert_close(pair, wrong)


def test_parts_are_matched_by_name():
    state = MemoryState(*[torch.tensor(RIGHT + i) for i in range(len(MemoryState._fields))])
    expected = {name: RIGHT + i for i, name in enumerate(MemoryState._fields)}
    assert_close(state, expected)
    usage, precedence = expected.pop("usage"), expected.pop("precedence")
    with pytest.raises(AssertionError):
        assert_close(state, expected | {"usage": usage, "precedence": precedence})


def test_an_order_that_makes_no_difference_is_told():
    assert_only_close(torch.tensor(RIGHT), RIGHT, RIGHT + 1)
    with pytest.raises(pytest.fail.Exception):
        assert_only_close(torch.tensor(RIGHT), RIGHT, RIGHT + 1, RIGHT)


@pytest.mark.skipif(os.environ.get("TORCHDNC_SHAPE_CHECKS") == "0", reason="shape checks are off")
def test_shapes_that_do_not_fit_are_refused():
    three, four = double([0.1] * 3), double([0.1] * 4)
    with pytest.raises(TypeError, match="usage_prev"):
        ops.usage(three, three.int(), three)
    # Four numbers beside one would broadcast.
    with pytest.raises(TypeError, match="write_weights_prev"):
        ops.usage(four, four[:1], four)
