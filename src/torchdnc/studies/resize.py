"""Does a trained memory work at another size? A tenth to a hundred times the slots that it was trained with."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchdnc.bench.text import prose, table
from torchdnc.nn import DNC
from torchdnc.studies.drawing import percent, spread
from torchdnc.studies.recalling import SLOTS, TASK, recalled, training
from torchdnc.studies.study import Found, Plan, Study, trained
from torchdnc.training import RunConfig
from torchdnc.training.evaluate import load_run
from torchdnc.training.figures import png
from torchdnc.training.models import DNCModel
from torchdnc.types import MemoryOptions

SIZES = (3, 8, 16, 32, 64, 128, 320, 1000, 3200)
FEW, MANY = 3, 24
"""Items that fit every memory, and those that fit the one of training."""
SEEDS = 3


def trainings(quick: bool) -> dict[str, RunConfig]:
    """A memory whose look-ups see every slot, as in the paper, and one that skips those never written."""
    model = DNCModel(hidden_size=64, memory_size=SLOTS, word_size=32, read_heads=1, options=MemoryOptions(links="none"))
    run = replace(training(TASK, 200 if quick else 6000), model=model)
    skipping = replace(model, options=replace(model.options, skip_unwritten=True))
    return {"plain": run, "skipping": replace(run, model=skipping)}


class Warmer(nn.Module):
    """An interface whose strengths are larger by a number: β + ln(N / N₀) in place of β.

    A look-up weighs an empty slot exp(0) and what it finds exp(β s). With N slots in place of N₀ there are N / N₀ times
    as many empty ones, if nearly all are; where the similarity s is 1 this keeps the odds.

    Args:
        interface: the model's own.
        places: of the raw strengths in the interface vector.
        more: what is added to each strength.
    """

    def __init__(self, interface: nn.Module, places: list[int], more: float) -> None:
        super().__init__()
        self.interface, self.places, self.more = interface, places, more

    def forward(self, features: Tensor) -> Tensor:
        """The interface vector, its raw strengths moved so that the strengths are larger by as much."""
        raw: Tensor = self.interface(features)
        strengths = F.softplus(raw[..., self.places]) + self.more
        # Where they would fall below 1, the least that an interface can say.
        strengths = strengths.clamp(min=1e-6)
        moved = raw.clone()
        moved[..., self.places] = strengths + torch.log(-torch.expm1(-strengths))
        return moved


def warmed(model: DNC) -> DNC:
    """The model with look-ups corrected for its number of slots."""
    W, R = model.word_size, model.read_heads
    # The paper's order: read keys, their strengths, write key, its strength.
    places = [*range(R * W, R * W + R), R * W + R + W]
    model.interface = Warmer(model.interface, places, math.log(model.memory_size / SLOTS))
    # Compiled kernels know the linear interface alone.
    model.engine = "reference"
    return model


KINDS: dict[str, tuple[str, Callable[[DNC], DNC]]] = {
    "plain": ("plain", lambda model: model),
    "temperature-corrected": ("plain", warmed),
    "size-invariant": ("skipping", lambda model: model),
}
"""Name -> which of the trained models, and what is changed of it."""


def measure(plan: Plan) -> Found:
    """Trains both memories, then gives each other numbers of slots."""
    seeds, sequences = (1, 16) if plan.quick else (SEEDS, 64)
    runs = {name: trained(plan, name, config, seeds) for name, config in trainings(plan.quick).items()}
    sizes = [size for size in SIZES if size <= 320 or not plan.quick]
    found: Found = {"slots": SLOTS, "sizes": sizes, "few": {}, "many": {}, "changed": {}}
    for kind, (name, change) in KINDS.items():
        plan.tell(kind)
        for items, title in ((FEW, "few"), (MANY, "many")):
            found[title][kind] = [_shares(folder, change, sizes, items, sequences) for folder in runs[name]]
        found["changed"][kind] = [_changed(folder, change, sizes) for folder in runs[name]]
    return found


def _resized(folder: Path, change: Callable[[DNC], DNC], memory_size: int) -> DNC:
    _, model = load_run(folder, memory_size=memory_size)
    assert isinstance(model, DNC)
    return change(model)


def _shares(folder: Path, change: Callable[[DNC], DNC], sizes: list[int], items: int, sequences: int) -> list[float]:
    """The share of so many items recalled with each number of slots."""
    task = TASK.with_length(items)
    return [float(recalled(_resized(folder, change, size), task, sequences).mean()) for size in sizes]


@torch.no_grad()
def _changed(folder: Path, change: Callable[[DNC], DNC], sizes: list[int]) -> list[float | None]:
    """The largest change of an output against that with the slots of training, of sequences that fit in both.

    The few items and the questions for them take twice as many steps: in a smaller memory some find no fresh slot.
    """
    (batch,) = TASK.with_length(FEW).evaluation("test", batch_size=16, sequences=16, seed=0)
    expected = _resized(folder, change, SLOTS)(batch.inputs)[0]
    fits = [size >= len(batch.inputs) for size in sizes]
    return [
        float((_resized(folder, change, size)(batch.inputs)[0] - expected).abs().max()) if fit else None
        for size, fit in zip(sizes, fits, strict=True)
    ]


def mean(found: Found, title: str, kind: str, size: int) -> float:
    """The share recalled of few or many items with so many slots, mean over seeds."""
    return statistics.fmean(seed[found["sizes"].index(size)] for seed in found[title][kind])


def figure(found: Found) -> bytes:
    """Recall against the number of slots, of few and of many items."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(10, 4.2), layout="constrained")
    panels: Any = drawn.subplots(1, 2, sharey=True)
    for panel, title, items in ((panels[0], "few", FEW), (panels[1], "many", MANY)):
        for place, (kind, seeds) in enumerate(found[title].items()):
            spread(panel, found["sizes"], seeds, kind, place)
        panel.axvline(found["slots"], color="black", linestyle=":", linewidth=1, label="slots while training")
        panel.set(xscale="log", xlabel="slots", title=f"{items} items", ylim=(-0.03, 1.03))
        panel.set_xticks(found["sizes"], [str(size) for size in found["sizes"]])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("share of items recalled")
    panels[1].legend(fontsize="small", loc="lower right")
    return png(drawn)


