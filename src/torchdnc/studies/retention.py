"""How long is what was stored remembered? Items recalled after more and more noise, and the gates meanwhile."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from torchdnc.bench.text import NONE, prose, table
from torchdnc.engines import unroll
from torchdnc.nn import DNC
from torchdnc.studies.drawing import percent, spread
from torchdnc.studies.recalling import recalled, training
from torchdnc.studies.study import Found, Plan, Study, trained
from torchdnc.tasks import Batch, KeyedRecall
from torchdnc.training import RunConfig
from torchdnc.training.evaluate import load_run
from torchdnc.training.figures import png
from torchdnc.training.matching import matched
from torchdnc.training.models import DNCModel, LSTMModel, Model, NTMModel, SparseDNCModel, SuperLSTMModel
from torchdnc.types import MemoryOptions

ITEMS = 4
# In the order in which they were stored, so that models without a memory have a chance.
TASK = KeyedRecall(key_bits=6, value_bits=6, min_items=ITEMS, max_items=ITEMS, max_delay=20, in_order=True)
DELAYS = (0, 5, 10, 20, 30, 50, 100, 200, 400)
SLOTS = 16
"""Fewer than steps: not all of the noise can be written down."""
SPARSE_SLOTS = 4096
GUESSED = 0.5**TASK.value_bits
"""The share of items that a guess gets right."""
SEEDS = 3
RATES = [10.0**-power for power in range(1, 7)]
"""Shares forgotten in a step by which gates are told apart."""
DNC_MODEL = DNCModel(
    hidden_size=64, memory_size=SLOTS, word_size=16, read_heads=1, options=MemoryOptions(skip_unwritten=True)
)
MODELS: dict[str, Model] = {
    "LSTM": LSTMModel(),
    "super-LSTM": SuperLSTMModel(),
    "NTM": NTMModel(memory_size=SLOTS, word_size=16),
    "DNC": DNC_MODEL,
    "DNC without links": replace(DNC_MODEL, options=MemoryOptions(skip_unwritten=True, links="none")),
    "SAM": SparseDNCModel(memory_size=SPARSE_SLOTS, word_size=16, read_heads=1, links=False),
}


def trainings(quick: bool) -> dict[str, RunConfig]:
    """A run for every model, all of as many parameters as the DNC has."""
    count = DNC_MODEL.count_parameters(TASK.spec)
    run = replace(training(TASK, 50 if quick else 5000), eval_every=100, max_minutes=3.0)
    return {name: replace(run, model=matched(model, TASK.spec, count)) for name, model in MODELS.items()}


def measure(plan: Plan) -> Found:
    """Trains the models, asks them after more and more steps of noise, and looks at what they forget in each."""
    seeds, sequences = (1, 16) if plan.quick else (SEEDS, 256)
    configs = trainings(plan.quick)
    folders = {name: trained(plan, name, config, seeds) for name, config in configs.items()}
    delays = [delay for delay in DELAYS if delay <= 30 or not plan.quick]
    found: Found = {"delays": delays, "trained": TASK.max_delay, **limits(configs["DNC"]), "models": {}, "gates": {}}
    for name, config in configs.items():
        plan.tell(f"delays of {name}")
        found["models"][name] = {
            "parameters": config.model.count_parameters(TASK.spec),
            "recalled": [_shares(folder, delays, sequences) for folder in folders[name]],
        }
    for name in GATED:
        plan.tell(f"gates of {name}")
        found["gates"][name] = [forgetting(load_run(folder)[1]) for folder in folders[name]]
    return found


def limits(config: RunConfig) -> Found:
    """What ends a training."""
    goal = config.goal.at_most if config.goal else 0.0
    return {"goal": goal, "steps": config.steps, "minutes": config.max_minutes}


def delayed(delay: int) -> KeyedRecall:
    """The task with exactly so many steps of noise."""
    return replace(TASK, min_delay=delay, max_delay=delay)


def _shares(folder: Path, delays: list[int], sequences: int) -> list[float]:
    """The share of items recalled after each delay."""
    _, model = load_run(folder)
    return [float(recalled(model, delayed(delay), sequences).mean()) for delay in delays]


@torch.no_grad()
def forgetting(model: nn.Module) -> list[float]:
    """How much a model forgets in a step of noise.

    Of an LSTM, 1 − f of every unit; of a DNC, the write weight of every slot that holds an item, which is the most
    that a write can erase of it.

    Returns:
        for each of `RATES` the share of these numbers that are larger.
    """
    (batch,) = delayed(TASK.max_delay).evaluation("test", batch_size=64, sequences=64, seed=0)
    lost = _of_slots(model, batch) if isinstance(model, DNC) else 1 - forget_gates(model, batch.inputs)
    noise = lost[ITEMS : ITEMS + TASK.max_delay].flatten()
    return [float((noise > rate).double().mean()) for rate in RATES]


def forget_gates(model: Any, inputs: Tensor) -> Tensor:
    """f [T, B, H] of the first layer of an LSTM or a super-LSTM at every step of inputs [T, B, I]."""
    gates: list[Tensor] = []
    hook = model.controller.layers[0].register_forward_hook(lambda layer, seen, raw: gates.append(raw))
    try:
        state = model.initial_state(inputs.shape[1])
        unroll(model.controller, inputs, state, state)
    finally:
        hook.remove()
    # In the order i, f, candidate, o.
    return torch.sigmoid(torch.stack(gates).chunk(4, -1)[1])


def _of_slots(model: DNC, batch: Batch) -> Tensor:
    """[T, B, items]: the write weights of the slots that the items went to."""
    _, states = model.trace(batch.inputs)
    written = torch.stack([state.memory.write_weights for state in states])
    slots = written[:ITEMS].argmax(-1).T
    return written.gather(-1, slots.expand(len(written), -1, -1))


GATED = ("LSTM", "super-LSTM", "DNC")


def half_lost(found: Found, name: str) -> str:
    """The delay after which, at the latest, half of what was recalled after the longest noise of training is lost.

    Guesses are taken out: they are recalled for ever. A model that learned nothing has nothing to lose.
    """
    delays, shares = found["delays"], zip(*found["models"][name]["recalled"], strict=True)
    known = [max(0.0, (statistics.fmean(share) - GUESSED) / (1 - GUESSED)) for share in shares]
    first = delays.index(found["trained"])
    if known[first] < 0.1:
        return NONE
    lost = [delay for delay, share in zip(delays[first:], known[first:], strict=True) if share <= known[first] / 2]
    return str(lost[0]) if lost else f"over {delays[-1]}"


def mean(found: Found, name: str, delay: int) -> float:
    """The share recalled after a delay, mean over seeds."""
    place = found["delays"].index(delay)
    return statistics.fmean(seed[place] for seed in found["models"][name]["recalled"])


def figure(found: Found) -> bytes:
    """Recall against the delay, and how much is forgotten in a step."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(11, 4.2), layout="constrained")
    panels: Any = drawn.subplots(1, 2)
    for place, (name, of) in enumerate(found["models"].items()):
        spread(panels[0], found["delays"], of["recalled"], name, place)
        if name in found["gates"]:
            spread(panels[1], RATES, found["gates"][name], name, place)
    panels[0].axvline(found["trained"], color="black", linestyle=":", linewidth=1, label="longest in training")
    panels[0].set_xscale("symlog", linthresh=5)
    panels[0].set_xlim(-1, 1.1 * max(found["delays"]))
    # As many as there is room for.
    shown = [delay for delay in found["delays"] if delay not in (5, 30)]
    panels[0].set_xticks(shown, [str(delay) for delay in shown])
    panels[0].set(xlabel="steps of noise before the question", ylabel="share of items recalled", ylim=(-0.03, 1.03))
    panels[1].set(xscale="log", xlabel="share x forgotten in a step of noise", ylabel="share of gates that forget more")
    for panel in panels:
        panel.minorticks_off()
        panel.grid(alpha=0.3)
        panel.legend(fontsize="small")
    return png(drawn)


