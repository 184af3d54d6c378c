"""Are the temporal links worth it? Copy, where order alone tells what is next, and recall by keys."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torchdnc.bench.text import NONE, prose, table
from torchdnc.studies.drawing import percent, spread
from torchdnc.studies.study import Found, Plan, Study, trained
from torchdnc.tasks import Copy, KeyedRecall
from torchdnc.training import RunConfig
from torchdnc.training.config import Goal
from torchdnc.training.evaluate import evaluate_run
from torchdnc.training.figures import png
from torchdnc.training.matching import matched
from torchdnc.training.metrics import METRICS
from torchdnc.training.models import DNCModel, Model, SparseDNCModel, SuperLSTMModel
from torchdnc.training.optim import Optimizer
from torchdnc.types import MemoryOptions

SEEDS = 3
KEPT = 5
"""Links of a slot in each direction where these are sparse, as in the paper."""
RATE = 5e-3
APART = 0.05
"""Errors that differ by less are called the same."""
LABELS = LINKED, SPARSE, UNLINKED, NO_MEMORY = "dense links", f"{KEPT} links", "no links", "super-LSTM"
COPY = Copy(bits=6, min_length=1, max_length=20)
LONGER = replace(COPY, max_length=30)
RECALL = KeyedRecall(key_bits=12, value_bits=6, min_items=1, max_items=12)
# More slots than a sequence half as long again as any trained on has steps: memories that take one at every step
# have room. Slots never written to are passed over, as the sparse memory does, except where the paper is followed.
DENSE = DNCModel(hidden_size=64, memory_size=64, word_size=32, read_heads=1, options=MemoryOptions(skip_unwritten=True))
PAPERS = replace(DENSE, memory_size=96, controller="feedforward", options=MemoryOptions())


@dataclass(frozen=True)
class Part:
    """A task and the models that learn it.

    title: for people; unit: what a sequence is long in; setting: the task's field of that; base: the DNC with dense
    links, of which the others are variants; steps: of a training at most; wrong_bits: the share at which it ends.
    """

    title: str
    unit: str
    setting: str
    task: Copy | KeyedRecall
    base: DNCModel
    steps: int
    wrong_bits: float

    @property
    def longest(self) -> int:
        """The longest sequence trained on, in its unit."""
        longest: int = getattr(self.task, self.setting)
        return longest


PARTS = {
    "copy": Part("copy with an LSTM controller", "vectors", "max_length", COPY, DENSE, 2000, 3e-4),
    "recall": Part("keyed recall with an LSTM controller", "items", "max_items", RECALL, DENSE, 2500, 1e-3),
    "paper": Part("copy with a feedforward controller", "vectors", "max_length", LONGER, PAPERS, 4000, 3e-4),
}


def models(part: Part) -> dict[str, Model]:
    """What learns the task, by name; without a memory only where the controller has a state of its own."""
    base, spec = part.base, part.task.spec
    found: dict[str, Model] = {
        LINKED: base,
        SPARSE: SparseDNCModel(
            hidden_size=base.hidden_size,
            memory_size=base.memory_size,
            word_size=base.word_size,
            read_heads=base.read_heads,
            link_width=KEPT,
            controller=base.controller,
        ),
        UNLINKED: replace(base, options=replace(base.options, links="none")),
    }
    if base.controller == "lstm":
        found[NO_MEMORY] = matched(SuperLSTMModel(), spec, base.count_parameters(spec))
    return found


def trainings(quick: bool) -> dict[str, dict[str, RunConfig]]:
    """The runs by the names of part and model."""
    return {
        name: {
            label: RunConfig(
                task=part.task,
                model=model,
                optimizer=Optimizer(name="adam", learning_rate=RATE, clip_norm=10.0),
                goal=Goal("wrong_bits", part.wrong_bits),
                batch_size=16,
                threads=1,
                steps=150 if quick else part.steps,
                eval_every=50,
                eval_sequences=64 if quick else 256,
            )
            for label, model in models(part).items()
        }
        for name, part in PARTS.items()
    }


def measure(plan: Plan) -> Found:
    """Trains every model on every task, and tests it on the longest sequences it learned from and on longer ones."""
    seeds, sequences = (1, 64) if plan.quick else (SEEDS, 256)
    found: Found = {"sequences": sequences, "parts": {}}
    for name, runs in trainings(plan.quick).items():
        part = PARTS[name]
        lengths, learners = [part.longest, 3 * part.longest // 2], {}
        for label, config in runs.items():
            plan.tell(f"{part.title}: {label}")
            folders = trained(plan, f"{name}-{label.replace(' ', '-')}", config, seeds)
            learners[label] = {
                "parameters": config.model.count_parameters(part.task.spec),
                "seeds": [_seed(folder, config, lengths, sequences) for folder in folders],
            }
        found["parts"][name] = {"lengths": lengths, "steps": config.steps, "every": config.eval_every}
        found["parts"][name]["models"] = learners
    return found


def _seed(folder: Path, config: RunConfig, lengths: Sequence[int], sequences: int) -> dict[str, Any]:
    """How a run learned, and the share of sequences of each length that it has wholly right."""
    rows = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
    tested = {
        str(length): evaluate_run(folder, length=length, batch_size=32, sequences=sequences)["perfect"]
        for length in lengths
    }
    return {"curve": curve(rows), "solved": solved(rows, config.goal), "tested": tested}


def curve(rows: Sequence[dict[str, Any]]) -> list[list[float]]:
    """The steps of a run's evaluations and the errors there: shares of sequences not wholly right."""
    return [[row["step"], 1 - row["valid"]["perfect"]] for row in rows if "valid" in row]