def answer(found: Found) -> str:
    """In a paragraph."""
    most = found["sizes"][-1]
    told = "; ".join(
        f"{kind} {mean(found, 'many', kind, found['slots']):.1%} and {mean(found, 'many', kind, most):.1%}"
        for kind in KINDS
    )
    changed = max(value for seed in found["changed"]["size-invariant"] for value in seed if value is not None)
    return (
        f"Of {MANY} items a memory trained with {found['slots']} slots recalls, with as many and with {most}: {told}. "
        f"Where look-ups skip the slots that were never written, {_most(changed)}, "
        "however many slots there are, as long as one is left to write to."
    )


def _most(changed: float) -> str:
    return f"no output changes by more than {changed:.0e}" if changed else "no bit of an output changes"


def lines(found: Found) -> Iterator[str]:
    """The tables, and what they do not say."""
    for title, items in (("few", FEW), ("many", MANY)):
        yield f"Share of {items} items recalled, %; the mean over seeds, the least in brackets:"
        yield ""
        rows = ([kind, *map(percent, zip(*seeds, strict=True))] for kind, seeds in found[title].items())
        yield table(["slots", *found["sizes"]], rows)
        yield ""
    yield f"The largest change of an output against that with {found['slots']} slots, {FEW} items, over all seeds:"
    yield ""
    yield table(["slots", *found["sizes"]], _changes(found))
    yield ""
    yield prose(
        f"Trained on 1 to {MANY} items, without links, of {TASK.key_bits} bits of key and {TASK.value_bits} of value; "
        "an item is recalled when all of its value is right. *plain* looks every slot up, as in the paper. "
        f"*temperature-corrected* has the same weights, and strengths larger by ln(slots / {found['slots']}), which "
        "keeps the odds between a perfect match and the empty slots where nearly all are empty, and as far down as "
        "strengths go, which are at least 1. *size-invariant* (`skip_unwritten=True`) was "
        "trained so. A memory of fewer slots than items cannot hold them all."
    )


def _changes(found: Found) -> Iterator[list[str]]:
    for kind, seeds in found["changed"].items():
        columns = zip(*seeds, strict=True)
        yield [kind, *("–" if column[0] is None else f"{max(column):.0e}" for column in columns)]


STUDY = Study("Does a trained memory work at another size?", measure, figure, answer, lines)
