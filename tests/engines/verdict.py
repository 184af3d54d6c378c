"""Whether the fused engine answers a drawn call as the reference does: outputs, final state, every gradient.

The measure is that of `pairs.worst`, against the reference in float64. In float64 1e-9 is allowed; in float32 a
multiple of the reference's own error in float32, between a floor and a ceiling. Its own error is the largest of a few
runs whose parameters, inputs and squashed values have other last bits. Where float32 cannot order what float64 can, the
reference in float32 stands in for the one in float64, and its own error is what those bits change.

A sequence that misses it is cut into shorter ones, which start from the reference's states and must keep to it, for
either of two reasons only:

- The free lists of the engines differ at a step up to which usages agree: slots so nearly tied that rounding orders
  them. Or they differ in which slots were ever written to, by a write weight so small that not every engine tells it
  from 0. The sequence is cut around that step, which is undecided.
- The reference's own error is such that more than the ceiling would be allowed: the sequence is cut in halves. A single
  step of that kind is rough: it must keep to the multiple, and not to the ceiling.

Two calls whose graphs are alive at once must answer as each does alone, to the last bit, where they miss it together.
Anything else is a mismatch, and so is, for whatever reason, NaN where the reference has a number.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tests.engines.answers import Answers, answers, error, marks
from tests.engines.draws import Call, Draw, as_drawn, calls, whole
from tests.engines.nudges import Nudges
from tests.engines.pairs import model, worst
from tests.engines.poison import dirty_memory
from torchdnc import DNCState, MemoryState
from torchdnc.engines.fused import compiled

MULTIPLE = 8
"""Of the reference's own error, over thousands of cases; most are about as exact as the reference."""
FLOOR = {torch.float64: 1e-9, torch.float32: 5e-6}
CEILING = {torch.float64: 1e-9, torch.float32: 1e-3}
NUDGES = 6
ALIKE = 1e-6
"""Numbers no further apart than this share of them are the same but for rounding."""


def allowed(dtype: torch.dtype, own: float) -> float:
    """The error allowed where the reference's own error is this."""
    return min(max(MULTIPLE * own, FLOOR[dtype]), CEILING[dtype])


@dataclass
class Findings:
    """What came of the draws judged so far.

    errors: by dtype, the worst that was allowed. multiples: of the reference's own error, where that is more than none.
    counts: "steps" drawn, "compared" sequences, those that were "cut", steps "undecided" and "rough".
    """

    errors: dict[str, float] = field(default_factory=dict)
    multiples: list[float] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    mismatches: list[dict[str, Any]] = field(default_factory=list)

    def passed(self, dtype: torch.dtype, error: float, own: float) -> None:
        """A comparison that kept to what is allowed."""
        name = str(dtype).removeprefix("torch.")
        self.counts["compared"] += 1
        self.errors[name] = max(self.errors.get(name, 0.0), error)
        if own > 0:
            self.multiples.append(error / own)


def judge(drawn: Draw, findings: Findings) -> None:
    """Runs a draw on both engines."""
    findings.counts["steps"] += drawn.case.T
    with _settings(drawn):
        _Judge(drawn, findings).compare(drawn, calls(drawn, model(drawn.case, "reference")))


@contextlib.contextmanager
def _settings(drawn: Draw) -> Iterator[None]:
    threads, worth = torch.get_num_threads(), compiled.WORTH_SHARING
    torch.set_num_threads(drawn.threads)
    compiled.WORTH_SHARING = 0 if drawn.shared else worth  # type: ignore[misc]
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        compiled.WORTH_SHARING = worth  # type: ignore[misc]
        if not torch.tensor([1e-40]).mul(1.0).item():
            raise RuntimeError("the fused engine has left small numbers flushed to 0 behind it")


class _Part(NamedTuple):
    """Calls, their first step in the draw, what is expected of them and what the fused engine gives."""

    drawn: Draw
    called: list[Call]
    first: int
    expected: Answers
    got: Answers


