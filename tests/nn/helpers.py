"""Models, states and runs that the tests of `torchdnc.nn` share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from tests.conftest import assert_close
from torchdnc import DNC, LSTM, NTM, MemoryOptions, SuperLSTM
from torchdnc.nn.recurrent import Recurrent

INPUTS, HIDDEN, OUTPUTS = 3, 5, 2
SLOTS, WORD = 6, 4
EXACT = 1e-9
"""What "equal" means in the contract: to rounding, in float64."""


ALL_OPTIONS = MemoryOptions(skip_unwritten=True, deallocation=True, masking=True, mask_floor=0.1, sharpness=True)


class OwnController(nn.Module):
    """A user's controller: a GRU, whose state is a dictionary."""

    def __init__(self, input_size: int, hidden_size: int, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.feature_size = hidden_size
        self.cell = nn.GRUCell(input_size, hidden_size, dtype=dtype)

    def initial_state(self, batch_size: int) -> dict[str, Tensor]:
        return {"gru": self.cell.weight_ih.new_zeros(batch_size, self.feature_size)}

    def forward(self, input: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        hidden = self.cell(input, state["gru"])
        return hidden, {"gru": hidden}


def enlarge(model: nn.Module) -> None:
    """Makes the parameters larger: gates, strengths and modes leave the middle of their ranges."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)


def make_dnc(output_size: int | None = OUTPUTS, **options: Any) -> DNC:
    torch.manual_seed(0)
    defaults: dict[str, Any] = {"memory_size": SLOTS, "word_size": WORD, "dtype": torch.float64}
    model = DNC(INPUTS, HIDDEN, output_size, **defaults | options)
    enlarge(model)
    return model


def make_lstm(output_size: int | None = OUTPUTS, **options: Any) -> LSTM:
    torch.manual_seed(0)
    model = LSTM(INPUTS, HIDDEN, output_size, **{"dtype": torch.float64} | options)
    enlarge(model)
    return model


def make_ntm(output_size: int | None = OUTPUTS, **options: Any) -> NTM:
    torch.manual_seed(0)
    defaults: dict[str, Any] = {"memory_size": SLOTS, "word_size": WORD, "dtype": torch.float64}
    model = NTM(INPUTS, HIDDEN, output_size, **defaults | options)
    enlarge(model)
    return model


def make_super_lstm(output_size: int | None = OUTPUTS, **options: Any) -> SuperLSTM:
    torch.manual_seed(0)
    return SuperLSTM(INPUTS, HIDDEN, output_size, **{"dtype": torch.float64} | options)


def make_dnc_with_own_controller(dtype: torch.dtype = torch.float64, **options: Any) -> DNC:
    torch.manual_seed(0)
    return make_dnc(controller=OwnController(INPUTS + WORD, HIDDEN, dtype), dtype=dtype, **options)


MODELS: dict[str, Callable[..., Recurrent]] = {
    "dnc": make_dnc,
    "two layers": partial(make_dnc, num_layers=2),
    "reference engine": partial(make_dnc, num_layers=2, engine="reference"),
    "three layers, three heads": partial(make_dnc, num_layers=3, read_heads=3),
    "feedforward": partial(make_dnc, num_layers=2, controller="feedforward"),
    "own controller": make_dnc_with_own_controller,
    "features": partial(make_dnc, output_size=None, num_layers=2, read_heads=3),
    "normed": partial(make_dnc, num_layers=2, read_heads=3, interface_norm=True),
    "clipped": partial(make_dnc, num_layers=2, activation_gradient_clip=0.1),
    "links detached": partial(make_dnc, options=MemoryOptions(links="detached", usage_gradient=False)),
    "no links": partial(make_dnc, read_heads=2, options=MemoryOptions(links="none", skip_unwritten=True)),
    "all options": partial(make_dnc, read_heads=2, options=ALL_OPTIONS),
    "ntm": make_ntm,
    "ntm of many heads": partial(
        make_ntm, read_heads=2, write_heads=3, shift_range=2, num_layers=2, controller="feedforward"
    ),
    "lstm": make_lstm,
    "super lstm": make_super_lstm,
    "deep super lstm": partial(make_super_lstm, num_layers=2, gate_layers=2, gate_size=4),
    "deep lstm features": partial(make_lstm, output_size=None, num_layers=3),
}
"""A model of every kind, all of input size `INPUTS`, in float64."""


def random(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def reached_state(model: Recurrent, batch_size: int = 2, seed: int = 2) -> Any:
    """The state after a random sequence: no leaf is zero or symmetric, and no two usages tie."""
    with torch.no_grad():
        return model(random(2 * SLOTS, batch_size, INPUTS, seed=seed))[1]


def unbatched(state: Any, row: int) -> Any:
    """The state of a single sequence: that row, without the batch dimension."""
    return pytree.tree_map(lambda leaf: leaf[row], state)


def stacked(states: Sequence[Any]) -> Any:
    """States of single sequences as the state of a batch."""
    return pytree.tree_map(lambda *leaves: torch.stack(leaves), *states)


Run = Callable[[Tensor, Any], tuple[Any, Any]]
"""(inputs, state) -> (outputs, final state)."""


def row_by_row(model: Recurrent, lengths: Sequence[int]) -> Run:
    """A run of every row as a sequence of its own length: outputs row by row, and the states as a batch."""

    def run_row(inputs: Tensor, state: Any, length: int) -> tuple[Tensor, Any]:
        # A call has at least one step; what a row of length zero gives is thrown away.
        outputs, final = model(inputs[: max(length, 1)], state)
        return outputs[:length], final if length else state

    def run(inputs: Tensor, state: Any) -> tuple[tuple[Tensor, ...], Any]:
        runs = [run_row(inputs[:, row], unbatched(state, row), lengths[row]) for row in range(len(lengths))]
        outputs, finals = zip(*runs, strict=True)
        return outputs, stacked(finals)

    return run


def weighted_sum(tree: Any) -> Tensor:
    """A scalar in which every number of every leaf has a weight of its own."""
    leaves = pytree.tree_leaves(tree)
    weights = [torch.arange(1, 1 + leaf.numel(), dtype=leaf.dtype).cos().view_as(leaf) for leaf in leaves]
    return torch.stack([(leaf * weight).sum() for leaf, weight in zip(leaves, weights, strict=True)]).sum()


def named_leaves(state: Any) -> dict[str, Tensor]:
    return {pytree.keystr(path): leaf for path, leaf in pytree.tree_flatten_with_path(state)[0]}


def measure(model: nn.Module, run: Run, inputs: Tensor, state: Any) -> dict[str, Any]:
    """All that a run gives: outputs, the final state, and gradients of a weighted sum of both.

    The gradients are with respect to every parameter, the inputs and every leaf of the state before the run.
    """
    inputs = inputs.clone().requires_grad_()
    state = pytree.tree_map(lambda leaf: leaf.clone().requires_grad_(), state)
    outputs, final = run(inputs, state)
    # What was written is a mark, and has no gradient.
    leaves = {name: leaf for name, leaf in named_leaves(state).items() if not name.endswith("written")}
    sources = dict(model.named_parameters()) | {"inputs": inputs} | leaves
    # A state may hold constants, of which nothing has a gradient.
    gradients = torch.autograd.grad(weighted_sum((outputs, final)), list(sources.values()), materialize_grads=True)
    names = [f"gradient of {name}" for name in sources]
    return {"outputs": outputs} | named_leaves(final) | dict(zip(names, gradients, strict=True))


def assert_same(actual: dict[str, Any], expected: dict[str, Any], tolerance: float = EXACT) -> None:
    """Fails unless two measures have the same names and, to rounding, the same numbers."""
    assert list(actual) == list(expected)
    for name in expected:
        assert_close(actual[name], expected[name], tolerance)


def assert_same_state(actual: Any, expected: Any, tolerance: float = EXACT) -> None:
    """Fails unless two states are built alike and, to rounding, hold the same numbers."""
    assert pytree.tree_structure(actual) == pytree.tree_structure(expected)
    for one, other in zip(pytree.tree_leaves(actual), pytree.tree_leaves(expected), strict=True):
        assert_close(one, other, tolerance)