def answer(found: Found) -> str:
    """In a paragraph."""
    longest, known = found["delays"][-1], found["trained"]
    told = ", ".join(f"{name} {mean(found, name, known):.0%} and {mean(found, name, longest):.0%}" for name in MODELS)
    hundredth = RATES.index(0.01)
    gates = {name: statistics.fmean(seed[hundredth] for seed in found["gates"][name]) for name in GATED}
    return (
        f"Of {ITEMS} items these models of equal size recall, after the {known} steps of noise that training had at "
        f"most, and after {longest}: {told}. In a step of noise {gates['LSTM']:.0%} of the units of the LSTM and "
        f"{gates['super-LSTM']:.0%} of those of the super-LSTM forget more than a hundredth of what they hold; of the "
        f"DNC's slots that hold an item at most {gates['DNC']:.1%} do."
    )


def lines(found: Found) -> Iterator[str]:
    """The tables, and what they do not say."""
    yield "Share of the items recalled, %; the mean over seeds, the least in brackets:"
    yield ""
    rows = []
    for name, of in found["models"].items():
        cells = [percent(column) for column in zip(*of["recalled"], strict=True)]
        rows.append([name, f"{of['parameters']:,}", *cells, half_lost(found, name)])
    yield table(["steps of noise", "parameters", *found["delays"], "half lost by"], rows)
    yield ""
    yield "Share of gates that forget more than this in a step of noise, %; the mean over seeds, the least in brackets:"
    yield ""
    rows = [[name, *(percent(column) for column in zip(*seeds, strict=True))] for name, seeds in found["gates"].items()]
    yield table(["forgotten", *(f"10^{round(math.log10(rate))}" for rate in RATES)], rows)
    yield ""
    yield prose(
        f"Trained on 0 to {TASK.max_delay} steps of noise until {found['goal']:g} of the "
        f"bits were wrong, for {found['steps']} steps or {found['minutes']:g} minutes at most: what was not learned "
        "was not learned in that time, and the NTM runs in plain PyTorch. Items are "
        f"{TASK.key_bits} bits of key and {TASK.value_bits} of value, asked for in the order in which they came; "
        "noise is random keys and values. An item is recalled when all of its value is right: by guessing, "
        f"{GUESSED:.1%}. *Half lost by* is the first of these delays after which half of what was recalled after "
        f"{found['trained']} steps is lost, guesses taken out. What a gate forgets is 1 − f of an LSTM's unit, and of "
        "a slot of the DNC that holds an item its write weight, the most that a write can erase. The DNC and the NTM "
        f"have {SLOTS} slots, SAM {SPARSE_SLOTS}."
    )


STUDY = Study("How long is what was stored remembered?", measure, figure, answer, lines)
