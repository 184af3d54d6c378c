"""The fused engine against the reference: outputs, final states, every gradient."""

from __future__ import annotations

import threading
import weakref
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils import _pytree as pytree
from torch.utils.checkpoint import checkpoint

from tests.engines.nudges import Nudges
from tests.engines.pairs import Case, asymmetric_state, everything, leaf_state, model, run, worst
from torchdnc import DNC, DNCState, MemoryOptions
from torchdnc.engines.fused import compiled, sequence

BY_CONTENT = MemoryOptions(links="none", skip_unwritten=True)
RECLAIMING = MemoryOptions(overflow="reclaim", high_watermark=0.3, low_watermark=0.2)
GROWING = MemoryOptions(overflow="grow", grow_above=0.2, max_memory_size=25)
MASKING, FLOORED = MemoryOptions(masking=True), MemoryOptions(masking=True, mask_floor=0.2)
EVERYTHING = replace(FLOORED, skip_unwritten=True, deallocation=True)
CASES = {
    "plain": Case(),
    "ones": Case(T=1, B=1, I=1, H=1, N=1, W=1, R=1),
    "one slot": Case(N=1, R=2),
    "two slots": Case(N=2, W=1, R=3),
    "17 slots": Case(T=7, B=3, H=5, N=17, W=4, R=3, layers=2),
    "63 slots": Case(T=4, B=1, H=17, N=63, W=17, R=2),
    "100 slots": Case(T=3, N=100, W=2, R=1),
    "eleven rows": Case(T=3, B=11, H=9, N=18, W=5, R=2),
    "three layers": Case(T=9, H=6, N=7, R=2, layers=3),
    "masks": Case(T=9, B=5, N=7, R=2, layers=2, masks=True),
    "long masks": Case(T=26, B=3, masks=True),
    "long, 37 slots": Case(T=38, B=3, N=37, R=2, masks=True),
    "feedforward": Case(T=6, R=2, layers=2, controller="feedforward"),
    "feedforward masks": Case(T=8, B=4, controller="feedforward", masks=True),
    "clipped": Case(T=6, layers=2, scale=4, clip=0.01),
    "stopped usage": Case(T=6, R=2, options=MemoryOptions(usage_gradient=False)),
    "normed": Case(T=6, B=3, R=2, normed=True),
    "normed, one thing of everything": Case(T=2, B=1, I=1, H=1, N=1, W=1, R=1, normed=True),
    "normed masks": Case(T=9, B=5, N=7, R=2, layers=2, masks=True, normed=True),
    "bidirectional": Case(T=6, B=3, R=2, bidirectional=True),
    "bidirectional, normed, masks": Case(T=9, B=5, N=7, R=2, layers=2, masks=True, normed=True, bidirectional=True),
    "skipping": Case(T=9, B=5, N=7, R=2, masks=True, options=MemoryOptions(skip_unwritten=True)),
    "skipping, many": Case(T=9, B=3, N=40, W=9, R=3, scale=3, options=MemoryOptions(skip_unwritten=True)),
    "no links": Case(T=9, B=5, N=7, R=2, masks=True, options=MemoryOptions(links="none")),
    "no links, skipping": Case(T=9, B=3, N=40, W=9, R=3, scale=3, normed=True, options=BY_CONTENT),
    "wiping": Case(T=9, B=5, N=7, W=9, R=2, masks=True, options=MemoryOptions(deallocation=True)),
    "wiping, no links, skipping": Case(T=9, B=3, N=17, R=3, scale=3, options=replace(BY_CONTENT, deallocation=True)),
    "masking": Case(T=6, B=3, options=MASKING),
    "masking, ones": Case(T=2, B=1, I=1, H=1, N=1, W=1, R=1, options=MASKING),
    "masking, one number a word": Case(N=2, W=1, R=3, options=MASKING),
    "masking, 17 slots": Case(T=7, B=3, H=5, N=17, W=4, R=3, layers=2, options=FLOORED),
    "masking, 63 slots": Case(T=4, B=1, H=17, N=63, W=17, R=2, options=MASKING),
    "masking, 100 slots": Case(T=3, N=100, W=33, R=1, options=FLOORED),
    "masking, masks, normed": Case(T=9, B=5, N=7, W=5, R=2, layers=2, masks=True, normed=True, options=FLOORED),
    "masking, saturated": Case(T=6, N=6, R=2, scale=40, options=FLOORED),
    "masking, wiping, skipping": Case(T=9, B=5, N=7, W=9, R=3, masks=True, options=EVERYTHING),
    "masking, no links, skipping": Case(T=9, B=3, N=40, W=9, R=3, scale=3, options=replace(BY_CONTENT, masking=True)),
    "all but links": Case(
        T=9, B=5, N=17, R=3, masks=True, bidirectional=True, options=replace(EVERYTHING, links="none")
    ),
    "saturated": Case(T=6, N=6, R=2, scale=40),
    "reclaiming": Case(T=9, B=5, N=7, R=2, masks=True, options=RECLAIMING),
    "reclaiming, many": Case(T=12, B=3, N=40, W=9, R=3, scale=3, options=RECLAIMING),
    "reclaiming with everything": Case(
        T=9, B=5, N=17, R=3, masks=True, normed=True, options=replace(EVERYTHING, overflow="reclaim")
    ),
    "growing": Case(T=12, B=5, N=3, R=2, masks=True, scale=3, options=GROWING),
    "growing from one slot": Case(T=12, B=4, N=1, R=3, scale=3, options=GROWING),
    # New slots tie until they are written to, unless look-ups pass over them: rounding would order them.
    "growing, skipping, two layers": Case(
        T=12, B=3, N=5, W=9, R=2, layers=2, scale=3, options=replace(GROWING, skip_unwritten=True)
    ),
    "growing, no links, skipping": Case(
        T=12, B=5, N=3, R=2, masks=True, scale=3, options=replace(GROWING, links="none", skip_unwritten=True)
    ),
    "growing, masking, wiping": Case(
        T=12, B=5, N=2, R=2, masks=True, scale=3, options=replace(GROWING, masking=True, deallocation=True)
    ),
    "growing, bidirectional": Case(T=12, B=5, N=2, R=2, masks=True, bidirectional=True, options=GROWING),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_float64_equals_reference(case: Case) -> None:
    assert worst(run(case, "fused"), run(case, "reference")) < 1e-9


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_float32_is_as_exact_as_the_reference(case: Case) -> None:
    """At most twice the reference's own error against float64, which is the largest of a few runs with other last bits
    of parameters and squashed values; with a floor of a few digits' rounding."""
    exact = run(case, "reference")
    own = max(worst(run(case, "reference", torch.float32, nudges=Nudges(seed)), exact) for seed in range(8))
    assert worst(run(case, "fused", torch.float32), exact) <= min(max(2 * own, 5e-6), 1e-3)


def test_comparison_sees_a_wrong_number() -> None:
    right = run(CASES["plain"], "reference")
    for index, tensor in enumerate(right):
        wrong = [entry.clone() for entry in right]
        wrong[index].view(-1)[0] += 1e-6 * tensor.abs().max().clamp(min=1e-3)
        assert worst(wrong, right) > 1e-9


def one_hot(weights: Tensor, first: int) -> Tensor:
    """Rows of weight 1 on slots first, first + 1, ..."""
    slots = (first + torch.arange(weights[..., 0].numel())) % weights.shape[-1]
    return torch.nn.functional.one_hot(slots, weights.shape[-1]).to(weights.dtype).view_as(weights)


def test_one_hot_and_saturated_states() -> None:
    """Weightings of exactly 0 and 1, usage exactly 1 everywhere but one slot: products hold zeros."""

    def start(made: DNC, B: int) -> DNCState:
        state = asymmetric_state(made, B)
        memory = state.memory
        usage = torch.ones_like(memory.usage)
        usage[:, 2] = 0.25
        return leaf_state(
            state._replace(
                memory=memory._replace(
                    usage=usage,
                    write_weights=one_hot(memory.write_weights, 0),
                    read_weights=one_hot(memory.read_weights, 1),
                    precedence=one_hot(memory.precedence, 3),
                )
            )
        )

    case = Case(T=6, N=6, R=2)
    # Freed slots tie, and rounding may number them differently later on: one step is compared whole.
    once = Case(T=1, N=6, R=2)
    assert worst(run(once, "fused", start=start), run(once, "reference", start=start)) < 1e-9
    outputs = run(case, "fused", start=start)[0], run(case, "reference", start=start)[0]
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-9)


