"""All that a drawn call gives, by name: outputs, final state, every gradient."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from tests.engines.draws import Call, Draw, Run
from tests.engines.pairs import gradients, worst
from torchdnc import DNC, DNCState, MemoryState

Answers = dict[str, Tensor]


def answers(drawn: Draw, made: DNC, called: list[Call], run: Run) -> Answers:
    """What comes of the calls, in float64; the graphs of all are alive before the first one is gone through."""
    gradient = drawn.way != "no grad"
    with torch.set_grad_enabled(gradient):
        ended = [run(made, call) for call in called]
    found: Answers = {}
    for index, (call, (outputs, end)) in enumerate(zip(called, ended, strict=True)):
        results = {"outputs": outputs} | (_numberless if drawn.symmetric_end else _named)("final", end)
        every = results | (_gradients(drawn, made, call, list(results.values())) if gradient else {})
        found |= {
            f"{name} of call {index}" if index else name: value.detach().double() for name, value in every.items()
        }
    return found


def error(got: Answers, expected: Answers) -> float:
    """`worst` of the answers; infinite where one is no number."""
    found = worst([got[name] for name in expected], list(expected.values()))
    return math.inf if math.isnan(found) else found


def marks(memory: MemoryState) -> Tensor:
    """[B, N, ·]: usage, all weightings and whether it was written to, of every slot."""
    columns = [memory.usage, memory.precedence, memory.write_weights, *memory.read_weights.unbind(1), memory.written]
    return torch.stack([column for column in columns if isinstance(column, Tensor)], -1)


def _gradients(drawn: Draw, made: DNC, call: Call, results: list[Tensor]) -> Answers:
    """Of inputs, start and parameters."""
    names, parameters = zip(*made.named_parameters(), strict=True)
    leaves, spec = pytree.tree_flatten((call.inputs, () if call.state is None else call.state, parameters))
    of_inputs, of_start, of_parameters = pytree.tree_unflatten(gradients(results, leaves), spec)
    found = zip(("inputs", *names), (of_inputs, *of_parameters), strict=True)
    by_name = {f"gradient of {name}": each for name, each in found}
    if call.state is None:
        return by_name
    # In float32 a product of two large gradients would be infinite.
    of_start = pytree.tree_map(Tensor.double, of_start)
    return by_name | (_numberless if drawn.symmetric_start else _named)("gradient of start", of_start)


def _named(what: str, state: Any) -> Answers:
    """The leaves of a state."""
    return {f"{what} {pytree.keystr(path).lstrip('.')}": leaf for path, leaf in pytree.tree_leaves_with_path(state)}


def _numberless(what: str, state: DNCState) -> Answers:
    """What of a state does not depend on how its slots are numbered: products over them of all that they hold."""
    memory, marked = state.memory.memory, marks(state.memory)
    link: Any = state.memory.link
    across = marked.transpose(1, 2)
    slots = _named(f"{what} controller", state.controller) | {
        f"{what} read_words": state.read_words,
        f"{what} memory with itself": memory.transpose(1, 2) @ memory,
        f"{what} memory with weightings": across @ memory,
        f"{what} weightings with themselves": across @ marked,
        f"{what} weightings": marked.sum(1),
    }
    if not isinstance(link, Tensor):
        return slots
    return slots | {
        f"{what} links of weightings": across @ link @ marked,
        f"{what} links of memory": across @ link @ memory,
        f"{what} links": torch.stack([link.sum((1, 2)), link.square().sum((1, 2))]),
    }
