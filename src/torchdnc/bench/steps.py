"""Time per step: each engine, the DNC in plain eager PyTorch, and `nn.LSTM` of the controller's size.

The reference is what the fused engine is held against; that it is no slower than plain eager PyTorch is measured too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from torch import Tensor, nn

from torchdnc.bench.eager import EagerDNC
from torchdnc.bench.goals import Goal
from torchdnc.bench.plan import Found, Plan, Tell, told
from torchdnc.bench.sizes import CALLS, SIZES, Size, dnc, sequence
from torchdnc.bench.text import GOAL_COLUMNS, judged, number, prose, table
from torchdnc.bench.timing import Rounds, interleaved

GOALS = {
    ("S", "train"): Goal(15, 10),
    ("M", "train"): Goal(9, 6),
    ("M, B 1", "train"): Goal(12, 8),
    ("S", "forward"): Goal(9, 7),
    ("M", "forward"): Goal(8, 6),
    ("M, B 1", "forward"): Goal(8, 5),
}
"""How many times faster than the reference the fused engine should be."""
MODELS = ("eager", "reference", "fused", "nn.LSTM")
ABOUT = """Milliseconds per time step, medians of the rounds, each of which calls every model in turn. *train* is
forward and backward, *forward* has no graph. Ratios are medians of the rounds' ratios, the first with its quartiles.
*eager* is the DNC written in plain eager PyTorch, apart from this package: *eager / reference* of at least 1 says
that the reference is no slower. *nn.LSTM* is the controller alone.
"""
RATIOS = (("reference", "fused"), ("eager", "reference"), ("fused", "nn.LSTM"))


def measure(plan: Plan, rounds: int, tell: Tell) -> Found:
    """Every size and call."""
    cases = [(size, call) for size in SIZES for call in CALLS]
    rows = [_row(size, call, rounds) for size, call in told(cases, tell, ", ".join)]
    return {"sizes": {name: size._asdict() for name, size in SIZES.items()}, "rows": rows}


def models(size: Size) -> dict[str, nn.Module]:
    """What is timed: one network three times, with the same weights, and the LSTM."""
    reference = dnc(size, "reference")
    made = (EagerDNC.like(reference), reference, dnc(size, "fused"), nn.LSTM(size.I, size.H))
    return dict(zip(MODELS, made, strict=True))


def _row(name: str, call: str, rounds: int) -> Found:
    size, goal = SIZES[name], GOALS.get((name, call))
    times = time_models(models(size), CALLS[call], sequence(size), rounds)
    return {
        "size": name,
        "call": call,
        "milliseconds": {model: 1e3 * times.median(model) / size.T for model in MODELS},
        "ratios": {f"{above} / {below}": times.ratio(above, below)._asdict() for above, below in RATIOS},
        "goal": goal,
    }


def time_models(
    models: dict[str, nn.Module], call: Callable[[nn.Module, Tensor], None], inputs: Tensor, rounds: int
) -> Rounds:
    """Times of one call on every model."""
    return interleaved({name: partial(call, model, inputs) for name, model in models.items()}, rounds)


def lines(found: Found) -> Iterator[str]:
    """What was found, for a reader."""
    yield f"{prose(ABOUT)}\n"
    for name, size in found["sizes"].items():
        yield f"- {name}: {Size(**size)}"
    yield ""
    ratios = [f"{above} / {below}" for above, below in RATIOS]
    head = ["size", "call", *MODELS, ratios[0], *GOAL_COLUMNS, *ratios[1:]]
    yield table(head, (_cells(row, ratios) for row in found["rows"]))


def _cells(row: Found, ratios: list[str]) -> list[str]:
    gain, *others = (row["ratios"][name] for name in ratios)
    return [
        row["size"],
        row["call"],
        *(number(row["milliseconds"][model]) for model in MODELS),
        f"{number(gain['median'])} ({number(gain['low'])} to {number(gain['high'])})",
        *judged(gain["median"], row["goal"]),
        *(number(ratio["median"]) for ratio in others),
    ]
