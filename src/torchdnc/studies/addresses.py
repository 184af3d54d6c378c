"""Does the controller drown in addresses? Items recalled against slots and controller units, and linear probes."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from torchdnc.bench.text import number, prose, table
from torchdnc.nn import DNC
from torchdnc.studies.drawing import percent, spread
from torchdnc.studies.probing import Probe
from torchdnc.studies.recalling import SLOTS, TASK, recalled, training
from torchdnc.studies.study import Found, Plan, Study, trained
from torchdnc.training import RunConfig
from torchdnc.training.evaluate import load_run
from torchdnc.training.figures import png
from torchdnc.training.models import DNCModel, LSTMModel
from torchdnc.types import DNCState, MemoryOptions

EASIER = replace(TASK, max_items=4)
"""What a model without a memory is given: of 24 items it learns nothing."""
UNITS = {"dnc": (16, 32, 64, 128), "lstm": (64, 256)}
MEMORIES = (32, 64, 128, 256, 512)
ITEMS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
PROBED = 64
"""Units of the controllers that are probed."""
AGO = 8
"""How far back the probes ask: for the latest item, the one before it, and so on."""
SEEDS = 3


def trainings(quick: bool) -> dict[str, RunConfig]:
    """A run for every kind and number of units, by the name `kind-units`."""
    run = training(TASK, 200 if quick else 4000)
    options = MemoryOptions(skip_unwritten=True, links="none")
    runs: dict[str, RunConfig] = {}
    for units in UNITS["dnc"]:
        runs[f"dnc-{units}"] = replace(run, model=DNCModel(units, SLOTS, 32, read_heads=1, options=options))
    for units in UNITS["lstm"]:
        runs[f"lstm-{units}"] = replace(run, model=LSTMModel(units), task=EASIER, steps=run.steps // 2)
    return runs


def measure(plan: Plan) -> Found:
    """Trains controllers of several sizes; asks each for more and more items, in more and more slots; probes some."""
    seeds, sequences = (1, 16) if plan.quick else (SEEDS, 64)
    runs = trainings(plan.quick)
    folders = {name: trained(plan, name, config, seeds) for name, config in runs.items()}
    items = [number for number in ITEMS if number <= (64 if plan.quick else max(ITEMS))]
    found: Found = {"slots": SLOTS, "items": items, "memories": [*MEMORIES], "capacity": {}, "parameters": {}}
    for name, config in runs.items():
        plan.tell(f"capacity of {name}")
        found["parameters"][name] = config.model.count_parameters(config.task.spec)
        memories: tuple[int | None, ...] = MEMORIES if isinstance(config.model, DNCModel) else (None,)
        found["capacity"][name] = {
            str(slots or 0): [capacity(folder, slots, items, sequences) for folder in folders[name]]
            for slots in memories
        }
    plan.tell("probes")
    samples = 400 if plan.quick else 8000
    found["probes"] = {
        kind: [probes(load_run(folder)[1], samples) for folder in folders[f"{kind}-{PROBED}"]] for kind in UNITS
    }
    found["renumbered"] = [renumbered(load_run(folder)[1]) for folder in folders[f"dnc-{PROBED}"]]
    return found


def capacity(folder: Path, memory_size: int | None, items: list[int], sequences: int) -> Found:
    """The share recalled of each number of items, up to twice the slots; without a memory, twice what a DNC learned."""
    _, model = load_run(folder, memory_size=memory_size)
    asked = [number for number in items if number <= 2 * (memory_size or TASK.max_items)]
    return {"shares": [float(recalled(model, TASK.with_length(number), sequences).mean()) for number in asked]}


@torch.no_grad()
def probes(model: nn.Module, samples: int) -> dict[str, list[float]]:
    """What a linear map finds in the controller's state at a random step, of the items stored 0, 1, ... steps before.

    Returns:
        for each of these an entry; 0 is what guessing the most frequent class would find, 1 everything.
        "value": the bits of an item's value. Of a memory also "slot, fresh memory": where the item was written, when
        slots are taken in their order; "slot, shuffled": the same where the usage before the first step makes every
        sequence take them in an order of its own.
    """
    torch.manual_seed(0)
    (batch,) = TASK.with_length(TASK.max_items).evaluation("test", batch_size=samples, sequences=samples, seed=1)
    stored = batch.inputs[: TASK.max_items]
    now = torch.randint(AGO - 1, TASK.max_items, (samples,))
    values = stored[..., TASK.key_bits : TASK.key_bits + TASK.value_bits].long()
    states, slots = _states(model, stored, None)
    found = {"value": _found(states, values, now, 2)}
    if isinstance(model, DNC):
        found["slot, fresh memory"] = _found(states, slots, now, SLOTS)
        states, slots = _states(model, stored, shuffled(model, samples))
        found["slot, shuffled"] = _found(states, slots, now, SLOTS)
    return found


@torch.no_grad()
def renumbered(model: nn.Module) -> float:
    """The largest change of an output when the slots of a memory are numbered in another way before the first step."""
    assert isinstance(model, DNC)
    torch.manual_seed(0)
    (batch,) = TASK.with_length(TASK.max_items).evaluation("test", batch_size=32, sequences=32, seed=1)
    state, order = shuffled(model, 32), torch.randperm(SLOTS)
    other = state._replace(memory=state.memory._replace(usage=state.memory.usage[:, order]))
    return float((model(batch.inputs, state)[0] - model(batch.inputs, other)[0]).abs().max())


def shuffled(model: DNC, batch_size: int) -> DNCState:
    """A memory whose slots are taken in an order of each row's own.

    It is all but empty: a slot is used a thousandth at most; a little of every write goes to all of them, and soon they
    count as written.
    """
    state = model.initial_state(batch_size)
    order = torch.rand(batch_size, model.memory_size).argsort(-1)
    usage = 1e-3 * order / model.memory_size
    fresh: DNCState = state._replace(memory=state.memory._replace(usage=usage.to(state.memory.usage)))
    return fresh


def _states(model: nn.Module, inputs: Tensor, state: Any) -> tuple[Tensor, Tensor]:
    """The controller's activations [T, S, F] after every step, and [T, S, 1] the slot mainly written."""
    found, slots = [], []
    state = state if state is not None else model.initial_state(inputs.shape[1])  # type: ignore[operator]
    for step_input in inputs:
        _, state = model.step(step_input, state)  # type: ignore[operator]
        memory = getattr(state, "memory", None)
        own = state.controller if memory is not None else state
        found.append(torch.cat([*own.hidden, *own.cell], -1))
        if memory is not None:
            slots.append(memory.write_weights.argmax(-1, keepdim=True))
    return torch.stack(found), torch.stack(slots) if slots else inputs.new_zeros(0)