def solved(rows: Sequence[dict[str, Any]], goal: Goal | None) -> int | None:
    """The step at which a run met its goal; None where it did not."""
    step: int | None = next((row["step"] for row in rows if goal and goal.met(row.get("valid", {}))), None)
    return step


def error_at(points: Sequence[Sequence[float]], step: float) -> float:
    """The error of the last evaluation up to a step: a run that stopped at its goal keeps its last one."""
    return max((point for point in points if point[0] <= step), key=lambda point: point[0])[1]


def errors(learner: Found) -> list[float]:
    """Of each seed at its end."""
    return [seed["curve"][-1][1] for seed in learner["seeds"]]


def times(learner: Found) -> list[float]:
    """Of each seed the steps to the goal; without end where it was not met."""
    return [math.inf if seed["solved"] is None else seed["solved"] for seed in learner["seeds"]]


def below(some: Sequence[float], others: Sequence[float]) -> bool:
    """Whether every one is."""
    return max(some) < min(others)


def compare(part: Found) -> str:
    """What dense links do beside none: "less", "more", "sooner", "later", or "" where the seeds do not say."""
    linked, unlinked = (part["models"][label] for label in (LINKED, UNLINKED))
    some, others = errors(linked), errors(unlinked)
    if abs(statistics.fmean(some) - statistics.fmean(others)) >= APART:
        return "less" if below(some, others) else "more" if below(others, some) else ""
    some, others = times(linked), times(unlinked)
    return "sooner" if below(some, others) else "later" if below(others, some) else ""


VERDICTS = {
    "help in": ("less", "sooner"),
    "hurt in": ("more", "later"),
    "make no clear difference in": ("",),
}
OUTCOMES = {
    "less": "links leave fewer errors than none",
    "more": "links leave more errors than none",
    "sooner": "links take fewer steps to the goal than none",
    "later": "links take more steps to the goal than none",
    "": "between links and none the seeds do not decide",
}


def answer(found: Found) -> str:
    """In a paragraph."""
    compared = {PARTS[name].title: compare(part) for name, part in found["parts"].items()}
    groups = {verb: [title for title, each in compared.items() if each in kinds] for verb, kinds in VERDICTS.items()}
    told = [f"{verb} {' and in '.join(titles)}" for verb, titles in groups.items() if titles]
    verdict = f"Against none, dense links {'; they '.join(told)}."
    return " ".join([verdict, *(_sentence(PARTS[name], part) for name, part in found["parts"].items())])


def _sentence(about: Part, part: Found) -> str:
    """What came of one part."""
    length, longer = part["lengths"]
    ended = {label: statistics.fmean(1 - error for error in errors(each)) for label, each in part["models"].items()}
    beyond = {label: statistics.fmean(tested(part["models"][label], longer)) for label in (LINKED, UNLINKED)}
    return (
        f"{about.title[0].upper()}{about.title[1:]}, 1 to {length} {about.unit}, at most {part['steps']} steps: wholly "
        f"right are {_told(ended)}; {OUTCOMES[compare(part)]}. Of {longer} {about.unit}, more than were trained on: "
        f"{_told(beyond)}."
    )


def _told(shares: dict[str, float]) -> str:
    named = {label: f"a {label}" if label == NO_MEMORY else label for label in shares}
    return ", ".join(f"{share:.1%} with {named[label]}" for label, share in shares.items())


