"""Calls drawn at random: sizes, settings, start, layout and way of calling all follow from one number."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils import _pytree as pytree

from tests.engines.pairs import Case, asymmetric_state, leaf_state
from torchdnc import DNC, DNCState, MemoryOptions

MOST = {"T": 40, "B": 17, "I": 20, "H": 40, "N": 130, "W": 70, "R": 5, "layers": 3}
"""The largest sizes; products go in blocks of four rows, of which there have to be several."""
SCALES = (1.0, 1.0, 0.25, 4.0, 10.0, 40.0)
STARTS = ("random", "random", "random", "none", "zero", "one-hot", "tied", "saturated", "full")
"""random: no two numbers alike; none: no state is given; tied: every slot as much in use and as attended to as any;
saturated: weightings of exactly 0 and 1, usages too; full: every usage exactly 1."""
WAYS = ("whole", "whole", "whole", "steps", "chain", "two", "no grad")
"""whole: one call; steps: `model.step`; chain: two calls, the state passed on; two: two graphs alive at once."""
LAYOUTS = {
    "whole": ("time first", "batch first", "packed", "single"),
    "steps": ("time first", "single"),
    "chain": ("time first", "batch first", "single"),
    "two": ("time first", "batch first", "packed", "single"),
    "no grad": ("time first", "batch first", "packed", "single"),
}
POISONS = (math.nan, math.nan, math.inf, 1e30)


@dataclass(frozen=True)
class Draw:
    """A call, and how the fused engine is asked for it; the reference always runs it whole and time first.

    shared: kernels share the batch even where it is not worth it; dirty: fresh memory holds NaN.
    """

    number: int
    case: Case
    dtype: torch.dtype
    start: str
    lengths: bool
    reset: bool
    way: str
    layout: str
    threads: int
    shared: bool
    dirty: bool
    padding: float

    @property
    def symmetric_start(self) -> bool:
        """Whether the first slots differ in their numbers alone."""
        return self.start in ("none", "zero")

    @property
    def symmetric_end(self) -> bool:
        """Whether some slots may, at the end, have swapped their parts with others that only numbers told apart."""
        return self.symmetric_start or self.reset

    def about(self) -> dict[str, Any]:
        """Every setting, as plain data."""
        settings = {name: value for name, value in asdict(self).items() if name != "case"}
        sizes = {name: value for name, value in asdict(self.case).items() if name not in ("seed", "masks", "options")}
        options = asdict(self.case.options)
        return settings | sizes | options | {"dtype": str(self.dtype), "padding": str(self.padding)}


def draw(number: int) -> Draw:
    """The case of this number."""
    rng = random.Random(number)
    way = rng.choice(WAYS)
    layout = rng.choice(LAYOUTS[way])
    sizes: dict[str, Any] = {name: _size(rng, most) for name, most in MOST.items()}
    if layout == "single":
        sizes["B"] = 1
    case = Case(
        **sizes,
        controller=rng.choice(("lstm", "lstm", "feedforward")),
        scale=rng.choice(SCALES),
        clip=rng.choice((None, None, 10.0, 0.01)),
        options=_options(rng),
        outputs=rng.choice((None, None, 1, 5)),
        normed=rng.random() < 0.3,
        seed=number,
    )
    return Draw(
        number=number,
        case=case,
        dtype=rng.choice((torch.float64, torch.float32)),
        start=rng.choice(STARTS),
        lengths=layout == "packed" or (way != "steps" and rng.random() < 0.5),
        reset=way != "steps" and rng.random() < 0.3,
        way=way,
        layout=layout,
        threads=rng.choice((1, 2, 3)),
        shared=rng.random() < 0.5,
        dirty=rng.random() < 0.3,
        padding=rng.choice(POISONS),
    )


def _options(rng: random.Random) -> MemoryOptions:
    """Any of them beside any others, the paper's more often."""
    masking = rng.random() < 0.3
    return MemoryOptions(
        usage_gradient=rng.random() < 0.7,
        skip_unwritten=rng.random() < 0.3,
        links="none" if rng.random() < 0.3 else "full",
        deallocation=rng.random() < 0.3,
        masking=masking,
        mask_floor=rng.choice((0.0, 0.2)) if masking else 0.0,
    )


def _size(rng: random.Random, most: int) -> int:
    """From 1 to `most`, small ones more often: every doubling as likely as any other."""
    return round(math.exp(rng.uniform(0, math.log(most))))


class Call(NamedTuple):
    """One call: inputs [T, B, I], a start or None, lengths [B] and reset [T, B] or None."""

    inputs: Tensor
    state: DNCState | None
    lengths: Tensor | None
    reset: Tensor | None

    def cut(self, first: int, last: int, state: DNCState | None) -> Call:
        """The steps from `first` to before `last`, starting from another state."""
        lengths = None if self.lengths is None else (self.lengths - first).clamp(0, last - first)
        reset = None if self.reset is None else self.reset[first:last]
        return Call(self.inputs[first:last], state, lengths, reset)

    def to(self, dtype: torch.dtype, padding: float = 0.0) -> Call:
        """With numbers of this dtype that gather gradients, and this in the padding."""
        inputs = self.inputs.to(dtype)
        if self.lengths is not None:
            inputs = inputs.masked_fill(self.padded(), padding)
        state = None if self.state is None else leaf_state(self.state.to(dtype))
        return Call(inputs.detach().clone().requires_grad_(), state, self.lengths, self.reset)

    def padded(self) -> Tensor:
        """[T, B, 1]: past the row's length."""
        assert self.lengths is not None
        return (torch.arange(len(self.inputs)).unsqueeze(-1) >= self.lengths).unsqueeze(-1)


