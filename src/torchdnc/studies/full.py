"""What happens when the memory is full? Keyed recall of a quarter to four times as many items as there are slots."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor, nn

from torchdnc.bench.text import prose, table
from torchdnc.nn import DNC, SparseDNC
from torchdnc.studies.drawing import percent, spread
from torchdnc.studies.recalling import SLOTS, TASK, recalled, training
from torchdnc.studies.study import Found, Plan, Study, trained
from torchdnc.training import RunConfig
from torchdnc.training.evaluate import load_run
from torchdnc.training.figures import png
from torchdnc.training.models import DNCModel, SparseDNCModel
from torchdnc.types import MemoryOptions

ITEMS = (8, 16, 24, 32, 40, 48, 64, 96, 128)
REPORTED = (24, 32, 64, 128)
"""Of these the pages say what happens to the memory."""
BELOW = 24
"""Items that surely fit: what policies are held against."""
SEEDS = 3
DENSE = DNCModel(
    hidden_size=64,
    memory_size=SLOTS,
    word_size=32,
    read_heads=1,
    options=MemoryOptions(skip_unwritten=True, links="none"),
)
RECLAIMING = replace(DENSE.options, overflow="reclaim", high_watermark=0.97, low_watermark=0.97)
GROWING = replace(DENSE.options, overflow="grow", max_memory_size=8 * max(ITEMS))
SPARSE = SparseDNCModel(hidden_size=64, memory_size=4096, word_size=32, read_heads=1, links=False)


def trainings(quick: bool) -> dict[str, RunConfig]:
    """The runs by name: a dense memory that drops and one that reclaims, and a sparse one."""
    run = replace(training(TASK, 300 if quick else 6000), model=DENSE)
    # Of as many items as there are slots: what it wrote while it is asked would push some of them out.
    pressed = replace(run, task=replace(TASK, max_items=SLOTS))
    return {
        "dense": run,
        "reclaiming": replace(pressed, model=replace(DENSE, options=RECLAIMING)),
        "sparse": replace(run, model=SPARSE),
    }


Change = Callable[[nn.Module], nn.Module]


def _with_options(options: MemoryOptions) -> Change:
    """The same weights with another policy."""

    def change(model: nn.Module) -> nn.Module:
        assert isinstance(model, DNC)
        model.options = options
        return model

    return change


def _with_slots(memory_size: int) -> Change:
    """The same weights with another number of slots."""

    def change(model: nn.Module) -> nn.Module:
        assert isinstance(model, DNC | SparseDNC)
        model.memory_size = memory_size
        return model

    return change


class OnDisk(nn.Module):
    """A sparse memory whose slots lie in a file, a new one for every call."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        assert isinstance(model, SparseDNC)
        self.model = model

    def forward(self, inputs: Tensor) -> Any:
        """Outputs and no state, which would be of a file that is gone."""
        with TemporaryDirectory() as folder:
            self.model.storage = Path(folder) / "memory"
            return self.model(inputs)[0], None


POLICIES: dict[str, tuple[str, Change]] = {
    "drop": ("dense", lambda model: model),
    "reclaim": ("dense", _with_options(RECLAIMING)),
    "reclaim, trained with": ("reclaiming", lambda model: model),
    "grow": ("dense", _with_options(GROWING)),
    "512 slots": ("dense", _with_slots(512)),
    "sparse, 32 slots": ("sparse", _with_slots(SLOTS)),
    "sparse, on disk": ("sparse", OnDisk),
}
"""Name -> which of the trained models, and what is changed of it."""


def measure(plan: Plan) -> Found:
    """Trains memories, then asks them for more items than fit, under every policy."""
    seeds, sequences = (1, 32) if plan.quick else (SEEDS, 64)
    runs = {name: trained(plan, name, config, seeds) for name, config in trainings(plan.quick).items()}
    found: Found = {"slots": SLOTS, "items": list(ITEMS), "sequences": sequences, "policies": {}, "reports": {}}
    for policy, (kind, change) in POLICIES.items():
        plan.tell(policy)
        found["policies"][policy] = {
            asked: [_shares(folder, change, latest, sequences) for folder in runs[kind]]
            for asked, latest in ASKED.items()
        }
    for policy in ("drop", "reclaim, trained with", "grow"):
        plan.tell(f"{policy}: what happens to the memory")
        kind, change = POLICIES[policy]
        found["reports"][policy] = [_reports(folder, change) for folder in runs[kind]]
    return found


ASKED = {"all": None, "latest": SLOTS}
"""Which items are asked for: how many of those that came last."""


def _shares(folder: Path, change: Change, latest: int | None, sequences: int) -> list[float]:
    """The share recalled of each number of items, or of the latest of them."""
    model, task = change(load_run(folder)[1]), replace(TASK, latest=latest)
    shares = (recalled(model, task.with_length(items), sequences)[-(latest or items) :] for items in ITEMS)
    return [float(share.mean()) for share in shares]


