"""What happens when the memory is full? Keyed recall of a quarter to four times as many items as there are slots."""

from __future__ import annotations

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
from torchdnc.studies.recalling import recalled
from torchdnc.studies.study import Found, Plan, Study, trained
from torchdnc.tasks import KeyedRecall
from torchdnc.training import RunConfig
from torchdnc.training.config import Goal
from torchdnc.training.evaluate import load_run
from torchdnc.training.figures import png
from torchdnc.training.models import DNCModel, SparseDNCModel
from torchdnc.training.optim import Optimizer
from torchdnc.types import MemoryOptions

SLOTS = 32
ITEMS = (8, 16, 24, 32, 40, 48, 64, 96, 128)
BELOW = 24
"""Items that surely fit: what policies are held against."""
SEEDS = 3
# With as many questions as items there are more steps than slots: a model learns not to write at all of them.
TASK = KeyedRecall(key_bits=16, value_bits=8, min_items=1, max_items=BELOW, max_delay=4)
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
    run = RunConfig(
        task=TASK,
        model=DENSE,
        optimizer=Optimizer(name="adam", learning_rate=3e-3, clip_norm=10.0),
        goal=Goal("wrong_bits", 1e-4),
        batch_size=32,
        threads=1,
        steps=300 if quick else 6000,
        eval_every=250,
        eval_sequences=256,
    )
    # Learns under pressure, of more items than slots: what is gone it cannot answer, so that there is no goal.
    pressed = replace(run, task=replace(TASK, max_items=3 * SLOTS // 2), goal=None, steps=run.steps // 3)
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
    seeds, sequences = (1, 32) if plan.quick else (SEEDS, 256)
    runs = {name: trained(plan, name, config, seeds) for name, config in trainings(plan.quick).items()}
    found: Found = {"slots": SLOTS, "items": list(ITEMS), "sequences": sequences, "policies": {}, "reports": {}}
    for policy, (kind, change) in POLICIES.items():
        plan.tell(policy)
        found["policies"][policy] = [_shares(folder, change, sequences) for folder in runs[kind]]
    for policy in ("drop", "reclaim, trained with", "grow"):
        kind, change = POLICIES[policy]
        found["reports"][policy] = [_reports(folder, change) for folder in runs[kind]]
    return found


def _shares(folder: Path, change: Change, sequences: int) -> dict[str, list[float]]:
    """Of every number of items the shares recalled: of each item, the one stored first coming first."""
    shares: dict[str, list[float]] = {}
    for items in ITEMS:
        model = change(load_run(folder)[1])
        shares[str(items)] = recalled(model, TASK.with_length(items), sequences).tolist()
    return shares


def _reports(folder: Path, change: Change) -> dict[str, dict[str, float]]:
    """What the memory went through in a sequence of each number of items, on average over some."""
    reports: dict[str, dict[str, float]] = {}
    for items in ITEMS:
        model = change(load_run(folder)[1])
        assert isinstance(model, DNC)
        (batch,) = TASK.with_length(items).evaluation("test", batch_size=16, sequences=16, seed=0)
        summary = model.report(batch.inputs)[0].summary()
        reports[str(items)] = {name: float(value.mean()) for name, value in summary.items()}
    return reports


def share(shares: dict[str, list[float]], items: int, latest: int | None = None) -> float:
    """The mean share recalled of so many items, or of the latest of them."""
    each = shares[str(items)]
    return statistics.fmean(each[-latest:] if latest else each)


def summary(found: Found, policy: str, items: int, latest: int | None = None) -> float:
    """The mean over seeds."""
    return statistics.fmean(share(each, items, latest) for each in found["policies"][policy])


def figure(found: Found) -> bytes:
    """Recall against items for each slot: of all items, and of the latest that there are slots for."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(10, 4.2), layout="constrained")
    panels: Any = drawn.subplots(1, 2, sharey=True)
    slots = found["slots"]
    for panel, latest, title in ((panels[0], None, "all items"), (panels[1], slots, f"the latest {slots} items")):
        for place, (policy, seeds) in enumerate(found["policies"].items()):
            each_seed = [[share(each, items, latest) for items in found["items"]] for each in seeds]
            spread(panel, [items / slots for items in found["items"]], each_seed, policy, place)
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
    below, above = (summary(found, "drop", items) for items in (BELOW, most))
    grow, disk = (summary(found, policy, most) for policy in ("grow", "sparse, on disk"))
    dropped, latest = (summary(found, policy, most, slots) for policy in ("drop", "reclaim, trained with"))
    return (
        f"A memory of {slots} slots recalls {below:.1%} of {BELOW} items, and of {most} items {above:.1%} where writes "
        f"are dropped, as in the paper. Growing, it recalls {grow:.1%} of the {most}, a sparse memory on disk "
        f"{disk:.1%}. Reclaiming recalls {latest:.1%} of the latest {slots}, of which dropping recalls {dropped:.1%}."
    )


def lines(found: Found) -> Iterator[str]:
    """The tables, and what they do not say."""
    slots = found["slots"]
    for title, latest in (("Share of all items recalled, %", None), (f"Of the latest {slots} items, %", slots)):
        yield f"{title}; the mean over seeds that learned with finite losses, the least in brackets:"
        yield ""
        yield table(
            ["items", *found["items"]],
            (
                [policy, *(percent([share(each, items, latest) for each in seeds]) for items in found["items"])]
                for policy, seeds in found["policies"].items()
            ),
        )
        yield ""
    yield "What a sequence does to the memory, on average: written and lost, written over, released, slots at the end:"
    yield ""
    rows = []
    for policy, seeds in found["reports"].items():
        for name in ("lost", "overwritten", "evicted", "slots"):
            means = [statistics.fmean(each[str(items)][name] for each in seeds) for items in found["items"]]
            rows.append([f"{policy}: {name}", *(f"{mean:.1f}" for mean in means)])
    yield table(["items", *found["items"]], rows)
    yield ""
    yield prose(
        f"Trained on 1 to {BELOW} items with {DENSE.memory_size} slots (dense) or {SPARSE.memory_size} (sparse), and "
        f"tested with these weights on {found['sequences']} sequences of each number of items; where it says so, "
        f"trained with the policy itself, on 1 to {3 * SLOTS // 2} items. An item is recalled when all "
        f"{TASK.value_bits} bits of its value are right. Keys are random, {TASK.key_bits} bits: the more there are, "
        "the more alike are two of them. The sparse memory takes a slot at every step, questions too. The line of 512 "
        f"slots shows what the look-up alone costs. Reclaiming holds {RECLAIMING.high_watermark:.0%} of the slots."
    )


STUDY = Study("What happens when the memory is full?", measure, figure, answer, lines)