def tested(learner: Found, length: int) -> list[float]:
    """Of each seed the share of sequences of a length that are wholly right."""
    return [seed["tested"][str(length)] for seed in learner["seeds"]]


def drawn_steps(every: int, steps: int) -> list[int]:
    """Steps of evaluations that lie evenly on a logarithmic axis, from the first to the last."""
    places = {every * round(2 ** (half / 2)) for half in range(2 * (steps // every).bit_length())}
    return sorted({place for place in places if place < steps} | {steps})


def figure(found: Found) -> bytes:
    """Error against learning steps, a panel for each part: the paper's figure is the last."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(12, 4.4), layout="constrained")
    panels: Any = drawn.subplots(1, len(PARTS), sharey=True)
    for panel, name in zip(panels, PARTS, strict=True):
        part = found["parts"][name]
        steps = drawn_steps(part["every"], part["steps"])
        for place, label in enumerate(LABELS):
            if label in part["models"]:
                seeds = part["models"][label]["seeds"]
                each_seed = [[error_at(seed["curve"], step) for step in steps] for seed in seeds]
                spread(panel, steps, each_seed, label, place)
        panel.set(xscale="log", xlabel="learning steps", title=PARTS[name].title, ylim=(-0.03, 1.03))
        marks = [step for step in (50, 100, 200, 500, 1000, 2000, 4000) if steps[0] <= step <= steps[-1]]
        panel.set_xticks(marks, [f"{mark:,}" for mark in marks])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("share of sequences with an error")
    handles, labels = max((panel.get_legend_handles_labels() for panel in panels), key=lambda each: len(each[1]))
    drawn.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return png(drawn)


def lines(found: Found) -> Iterator[str]:
    """The tables, and what they do not say."""
    for name, part in found["parts"].items():
        about, lengths = PARTS[name], part["lengths"]
        yield (
            f"{about.title[0].upper()}{about.title[1:]}, 1 to {lengths[0]} {about.unit}, goal {about.wrong_bits:g}; "
            "sequences wholly right, %, least in brackets:"
        )
        yield ""
        head = ["model", "parameters", "steps to the goal, by seed", "right at the end"]
        yield table([*head, *(f"of {length} {about.unit}" for length in lengths)], _rows(part))
        yield ""
    yield prose(
        "A training ends at its goal, a share of wrong bits of validation sequences, or after its last step "
        f"({NONE}); its curve keeps its last value. Values are means over the seeds that learned with finite losses. "
        "Errors count as different where all seeds of one lie below all of the other and the means are at least "
        f"{100 * APART:g} points apart; where the means are closer, the steps to the goal of all seeds are held "
        "against each other. Three seeds and three of models that are alike fall apart so, one way or the other, once "
        "in ten times."
    )
    yield ""
    yield prose(
        "Copy gives nothing to look up by: what is next is known by order alone. That does not make links the only "
        "way. An LSTM controller can count and store a key of its own with every vector; the counts that it has "
        "never met are tested by the longer sequences. A feedforward controller has no state but what it reads, and "
        "would have to keep an order of its own in the memory. In keyed recall each value is asked for by its key, "
        "in a random order."
    )
    yield ""
    yield prose(
        "The last part follows Extended Data Figure 4 of Graves et al. 2016: copy of 6-bit vectors, feedforward "
        "controller, the memory as in the paper. There sequences had 1 to 100 vectors, networks about 200,000 steps, "
        "20 of each: dense and sparse links learned it, without links most sequences kept errors. Here "
        f"sequences have 1 to {PARTS['paper'].longest} vectors, trainings "
        f"{found['parts']['paper']['steps']} steps (Adam, learning rate {RATE:g}, for all alike) and a few seeds: this "
        "tells what is learned soon, not what would be learned in the end, and no other learning rate was given a "
        f"chance. The model with {KEPT} links is the sparse DNC, which also reads and writes few slots and has no free "
        "gates; the paper's kept a dense memory beside its sparse links. The super-LSTM has as many parameters as the "
        f"DNC with dense links, to 2%. Tested on {found['sequences']} sequences of each length."
    )


def _rows(part: Found) -> Iterator[list[str]]:
    for label, learner in part["models"].items():
        steps = ", ".join(NONE if math.isinf(step) else f"{step:.0f}" for step in times(learner))
        shares = [[1 - error for error in errors(learner)], *(tested(learner, length) for length in part["lengths"])]
        yield [label, f"{learner['parameters']:,}", steps, *map(percent, shares)]


STUDY = Study("Are the temporal links worth it?", measure, figure, answer, lines)
