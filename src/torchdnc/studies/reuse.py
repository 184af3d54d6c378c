"""Are slots used again? Copies of one sequence after another, of five times as many vectors as there are slots."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from torchdnc.bench.text import prose, table
from torchdnc.engines import reference
from torchdnc.nn import DNC
from torchdnc.studies.study import Found, Plan, Study, trained
from torchdnc.tasks import Batch, Copy
from torchdnc.training import RunConfig
from torchdnc.training.config import Goal
from torchdnc.training.curriculum import Curriculum
from torchdnc.training.evaluate import evaluate, load_run
from torchdnc.training.figures import png
from torchdnc.training.models import DNCModel
from torchdnc.training.optim import Optimizer
from torchdnc.types import DNCState, Interface, MemoryState

SLOTS = 10
LENGTH = 5
TASK = Copy(bits=6, min_length=1, max_length=LENGTH, sequences=10)
SHOWN = replace(TASK, min_length=LENGTH)
"""As in the paper: ten sequences of five vectors."""
SEEDS = 3


def trainings(quick: bool) -> dict[str, RunConfig]:
    """The paper's memory with a feedforward controller, which can remember nothing itself."""
    return {
        "copy": RunConfig(
            # Of one sequence at first: two fit into the memory, and from four on it has to use slots again.
            task=replace(TASK, sequences=1),
            curriculum=Curriculum("sequences", most=TASK.sequences),
            model=DNCModel(hidden_size=64, memory_size=SLOTS, word_size=12, read_heads=1, controller="feedforward"),
            optimizer=Optimizer(name="adam", learning_rate=1e-3, anneal_from=0.5, clip_norm=10.0),
            goal=Goal("wrong_bits", 1e-3),
            batch_size=16,
            threads=1,
            steps=200 if quick else 10_000,
            eval_every=100,
            eval_sequences=256,
        )
    }


def measure(plan: Plan) -> Found:
    """Trains the model, tests it on the longest sequences, and keeps what the best seed does in one row."""
    seeds, sequences = (1, 32) if plan.quick else (SEEDS, 256)
    config = trainings(plan.quick)["copy"]
    folders = trained(plan, "copy", config, seeds)
    right = [_right(folder, sequences) for folder in folders]
    gates = [gates_of(*_watched(folder)) for folder in folders]
    best = max(range(len(folders)), key=lambda seed: right[seed]["longest"])
    return {
        "seeds": [folder.name.removeprefix("seed-") for folder in folders],
        "steps": config.steps,
        "goal": config.goal.at_most if config.goal else 0.0,
        "right": right,
        "gates": gates,
        "best": best,
        "row": row(*_watched(folders[best])),
    }


def _right(folder: Path, sequences: int) -> dict[str, float]:
    """The share of rows wholly right: as trained, and of the longest sequences."""
    _, model = load_run(folder)
    scores = {
        name: evaluate(model, task, "test", batch_size=32, sequences=sequences, seed=0)
        for name, task in (("trained", TASK), ("longest", SHOWN))
    }
    return {name: each["perfect"] for name, each in scores.items()}


Steps = list[tuple[Interface, DNCState]]


@torch.no_grad()
def _watched(folder: Path) -> tuple[Batch, Steps]:
    """Rows of the longest sequences, and the interface and the state at every step of them."""
    _, model = load_run(folder)
    assert isinstance(model, DNC)
    (batch,) = SHOWN.evaluation("test", batch_size=16, sequences=16, seed=0)
    steps: Steps = []

    def watch(xi: Interface, before: MemoryState, after: DNCState) -> None:
        steps.append((xi, after))

    state = model.initial_state(16)
    reference.run(model, batch.inputs, state, state, None, None, None, watch=watch)
    return batch, steps


def gates_of(batch: Batch, steps: Steps) -> dict[str, float]:
    """Means of the gates while vectors come in and while they are repeated, and how many slots are written in all."""
    # Every row has sequences of the same length: what is neither an answer nor the sign to repeat is a vector.
    coming = ~batch.mask & (batch.inputs[..., -1] == 0)
    free = torch.stack([xi.free_gates[:, 0] for xi, _ in steps])
    fresh = torch.stack([xi.write_gate * xi.alloc_gate for xi, _ in steps])
    slots = torch.stack([state.memory.write_weights.argmax(-1) for _, state in steps])
    used = [len(set(slots[coming[:, row], row].tolist())) for row in range(slots.shape[1])]
    return {
        # The gate frees what was read at the step before.
        "free after repeating": float(free[1:][batch.mask[:-1]].mean()),
        "free after storing": float(free[1:][coming[:-1]].mean()),
        "allocation while storing": float(fresh[coming].mean()),
        "allocation while repeating": float(fresh[batch.mask].mean()),
        "slots": statistics.fmean(used),
    }


