"""A DNC on the fused engine and the same one on the reference, run on the same call."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from tests.engines.nudges import Nudges
from torchdnc import DNC, DNCState, MemoryOptions
from torchdnc.types import MARKS


@dataclass(frozen=True)
class Case:
    """Sizes and settings of a call."""

    T: int = 5
    B: int = 2
    I: int = 3
    H: int = 4
    N: int = 5
    W: int = 3
    R: int = 1
    layers: int = 1
    controller: str = "lstm"
    masks: bool = False
    scale: float = 1.0
    clip: float | None = None
    options: MemoryOptions = field(default_factory=MemoryOptions)
    outputs: int | None = None
    normed: bool = False
    bidirectional: bool = False
    seed: int = 0


def model(case: Case, engine: str, dtype: torch.dtype = torch.float64) -> DNC:
    """The same weights for every engine and, up to rounding, dtype."""
    torch.manual_seed(case.seed)
    made = DNC(
        case.I,
        case.H,
        case.outputs,
        memory_size=case.N,
        word_size=case.W,
        read_heads=case.R,
        num_layers=case.layers,
        controller=case.controller,
        engine=engine,
        activation_gradient_clip=case.clip,
        options=case.options,
        interface_norm=case.normed,
        bidirectional=case.bidirectional,
        dtype=torch.float64,
    )
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(case.scale)
        if case.normed:
            # Its gain and bias begin at 1 and 0, which would hide what is done with them.
            for parameter in made.interface[1].parameters():
                parameter.add_(torch.randn_like(parameter))
    return made.to(dtype)


def asymmetric_state(made: DNC, B: int) -> DNCState:
    """A state whose every number differs from its neighbours: no ties, and nothing symmetric."""
    zero = made.initial_state(B)
    memory, N = zero.memory, made.memory_size
    weighting = lambda like: 0.9 * torch.softmax(torch.randn_like(like), -1)  # noqa: E731
    linked, written = isinstance(memory.link, Tensor), memory.written
    if isinstance(written, Tensor):
        written = (torch.rand_like(written) > 0.4).to(written.dtype)
        # A memory that nothing was written to, too.
        written[0] = 0
    marks: dict[str, Tensor] = {}
    if isinstance(memory.age, Tensor):
        marks = {"age": 9 * torch.rand_like(memory.age), "pinned": torch.rand_like(memory.pinned).round()}
    if isinstance(memory.slots, Tensor):
        marks = {"slots": torch.randint_like(memory.slots, 1, N + 1)}
    state = DNCState(
        pytree.tree_map(torch.randn_like, zero.controller),
        memory._replace(
            memory=torch.randn_like(memory.memory),
            usage=torch.rand_like(memory.usage),
            precedence=weighting(memory.precedence) if linked else memory.precedence,
            link=torch.rand_like(memory.link) / N * (1 - torch.eye(N, dtype=memory.usage.dtype)) if linked else (),
            write_weights=weighting(memory.write_weights),
            read_weights=weighting(memory.read_weights),
            written=written,
            **marks,
        ),
        torch.randn_like(zero.read_words),
    )
    return leaf_state(state)


def leaf_state(state: DNCState) -> DNCState:
    """The state with leaves that gather gradients, but for the memory's marks, which have none."""
    made: DNCState = pytree.tree_map(lambda leaf: leaf.detach().clone().requires_grad_(), state)
    for name in MARKS:
        mark = getattr(made.memory, name)
        if isinstance(mark, Tensor):
            mark.requires_grad_(False)
    return made


def masks(case: Case) -> dict[str, Any]:
    """Lengths, zero among them, and resets, past the ends too."""
    if not case.masks:
        return {}
    lengths = torch.randint(0, case.T + 1, (case.B,))
    lengths[0], lengths[-1] = 0, case.T
    return {"lengths": lengths, "reset": torch.rand(case.T, case.B) < 0.3}


def everything(made: DNC, inputs: Tensor, state: DNCState, **call: Any) -> list[Tensor]:
    """Outputs, final state, and the gradients of inputs, parameters and start for a fixed random loss."""
    outputs, end = made(inputs, state, **call)
    results = [outputs, *pytree.tree_leaves(end)]
    return [*results, *gradients(results, [inputs, *pytree.tree_leaves(state), *made.parameters()])]


def gradients(results: list[Tensor], wanted: list[Tensor]) -> list[Tensor]:
    """Those of the wanted tensors, for a fixed random weighting of all results; zeros where none depends on one."""
    # What was written has no gradient.
    results = [result for result in results if result.requires_grad]
    torch.manual_seed(1)
    seeds = [torch.randn(result.shape, dtype=torch.float64).to(result.dtype) for result in results]
    asked = [of for of in wanted if of.requires_grad]
    found = iter(torch.autograd.grad(results, asked, seeds, allow_unused=True))
    every = [next(found) if of.requires_grad else None for of in wanted]
    return [torch.zeros_like(of) if got is None else got for got, of in zip(every, wanted, strict=True)]


def run(
    case: Case,
    engine: str,
    dtype: torch.dtype = torch.float64,
    start: Any = asymmetric_state,
    nudges: Nudges | None = None,
) -> list[Tensor]:
    """`everything` of a case on an engine, as float64 numbers.

    Args:
        nudges: give the parameters, and whatever is squashed, other last bits.
    """
    made = model(case, engine, torch.float64)
    torch.manual_seed(2)
    inputs = torch.randn(case.T, case.B, case.I, dtype=torch.float64)
    state, call = start(made, case.B), masks(case)
    made = made.to(dtype)
    if nudges:
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.copy_(nudges.nudge(parameter))
    with nudges or contextlib.nullcontext():
        found = everything(made, inputs.to(dtype).requires_grad_(), leaf_state(state.to(dtype)), **call)
    return [result.double() for result in found]


def worst(got: list[Tensor], expected: list[Tensor]) -> float:
    """The largest error, of each tensor against its own largest number (or 1e-3, where all are tiny); NaN if one is."""
    errors = [torch.zeros((), dtype=torch.float64)]
    for one, other in zip(got, expected, strict=True):
        assert one.shape == other.shape, f"shape {list(one.shape)} instead of {list(other.shape)}"
        if other.numel():
            errors.append((one - other).abs().max() / other.abs().max().clamp(min=1e-3))
    return torch.stack(errors).max().item()
