"""The DNC in plain eager PyTorch, a yardstick of speed, computes what the reference computes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.conftest import assert_close
from torchdnc import DNC
from torchdnc.bench.eager import EagerDNC


def networks(N: int, W: int, R: int) -> tuple[DNC, EagerDNC, Tensor]:
    """One network as a reference and as eager, and a sequence for both."""
    torch.manual_seed(0)
    reference = DNC(3, 6, memory_size=N, word_size=W, read_heads=R, engine="reference", dtype=torch.float64)
    return reference, EagerDNC.like(reference), torch.randn(9, 2, 3, dtype=torch.float64)


@pytest.mark.parametrize(("N", "W", "R"), [(7, 4, 2), (5, 1, 3), (1, 3, 1)])
def test_outputs_states_and_gradients_are_those_of_the_reference(N: int, W: int, R: int) -> None:
    reference, eager, inputs = networks(N, W, R)
    expected, end = reference(inputs)
    found, state = eager(inputs)
    assert_close(found, expected.detach())
    memory = end.memory
    pairs = [
        (state.memory, memory.memory),
        (state.usage, memory.usage),
        (state.precedence, memory.precedence),
        (state.link, memory.link),
        (state.write_weights, memory.write_weights),
        (state.read_weights, memory.read_weights),
        (state.reads, end.read_words),
        (state.hidden, end.controller.hidden[0]),
        (state.cell, end.controller.cell[0]),
    ]
    for value, other in pairs:
        assert_close(value, other.detach(), tolerance=1e-9)
    expected.square().sum().backward()
    found.square().sum().backward()
    assert_close(eager.interface.weight.grad, reference.interface.weight.grad, tolerance=1e-9)
    width = 3 + R * W
    assert_close(eager.cell.weight_ih.grad, reference.controller.layers[0].weight.grad[:, :width], tolerance=1e-9)
    assert_close(eager.cell.weight_hh.grad, reference.controller.layers[0].weight.grad[:, width:], tolerance=1e-9)


def test_it_computes_something_else_with_other_weights() -> None:
    reference, eager, inputs = networks(7, 4, 2)
    with torch.no_grad():
        eager.interface.bias.add_(0.1)
    with pytest.raises(AssertionError, match="off by"):
        assert_close(eager(inputs)[0], reference(inputs)[0].detach(), tolerance=1e-3)