def row(batch: Batch, steps: Steps) -> Found:
    """What the first row does at every step, to three digits."""

    def told(values: Sequence[Any]) -> Any:
        return (torch.stack([*values]).double() * 1000).round().div(1000).tolist()

    return {
        "inputs": batch.inputs[:, 0].tolist(),
        "write weights": told([state.memory.write_weights[0] for _, state in steps]),
        "read weights": told([state.memory.read_weights[0, 0] for _, state in steps]),
        "free gate": told([xi.free_gates[0, 0] for xi, _ in steps]),
        "allocation gate × write gate": told([(xi.alloc_gate * xi.write_gate)[0] for xi, _ in steps]),
    }


def figure(found: Found) -> bytes:
    """The paper's figure: inputs, write and read weightings, and the gates, step by step."""
    from matplotlib.figure import Figure

    of = found["row"]
    drawn = Figure(figsize=(12, 6.5), layout="constrained")
    ratios = [len(of["inputs"][0]), SLOTS, SLOTS, 6]
    panels: Any = drawn.subplots(4, 1, sharex=True, gridspec_kw={"height_ratios": ratios})
    for panel, name in zip(panels, ("inputs", "write weights", "read weights"), strict=False):
        panel.imshow([*zip(*of[name], strict=True)], aspect="auto", cmap="Greys", vmin=0, vmax=1, interpolation="none")
        panel.set_ylabel(name)
    for place, name in enumerate(("free gate", "allocation gate × write gate")):
        panels[3].plot(of[name], color=f"C{place}", label=name, linewidth=1)
    panels[3].set(xlabel="step", ylabel="gates", ylim=(-0.05, 1.05), xlim=(-0.5, len(of["inputs"]) - 0.5))
    panels[3].legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    return png(drawn)


def mean(found: Found, gate: str) -> float:
    """Of a gate, over the seeds."""
    return statistics.fmean(seed[gate] for seed in found["gates"])


def answer(found: Found) -> str:
    """In a paragraph."""
    trained_on, longest = (statistics.fmean(seed[name] for seed in found["right"]) for name in ("trained", "longest"))
    vectors = SHOWN.sequences * LENGTH
    return (
        f"A DNC with {SLOTS} slots copies {TASK.sequences} sequences of 1 to {LENGTH} vectors, one after another, "
        f"without a wrong bit in {trained_on:.1%} of rows, and in {longest:.1%} of those of {vectors} vectors in all: "
        f"these take {mean(found, 'slots'):.1f} slots on average. The free gate is "
        f"{mean(found, 'free after repeating'):.2f} at the step after a vector is repeated and "
        f"{mean(found, 'free after storing'):.2f} after one is stored; the allocation gate times the write gate is "
        f"{mean(found, 'allocation while storing'):.2f} while storing and "
        f"{mean(found, 'allocation while repeating'):.2f} while repeating."
    )


def lines(found: Found) -> Iterator[str]:
    """The tables, and what they do not say."""
    yield "Rows without a wrong bit, %, and the means of the gates, by seed:"
    yield ""
    head = ["seed", f"1 to {LENGTH} vectors", f"{LENGTH} vectors", *found["gates"][0]]
    rows = [
        [
            found["seeds"][place],
            *(f"{100 * share:.1f}" for share in right.values()),
            *(f"{gate:.2f}" for gate in gates.values()),
        ]
        for place, (right, gates) in enumerate(zip(found["right"], found["gates"], strict=True))
    ]
    yield table(head, rows)
    yield ""
    yield prose(
        "This follows Extended Data Figure 1 of Graves et al. 2016: a feedforward controller, the paper's memory of "
        f"{SLOTS} slots, each sequence copied before the next comes. The paper does not say how it trained; here by "
        f"Adam, on rows of 1 sequence, and of twice as many whenever {found['goal']:g} of the bits were wrong at most, "
        f"until that was so of {TASK.sequences} or for {found['steps']} steps. *allocation* is "
        "allocation gate times write gate, *slots* how many slots the vectors of a row mainly went to. The figure is "
        f"a row of the best seed, {found['seeds'][found['best']]}: the darker, the larger; its last input row is the "
        "sign to repeat."
    )


STUDY = Study("Are slots used again?", measure, figure, answer, lines)