def calls(drawn: Draw, made: DNC) -> list[Call]:
    """The call that was drawn, in float64, and a second one where there are two; `made` is of the case, in float64."""
    case = drawn.case
    torch.manual_seed(case.seed)
    state = None if drawn.start == "none" else _start(drawn.start, made, case.B)
    inputs = torch.randn(case.T, case.B, case.I, dtype=torch.float64)
    lengths = _lengths(case, packed=drawn.layout == "packed") if drawn.lengths else None
    reset = torch.rand(case.T, case.B) < 0.2 if drawn.reset else None
    call = Call(inputs, state, lengths, reset)
    return [call, call._replace(inputs=-inputs)] if drawn.way == "two" else [call]


def _lengths(case: Case, packed: bool) -> Tensor:
    """From 0 to T; a packed sequence has no empty rows, and ends with its longest."""
    lengths = torch.randint(int(packed), case.T + 1, (case.B,))
    if packed:
        lengths[torch.randint(case.B, ())] = case.T
    return lengths


def _start(kind: str, made: DNC, B: int) -> Any:
    if kind == "zero":
        return made.initial_state(B)
    state = asymmetric_state(made, B).detach()
    memory, N = state.memory, made.memory_size
    one_hot = {
        "write_weights": _one_hot(memory.write_weights),
        "read_weights": _one_hot(memory.read_weights),
        "precedence": _one_hot(memory.usage),
        "link": torch.eye(N).roll(1, 0).fill_diagonal_(0).expand(B, N, N).to(memory.usage),
    }
    even = {name: torch.full_like(getattr(memory, name), 0.9 / N) for name in ("write_weights", "read_weights")}
    changes: dict[str, Any] = {
        "random": {},
        "one-hot": one_hot,
        "tied": even | {"usage": torch.full_like(memory.usage, 0.5)},
        "saturated": one_hot | {"usage": torch.randint_like(memory.usage, 2)},
        "full": {"usage": torch.ones_like(memory.usage)},
    }
    there = {name: value for name, value in changes[kind].items() if isinstance(getattr(memory, name), Tensor)}
    return state._replace(memory=memory._replace(**there))


def _one_hot(weights: Tensor) -> Tensor:
    """Weightings of the same shape, each all on one slot."""
    slots = torch.randint(weights.shape[-1], weights.shape[:-1])
    return torch.nn.functional.one_hot(slots, weights.shape[-1]).to(weights)


def _single(state: DNCState | None) -> Any:
    return None if state is None else pytree.tree_map(lambda leaf: leaf.squeeze(0), state)


def _batched(state: Any) -> Any:
    return pytree.tree_map(lambda leaf: leaf.unsqueeze(0), state)


def _call(made: DNC, call: Call, layout: str) -> tuple[Tensor, DNCState]:
    """Outputs [T, B, O] and final state of a call in some layout."""
    inputs, state, lengths, reset = call
    outputs: Any
    made.batch_first = layout == "batch first"
    if layout == "single":
        given = None if reset is None else reset.squeeze(1)
        outputs, end = made(inputs.squeeze(1), _single(state), lengths, given)
        return outputs.unsqueeze(1), _batched(end)
    if layout == "packed":
        assert lengths is not None
        packed = pack_padded_sequence(inputs, lengths, enforce_sorted=False)
        outputs, end = made(packed, state, None, reset)
        return pad_packed_sequence(outputs)[0], end
    if layout == "batch first":
        outputs, end = made(inputs.transpose(0, 1), state, lengths, None if reset is None else reset.transpose(0, 1))
        return outputs.transpose(0, 1), end
    return made(inputs, state, lengths, reset)  # type: ignore[no-any-return]


def _steps(made: DNC, call: Call, layout: str) -> tuple[Tensor, DNCState]:
    inputs, state, outputs = call.inputs, call.state, []
    if layout == "single":
        inputs, state = inputs.squeeze(1), _single(state)
    for step_input in inputs:
        output, state = made.step(step_input, state)
        outputs.append(output)
    assert state is not None
    found = torch.stack(outputs)
    return (found.unsqueeze(1), _batched(state)) if layout == "single" else (found, state)


def _chain(made: DNC, call: Call, layout: str) -> tuple[Tensor, DNCState]:
    T = len(call.inputs)
    if T == 1:
        return _call(made, call, layout)
    first, middle = _call(made, call.cut(0, T // 2, call.state), layout)
    second, end = _call(made, call.cut(T // 2, T, middle), layout)
    return torch.cat([first, second]), end


Run = Callable[[DNC, Call], tuple[Tensor, DNCState]]


def whole(made: DNC, call: Call) -> tuple[Tensor, DNCState]:
    """As the reference is called."""
    return _call(made, call, "time first")


def as_drawn(drawn: Draw) -> Run:
    """As the fused engine is called."""
    ways = {"steps": _steps, "chain": _chain}
    return lambda made, call: ways.get(drawn.way, _call)(made, call, drawn.layout)