def _reports(folder: Path, change: Change) -> dict[str, dict[str, float]]:
    """What the memory went through in a sequence of each number of items, on average over some."""
    reports: dict[str, dict[str, float]] = {}
    for items in REPORTED:
        model = change(load_run(folder)[1])
        assert isinstance(model, DNC)
        (batch,) = TASK.with_length(items).evaluation("test", batch_size=8, sequences=8, seed=0)
        summary = model.report(batch.inputs, lengths=batch.lengths)[0].summary()
        reports[str(items)] = {name: float(value.mean()) for name, value in summary.items()}
    return reports


def mean(found: Found, policy: str, asked: str, items: int) -> float:
    """The share recalled, mean over seeds."""
    return statistics.fmean(seed[found["items"].index(items)] for seed in found["policies"][policy][asked])


def figure(found: Found) -> bytes:
    """Recall against items for each slot: of all items, and of the latest that there are slots for."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(10, 4.2), layout="constrained")
    panels: Any = drawn.subplots(1, 2, sharey=True)
    slots = found["slots"]
    for panel, asked, title in ((panels[0], "all", "all items"), (panels[1], "latest", f"the latest {slots} items")):
        for place, (policy, seeds) in enumerate(found["policies"].items()):
            spread(panel, [items / slots for items in found["items"]], seeds[asked], policy, place)
        panel.axvline(1, color="black", linestyle=":", linewidth=1)
        panel.set(xscale="log", xlabel=f"items for each of the {slots} slots", title=title)
        panel.set_xticks([0.25, 0.5, 1, 2, 4], ["1/4", "1/2", "1", "2", "4"])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("share recalled")
    panels[1].legend(fontsize="small")
    return png(drawn)


def answer(found: Found) -> str:
    """In a paragraph."""
    slots, most = found["slots"], max(found["items"])
    below, above = (mean(found, "drop", "all", items) for items in (BELOW, most))
    grow, disk = (mean(found, policy, "all", most) for policy in ("grow", "sparse, on disk"))
    dropped, latest = (mean(found, policy, "latest", most) for policy in ("drop", "reclaim, trained with"))
    return (
        f"A memory of {slots} slots recalls {below:.1%} of {BELOW} items, and of {most} items {above:.1%} where writes "
        f"are dropped, as in the paper. Growing, it recalls {grow:.1%} of the {most}, a sparse memory on disk "
        f"{disk:.1%}. Reclaiming recalls {latest:.1%} of the latest {slots}, of which dropping recalls {dropped:.1%}."
    )


def lines(found: Found) -> Iterator[str]:
    """The tables, and what they do not say."""
    slots = found["slots"]
    for title, asked in (("Share of all items recalled", "all"), (f"Of the latest {slots} items", "latest")):
        yield f"{title}, %; the mean over seeds, the least in brackets:"
        yield ""
        rows = ([policy, *map(percent, zip(*seeds[asked], strict=True))] for policy, seeds in found["policies"].items())
        yield table(["items", *found["items"]], rows)
        yield ""
    yield "What a sequence does to the memory, on average: written and lost, written over, released, slots at the end:"
    yield ""
    cells = []
    for policy, seeds in found["reports"].items():
        for name in ("lost", "overwritten", "evicted", "slots"):
            means = (statistics.fmean(seed[str(items)][name] for seed in seeds) for items in REPORTED)
            cells.append([f"{policy}: {name}", *(f"{mean:.1f}" for mean in means)])
    yield table(["items", *REPORTED], cells)
    yield ""
    yield prose(
        f"Trained on 1 to {BELOW} items with {DENSE.memory_size} slots (dense) or {SPARSE.memory_size} (sparse), and "
        f"tested with these weights on {found['sequences']} sequences of each number of items; where it says so, "
        f"trained with the policy itself, on 1 to {SLOTS} items. "
        f"An item is recalled when all {TASK.value_bits} bits of its value are right. Keys are random, "
        f"{TASK.key_bits} bits: the more there are, "
        "the more alike are two of them. The sparse memory takes a slot at every step, questions too, the oldest where "
        "none is free. What happens to the memory is told of sequences that ask for all items. The line of 512 "
        f"slots shows what the look-up alone costs. Reclaiming lets {math.floor(RECLAIMING.high_watermark * SLOTS)} "
        f"slots stand, so that of the latest {SLOTS} items one is gone; and it releases what was neither written nor "
        "read for longest, so that an old item that was read by the way outlives a younger one. What is released has "
        "no gradient: no model is told that a write while it is asked pushes an item out, and some go on writing."
    )


STUDY = Study("What happens when the memory is full?", measure, figure, answer, lines)