class _Judge:
    """One draw's models, and where the findings go."""

    def __init__(self, drawn: Draw, findings: Findings) -> None:
        self.dtype, self.findings = drawn.dtype, findings
        self.exact = model(drawn.case, "reference")
        self.own = model(drawn.case, "reference", drawn.dtype)
        self.fused = model(drawn.case, "fused", drawn.dtype)

    def compare(self, drawn: Draw, called: list[Call], first: int = 0) -> None:
        """The calls, the first step of which is the `first` of the draw, on both engines."""
        expected = answers(drawn, self.exact, [call.to(torch.float64) for call in called], whole)
        got = self._answered(drawn, called)
        part = _Part(drawn, called, first, expected, got)
        plain = expected
        if self.dtype == torch.float32:
            plain = answers(drawn, self.own, [call.to(self.dtype) for call in called], whole)
        own, beside = error(plain, expected), 0.0
        if self._agrees(part, expected, own):
            return
        if math.isinf(error(got, expected)) and not math.isinf(own):
            self._mismatch(part, own)
            return
        for seed in range(NUDGES):
            nudged = self._nudged(drawn, called, seed)
            own, beside = max(own, error(nudged, expected)), max(beside, error(nudged, plain))
            if self._agrees(part, expected, own) or self._agrees(part, plain, beside):
                return
            if len(called[0].inputs) > 1 and self._is_rough(min(own, beside)):
                break
        if len(called) == 2:
            self._apart(part, own)
        else:
            self._cut(part, own)

    def _answered(self, drawn: Draw, called: list[Call]) -> Answers:
        """What the fused engine gives."""
        with dirty_memory() if drawn.dirty else contextlib.nullcontext():
            return answers(drawn, self.fused, [call.to(self.dtype, drawn.padding) for call in called], as_drawn(drawn))

    def _is_rough(self, own: float) -> bool:
        """Whether the reference's own error is too large for a comparison."""
        return not MULTIPLE * own <= CEILING[self.dtype]

    def _agrees(self, part: _Part, expected: Answers, own: float) -> bool:
        """Whether the answers are those expected, where the reference's own error is this."""
        found = error(part.got, expected)
        agrees = found <= allowed(self.dtype, own)
        if agrees:
            self.findings.passed(self.dtype, found, own)
        return agrees

    def _nudged(self, drawn: Draw, called: list[Call], seed: int) -> Answers:
        """The reference's answers with other last bits."""
        nudges, made = Nudges(seed), model(drawn.case, "reference", self.dtype)
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.copy_(nudges.nudge(parameter))
        moved = [call._replace(inputs=nudges.nudge(call.inputs.to(self.dtype))).to(self.dtype) for call in called]
        with nudges:
            return answers(drawn, made, moved, whole)

    def _apart(self, part: _Part, own: float) -> None:
        """Two calls that disagree together: each alone must answer as it did beside the other, and is judged alone."""
        for index, call in enumerate(part.called):
            alone = replace(part.drawn, way="whole")
            got = self._answered(alone, [call])
            beside = {name: part.got[f"{name} of call {index}" if index else name] for name in got}
            if error(beside, got) > 0:
                self._mismatch(part, own)
            self.compare(alone, [call])

    def _cut(self, part: _Part, own: float) -> None:
        """A sequence that disagrees, in parts, if there is a reason to cut it."""
        drawn, call = part.drawn, part.called[0]
        if drawn.layout == "packed":
            drawn = replace(drawn, layout="time first")
        T, counts, states = len(call.inputs), self.findings.counts, self._states(call)
        undecided = self._reordered(drawn, call, states)
        as_rough = self._is_rough(own) and (T > 1 or error(part.got, part.expected) <= MULTIPLE * own)
        if undecided is None and not as_rough:
            self._mismatch(part, own)
            return
        counts["cut"] += T > 1
        counts["undecided"] += undecided is not None
        counts["rough"] += undecided is None and T == 1
        end, start = (T // 2, max(T // 2, 1)) if undecided is None else (undecided, undecided + 1)
        if end > 0:
            self.compare(drawn, [call.cut(0, end, call.state)], part.first)
        if start < T:
            # In the middle of such a sequence too there are slots that only their numbers tell apart.
            drawn = replace(drawn, start="zero") if drawn.symmetric_end else drawn
            self.compare(drawn, [call.cut(start, T, states[start - 1])], part.first + start)

    @torch.no_grad()
    def _states(self, call: Call) -> list[DNCState]:
        """The reference's state after every step."""
        states: list[DNCState] = []
        for t in range(len(call.inputs)):
            states.append(whole(self.exact, call.cut(t, t + 1, states[-1] if states else call.state))[1])
        return states

    @torch.no_grad()
    def _reordered(self, drawn: Draw, call: Call, states: list[DNCState]) -> int | None:
        """The first step whose free list differs between the engines, if their usages agree there; or after which they
        differ in what was ever written to, if that is by next to nothing."""
        own_call, asked = call.to(self.dtype), call.to(self.dtype, drawn.padding)
        own_state = own_call.state
        own_slots, slots = (_Slots(states[0].memory.usage) for _ in range(2))
        held = torch.empty(*states[0].memory.memory.shape[:2], 0, dtype=torch.float64)
        for t, state in enumerate(states):
            before = states[t - 1] if t else call.state or self.exact.initial_state(call.inputs.shape[1])
            held = torch.cat([held, before.memory.memory, marks(before.memory)], -1)
            if call.reset is not None:
                held = held.masked_fill(call.reset[t].view(-1, 1, 1), 0)
            _, own_state = whole(self.own, own_call.cut(t, t + 1, own_state))
            _, end = as_drawn(drawn)(self.fused, asked.cut(0, t + 1, asked.state))
            right, own, got = (each.memory.usage.double() for each in (state, own_state, end))
            if not (own_slots.follow(right, own, held) and slots.follow(right, got, held)):
                limit = allowed(self.dtype, worst([own_slots.of(own)], [right]))
                return t if worst([slots.of(got)], [right]) <= limit else None
            runs = (own_slots, own_state.memory), (slots, end.memory)
            weights = torch.cat([each.unlike(state.memory, run) for each, run in runs])
            if weights.numel():
                return t if 0 < weights.min() <= weights.max() < 2 * torch.finfo(self.dtype).tiny else None
        return None

    def _mismatch(self, part: _Part, own: float) -> None:
        limit, first = allowed(self.dtype, own), part.first
        errors = {name: error(part.got, {name: right}) for name, right in part.expected.items()}
        self.findings.mismatches.append(
            {
                "case": part.drawn.number,
                "steps": [first, first + len(part.called[0].inputs)],
                "allowed": limit,
                "errors": {name: found for name, found in errors.items() if found > limit},
                "settings": part.drawn.about(),
            }
        )


class _Slots:
    """Which slot of a run plays the part of each of the reference's: slots that were always alike may swap their parts.

    Alike now is not enough: gradients tell slots apart that differed before. Nor is what usages do not resolve: a trace
    of 1e-30 that one slot was written after another.
    """

    def __init__(self, usage: Tensor) -> None:
        self.played_by = torch.arange(usage.shape[-1]).expand(usage.shape).clone()

    def of(self, numbers: Tensor) -> Tensor:
        """A run's numbers [B, N], such as usages, numbered as in the reference."""
        return numbers.gather(-1, self.played_by)

    def unlike(self, right: MemoryState, run: MemoryState) -> Tensor:
        """The write weights, the larger of either, of slots that the reference alone, or a run, has ever written to."""
        written: Any = right.written
        if not isinstance(written, Tensor):
            return right.usage.new_empty(0)
        weights = torch.maximum(right.write_weights, self.of(run.write_weights.double()))
        return weights[self.of(run.written.double()) != written]

    def follow(self, right: Tensor, usage: Tensor, held: Tensor) -> bool:
        """Whether a run's free list is the reference's, as far as what they `held` [B, N, ...] tells slots apart."""
        order, expected = (each.argsort(dim=-1, stable=True) for each in (usage, right))
        part = self.played_by.argsort(dim=-1).gather(-1, order)
        one, other = _rows(held, part), _rows(held, expected)
        if ((one - other).abs() > ALIKE * torch.maximum(one.abs(), other.abs())).any():
            return False
        self.played_by = self.played_by.scatter(-1, expected, order)
        return True


def _rows(held: Tensor, slots: Tensor) -> Tensor:
    return held.gather(1, slots.unsqueeze(-1).expand(held.shape))
