"""Fresh memory that holds what nobody must read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import torch


@contextmanager
def dirty_memory() -> Iterator[None]:
    """Meanwhile fresh memory, PyTorch's and NumPy's, holds NaN, or the largest whole number."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        empty, empty_like = _filled(np.empty), _filled(np.empty_like)
        with mock.patch.object(np, "empty", empty), mock.patch.object(np, "empty_like", empty_like):
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def _filled(make: Any) -> Any:
    def made(*args: Any, **named: Any) -> Any:
        array = make(*args, **named)
        if array.dtype.kind in "fiu":
            array.fill(np.nan if array.dtype.kind == "f" else np.iinfo(array.dtype).max)
        return array

    return made
