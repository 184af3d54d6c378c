"""What all tests share: shape checks of the maths, settings of Hypothesis, one way to compare numbers."""

from __future__ import annotations

import os
import signal
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

# Only the maths is checked: elsewhere bad arguments must reach the package's own sentences, which have tests.
# `torch.compile` cannot trace through the checks, so what is compiled runs where they are off.
if os.environ.get("TORCHDNC_SHAPE_CHECKS", "1") != "0":
    install_import_hook("torchdnc.ops", "beartype.beartype")

import torch
from torch import Tensor

# A shell has what it starts in the background ignore Ctrl-C, and so would all that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("torchdnc", deadline=None, derandomize=True, database=None)
settings.load_profile("torchdnc")

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
"""Rounding that sums of some tens of terms of size 1 collect."""


def as_array(value: Any) -> np.ndarray:
    return value.detach().numpy() if isinstance(value, Tensor) else np.asarray(value)


def assert_close(actual: Any, expected: Any, tolerance: float | None = None) -> None:
    """Fails unless `actual` is `expected`: |a − e| ≤ tolerance (1 + |e|), shapes and names the same.

    Args:
        actual: a tensor, or a (named) tuple of these.
        expected: an array or tensor, or a tuple or dictionary of these.
        tolerance: by default that of the dtype of `actual`.
    """
    if isinstance(expected, dict):
        assert list(actual._fields) == list(expected)
        expected = tuple(expected.values())
    if isinstance(expected, tuple):
        for one, other in zip(tuple(actual), expected, strict=True):
            assert_close(one, other, tolerance)
        return
    tolerance = TOLERANCE[actual.dtype] if tolerance is None else tolerance
    actual, expected = as_array(actual), as_array(expected)
    assert actual.shape == expected.shape
    error = np.abs(actual - expected) / (1 + np.abs(expected))
    within = error <= tolerance  # not so for NaN
    assert within.all(), f"off by up to {error.max()}, allowed {tolerance}:\n{actual}\n{expected}"


def assert_only_close(actual: Any, right: Any, *wrong: Any) -> None:
    """Fails unless `actual` is `right`, and each of `wrong` is plainly something else."""
    assert_close(actual, right)
    for other in wrong:
        with pytest.raises(AssertionError, match="off by"):
            assert_close(actual, other, tolerance=1e-3)