def _at(states: Tensor, steps: Tensor) -> Tensor:
    """[S, F]: of [T, S, F] what each sequence has at a step of its own."""
    return states[steps, torch.arange(len(steps))]


def _found(states: Tensor, targets: Tensor, now: Tensor, classes: int) -> list[float]:
    """Share found above chance, in the states at the steps `now`, of the targets [T, S, C] then and before, mean over
    the C."""
    probe = Probe(_at(states, now))
    return [
        statistics.fmean(probe.above_chance(column, classes) for column in _at(targets, now - ago).unbind(-1))
        for ago in range(AGO)
    ]


def most(found: Found, name: str, slots: int = 0) -> float:
    """The most items recalled, mean over seeds."""
    return statistics.fmean(at_most(found, name, slots))


def at_most(found: Found, name: str, slots: int = 0) -> list[float]:
    """Of each seed the most items recalled, over all numbers of items; what guessing would get is taken out."""
    guessed = 0.5**TASK.value_bits
    seeds = (enumerate(seed["shares"]) for seed in found["capacity"][name][str(slots)])
    return [max(found["items"][n] * (share - guessed) / (1 - guessed) for n, share in shares) for shares in seeds]


def figure(found: Found) -> bytes:
    """Capacity against slots for every controller, and against units; what probes find."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(13, 4.2), layout="constrained")
    by_slots, by_units, probed = drawn.subplots(1, 3)
    memories = found["memories"]
    for place, units in enumerate(UNITS["dnc"]):
        of_slots = [at_most(found, f"dnc-{units}", slots) for slots in memories]
        spread(by_slots, memories, [*zip(*of_slots, strict=True)], f"DNC, {units} units", place)
    by_slots.plot(memories, memories, color="black", linestyle=":", linewidth=1, label="one item a slot")
    by_slots.set(xscale="log", yscale="log", xlabel="slots", ylabel="most items recalled", title="more slots")
    by_slots.set_xticks(memories, [str(n) for n in memories])
    by_slots.set_yticks(memories, [str(n) for n in memories])
    lines = {f"DNC, {n} slots": ("dnc", n) for n in memories[:: len(memories) // 2]} | {"LSTM": ("lstm", 0)}
    for place, (label, (kind, slots)) in enumerate(lines.items()):
        cells = (at_most(found, f"{kind}-{units}", slots) for units in UNITS[kind])
        # A seed whose loss was no number is left out of its run: then of the others, too.
        spread(by_units, UNITS[kind], [*zip(*cells, strict=False)], label, place)
    by_units.set(xscale="log", yscale="log", xlabel="units of the controller", title="a larger controller")
    by_units.set_xticks([16, 32, 64, 128, 256], ["16", "32", "64", "128", "256"])
    by_units.set_yticks([1, 10, 100, 500], ["1", "10", "100", "500"])
    for place, (label, seeds) in enumerate(_probe_lines(found)):
        spread(probed, range(AGO), seeds, label, place)
    probed.set(xlabel="items ago", ylabel="found above chance", title="what is in the controller's state")
    for panel in (by_slots, by_units, probed):
        panel.minorticks_off()
        panel.grid(alpha=0.3)
        panel.legend(fontsize="small")
    return png(drawn)


def _probe_lines(found: Found) -> Iterator[tuple[str, list[list[float]]]]:
    """Every kind and target with what each seed found."""
    for kind, seeds in found["probes"].items():
        for target in seeds[0]:
            yield f"{kind.upper()}: {target}", [seed[target] for seed in seeds]


def answer(found: Found) -> str:
    """In a paragraph."""
    few, many = min(found["memories"]), max(found["memories"])
    small, large = (f"dnc-{units}" for units in (min(UNITS["dnc"]), max(UNITS["dnc"])))
    without = max(UNITS["lstm"])
    probed = dict(_probe_lines(found))

    def told(name: str, ago: int) -> str:
        # Adding 0 takes the sign from -0.
        return f"{round(statistics.fmean(seed[ago] for seed in probed[name]), 2) + 0:.0%}"

    return (
        f"With {few} slots a DNC recalls up to {most(found, small, few):.0f} items with {min(UNITS['dnc'])} "
        f"controller units and {most(found, large, few):.0f} with {max(UNITS['dnc'])}; with {many} slots, and the "
        f"same weights, {most(found, small, many):.0f} and {most(found, large, many):.0f}. An LSTM of {without} "
        f"units, which learned from at most {EASIER.max_items}, recalls {most(found, f'lstm-{without}'):.1f}. Of the "
        f"value of the item that came last, a linear probe of the controller's state finds {told('DNC: value', 0)} "
        f"above chance, of the one {AGO - 1} items before it {told('DNC: value', AGO - 1)}; in an LSTM "
        f"{told('LSTM: value', 0)} and {told('LSTM: value', AGO - 1)}. Of the slot that the last item went to it "
        f"finds {told('DNC: slot, fresh memory', 0)} where slots are taken in their order, which is to count the "
        f"items, and {told('DNC: slot, shuffled', 0)} where every sequence takes them in an order of its own. "
        f"Numbering the slots in another way changes no logit by more than {max(found['renumbered']):.0e}: a "
        "controller never sees the addresses that it could drown in, but looks its items up by what they hold."
    )


def lines(found: Found) -> Iterator[str]:
    """The tables, and what they do not say."""
    yield "The most items recalled, over all numbers of items asked for, guesses taken out; the mean over seeds:"
    yield ""
    rows = []
    for name, sizes in found["capacity"].items():
        kind, units = name.split("-")
        cells = [number(most(found, name, slots)) if str(slots) in sizes else "–" for slots in (0, *found["memories"])]
        rows.append([f"{kind.upper()}, {units} units", f"{found['parameters'][name]:,}", *cells])
    yield table(["controller", "parameters", "no memory", *(f"{n} slots" for n in found["memories"])], rows)
    yield ""
    yield f"Share of the items recalled by the DNC of {PROBED} units, %; the mean over seeds, the least in brackets:"
    yield ""
    yield table(["items", *found["items"]], _shares(found))
    yield ""
    yield "What a linear probe finds of the items stored, %: 0 is chance, 100 always; the mean over seeds, the least in"
    yield "brackets:"
    yield ""
    rows = [[name, *(percent(column) for column in zip(*seeds, strict=True))] for name, seeds in _probe_lines(found)]
    yield table(["items ago", *range(AGO)], rows)
    yield ""
    yield prose(
        f"The DNC is trained on 1 to {TASK.max_items} items with {SLOTS} slots, the LSTM on 1 to {EASIER.max_items}, "
        f"in half as many steps; an item is {TASK.key_bits} random bits of key and {TASK.value_bits} of value, "
        "recalled when all of its value is right. Other memories have the same weights. Look-ups of many items "
        "confuse keys that are alike, and what was trained on few items did not learn to tell so many apart: that, "
        f"too, bounds what is recalled. Probes are ridge regressions from h and s of the controllers of {PROBED} "
        f"units to one class each, after {AGO} to {TASK.max_items} items, at random, more than the LSTM learned from; "
        "chance is naming the most frequent class. In a fresh memory a slot's number is the item's, so that all "
        "columns ask for the same; where slots are shuffled nothing can be found, since nothing that a controller "
        "sees depends on the numbers."
    )


def _shares(found: Found) -> Iterator[list[str]]:
    """A row of every memory: the shares, as far as there were so many items asked for."""
    for slots in found["memories"]:
        seeds = [seed["shares"] for seed in found["capacity"][f"dnc-{PROBED}"][str(slots)]]
        cells = [*map(percent, zip(*seeds, strict=True))]
        yield [f"{slots} slots", *cells, *["–"] * (len(found["items"]) - len(cells))]


STUDY = Study("Does the controller drown in addresses?", measure, figure, answer, lines)