def test_from_zero_states_outputs_and_gradients_are_equal() -> None:
    """All slots tie at first; rounding may number them differently, which no output shows."""
    case = Case(T=12, B=3, N=8, R=2)
    torch.manual_seed(3)
    inputs = torch.randn(case.T, case.B, case.I, dtype=torch.float64)
    found = []
    for engine in ("fused", "reference"):
        made = model(case, engine)
        outputs, _ = made(inputs)
        outputs.square().sum().backward()
        found.append([outputs.detach(), *(parameter.grad for parameter in made.parameters())])
    assert worst(found[0], found[1]) < 1e-9


def test_without_gradients_nothing_changes() -> None:
    case = CASES["17 slots"]
    made = model(case, "fused")
    inputs = torch.randn(case.T, case.B, case.I, dtype=torch.float64)
    outputs, state = made(inputs)
    with torch.no_grad():
        again, end = made(inputs)
    assert torch.equal(outputs, again)
    assert torch.equal(state.memory.link, end.memory.link)
    assert torch.equal(state.controller.cell[0], end.controller.cell[0])


def test_without_gradients_there_is_no_tape(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = []

    def watched(name: str, team: Any, sizes: Any, *others: Any) -> None:
        kept.append(sizes.keep)
        compiled.run(name, team, sizes, *others)

    monkeypatch.setattr(sequence, "run", watched)
    case = Case()
    made = model(case, "fused")
    inputs = torch.randn(case.T, case.B, case.I, dtype=torch.float64)
    made(inputs)
    with torch.no_grad():
        made(inputs)
    made.requires_grad_(False)(inputs)
    assert kept == [True, False, False]


def test_a_checkpointed_call_keeps_no_tape(monkeypatch: pytest.MonkeyPatch) -> None:
    tapes = []

    def noted(sizes: Any, like: Tensor, make: Any = sequence._room_to_keep) -> Any:
        kept = make(sizes, like)
        tapes.append(weakref.ref(kept.numbers))
        return kept

    monkeypatch.setattr(sequence, "_room_to_keep", noted)
    case = Case(T=6)
    made = model(case, "fused")
    inputs = torch.randn(case.T, case.B, case.I, dtype=torch.float64, requires_grad=True)
    outputs = checkpoint(lambda x: made(x)[0], inputs, use_reentrant=False)
    assert tapes[0]() is None
    again = made(inputs)[0]
    assert tapes[1]() is not None
    torch.testing.assert_close(*(torch.autograd.grad(y.square().sum(), inputs)[0] for y in (outputs, again)))


def test_two_live_graphs_and_a_second_backward() -> None:
    case = Case(T=6)
    made = model(case, "fused")
    state = asymmetric_state(made, case.B)
    inputs = [torch.randn(case.T, case.B, case.I, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    alone = [torch.autograd.grad(made(entry, state)[0].square().sum(), entry)[0] for entry in inputs]
    losses = [made(entry, state)[0].square().sum() for entry in inputs]
    for _ in range(2):
        for loss, entry, expected in zip(losses, inputs, alone, strict=True):
            assert torch.equal(torch.autograd.grad(loss, entry, retain_graph=True)[0], expected)


def test_a_call_leaves_its_arguments_alone() -> None:
    case = CASES["masks"]
    made = model(case, "fused")
    state = asymmetric_state(made, case.B)
    given = pytree.tree_leaves((state.memory, state.read_words))
    before = [leaf.detach().clone() for leaf in given]
    everything(made, torch.randn(case.T, case.B, case.I, dtype=torch.float64, requires_grad=True), state)
    assert all(torch.equal(*pair) for pair in zip(before, given, strict=True))


def test_layouts_reach_the_engine() -> None:
    """PackedSequence, a single sequence, batch first."""
    case = Case(T=6, B=3)
    inputs = torch.randn(case.T, case.B, case.I, dtype=torch.float64)
    packed = pack_padded_sequence(inputs, torch.tensor([3, 6, 2]), enforce_sorted=False)
    models = [model(case, engine) for engine in ("fused", "reference")]
    for call in (packed, inputs[:, 0]):
        results = [made(call)[0] for made in models]
        data = [result if isinstance(result, Tensor) else result.data for result in results]
        torch.testing.assert_close(*data, rtol=0, atol=1e-9)


def test_several_python_threads_at_once() -> None:
    case = Case(T=6)
    made = model(case, "fused")
    inputs = torch.randn(case.T, case.B, case.I, dtype=torch.float64)
    expected, results = made(inputs)[0], []
    threads = [threading.Thread(target=lambda: results.append(made(inputs)[0])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all(torch.equal(result, expected) for result in results)
