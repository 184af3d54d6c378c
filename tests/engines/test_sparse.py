"""The fused engine of the sparse memory against the reference; memories change in place and read as they were."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from tests.conftest import assert_close
from torchdnc import SparseDNC
from torchdnc.engines.sparse.dense import snapshot

I, H, O = 3, 5, 2
EXACT = 1e-9

SIZES: dict[str, dict[str, Any]] = {
    "full": {"memory_size": 7},
    "roomy": {"memory_size": 100},
    "tiny": {"memory_size": 2, "sparse_reads": 3},
    "one of each": {"memory_size": 1, "read_heads": 1, "sparse_reads": 1, "link_width": 1},
    "narrow links": {"memory_size": 9, "link_width": 1},
    "wide links": {"memory_size": 20, "link_width": 8},
    "odd": {"memory_size": 11, "word_size": 33, "read_heads": 3, "sparse_reads": 5},
    "normed": {"memory_size": 7, "interface_norm": True, "num_layers": 2},
    "feedforward": {"memory_size": 7, "controller": "feedforward", "num_layers": 2},
    "clipped": {"memory_size": 7, "activation_gradient_clip": 0.05},
}


def make(engine: str = "auto", dtype: torch.dtype = torch.float64, scale: float = 2.0, **sizes: Any) -> SparseDNC:
    torch.manual_seed(0)
    defaults: dict[str, Any] = {"word_size": 4, "read_heads": 2, "sparse_reads": 3, "link_width": 2, "memory_size": 7}
    model = SparseDNC(I, H, O, engine=engine, dtype=torch.float64, **defaults | sizes)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    return model.to(dtype)


def drawn(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def numbers(state: Any) -> list[Tensor]:
    """All that a state holds, its memory as dense tensors."""
    parts = state.controller, snapshot(state.memory), state.read_words
    return [leaf for leaf in pytree.tree_leaves(parts) if isinstance(leaf, Tensor)]


def everything(model: SparseDNC, run: Any, inputs: Tensor) -> tuple[list[Tensor], tuple[Any, ...]]:
    """Outputs and final state of a run, and gradients of the inputs and parameters for random weights of them all."""
    inputs = inputs.clone().requires_grad_()
    outputs, state = run(model, inputs)
    results = [outputs, *numbers(state)]
    moving = [result for result in results if result.requires_grad]
    loss = sum((result * drawn(*result.shape, seed=7, dtype=result.dtype)).sum() for result in moving)
    gradients: Any = torch.autograd.grad(loss, [inputs, *model.parameters()], allow_unused=True)
    return [result.detach() for result in results], gradients


def whole(model, inputs):
    return model(inputs)


def in_pieces(model, inputs):
    first, state = model(inputs[:5])
    second, state = model(inputs[5:], state)
    return torch.cat([first, second]), state


def step_by_step(model, inputs):
    outputs, state = [], None
    for step_input in inputs:
        output, state = model.step(step_input, state)
        outputs.append(output)
    return torch.stack(outputs), state


def masked(model, inputs):
    T, B, _ = inputs.shape
    lengths = torch.tensor([T, 0, T - 3])[:B]
    return model(inputs, None, lengths, drawn(T, B, seed=5) > 0.8)


def branching(model, inputs):
    """Two calls from one state, which the first must not have changed for the second."""
    _, state = model(inputs[:6])
    one, _ = model(inputs[6:9], state)
    other, end = model(inputs[9:], state)
    return torch.cat([one, other]), end


RUNS = [whole, in_pieces, step_by_step, masked, branching]
CASES = [(name, in_pieces) for name in SIZES] + [("full", run) for run in RUNS if run is not in_pieces]


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize(("name", "run"), CASES)
def test_engines_agree(name, run, links):
    sizes, inputs = SIZES[name], drawn(12, 3, I)
    (actual, gradients), (expected, expected_gradients) = (
        everything(make(engine, links=links, **sizes), run, inputs) for engine in ("fused", "reference")
    )
    for one, other in zip((*actual, *gradients), (*expected, *expected_gradients), strict=True):
        if other is None:
            assert one is None or not one.any()
        else:
            assert_close(one.double(), other.double(), EXACT)


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_engines_agree_in_float32(links, scale):
    """To the distance that float32 itself has from float64, with room."""
    inputs = drawn(10, 4, I)
    fused, reference, exact = (
        everything(make(engine, dtype, scale, links=links), whole, inputs.to(dtype))
        for engine, dtype in (("fused", torch.float32), ("reference", torch.float32), ("reference", torch.float64))
    )
    for one, other, truth in zip(*(sum(map(tuple, each), ()) for each in (fused, reference, exact)), strict=True):
        own = float((other.double() - truth.double()).abs().max())
        assert float((one.double() - truth.double()).abs().max()) <= 8 * own + 1e-5 * float(truth.double().abs().max())


@pytest.mark.parametrize("engine", ["fused", "reference"])
@pytest.mark.parametrize("run", [in_pieces, step_by_step])
def test_how_a_sequence_is_cut_does_not_matter(engine, run):
    model, inputs = make(engine), drawn(14, 2, I)
    (actual, gradients), (expected, expected_gradients) = (everything(model, cut, inputs) for cut in (run, whole))
    assert_close(actual[0], expected[0], EXACT)
    for one, other in zip(gradients, expected_gradients, strict=True):
        assert_close(one, other, EXACT)


def test_gradients_of_a_state_are_those_of_the_dense_one():
    """Of every tensor in it, and of what stands for its words."""
    inputs, found = drawn(4, 3, I, seed=2), []
    for engine in ("fused", "reference"):
        model = make(engine, memory_size=30)
        with torch.no_grad():
            state = model(drawn(12, 3, I), None, torch.tensor([12, 3, 0]))[1]
        leaves = [leaf for leaf in pytree.tree_leaves(state) if leaf.is_floating_point()]
        leaves = [leaf.requires_grad_() for leaf in leaves if leaf is not state.memory.precedence]
        outputs, end = model(inputs, state)
        loss = outputs.square().sum() + sum(part.square().sum() for part in numbers(end) if part.requires_grad)
        gradients = torch.autograd.grad(loss, leaves)
        found.append([outputs, *(one.to_dense() if one.is_sparse else one for one in gradients)])
    for one, other in zip(*found, strict=True):
        assert_close(one, other, EXACT)
    assert found[0][-3].any()


def test_states_read_as_they_did():
    """After later calls, after a backward pass, and after calls from an older one; bit for bit."""
    model, inputs = make(memory_size=9), drawn(30, 3, I)
    states, noted = [model.initial_state(3)], []
    noted.append(numbers(states[0]))
    for first in range(0, 30, 3):
        outputs, state = model(inputs[first : first + 3], states[-1])
        states.append(state)
        noted.append([leaf.detach().clone() for leaf in numbers(state)])
    outputs.sum().backward()
    again, _ = model(inputs[9:12], states[3])
    for at in (4, 0, 10, 2, 9, 1):
        assert_same(states[at], noted[at])
    # From an older state with another input, between two looks.
    model(inputs[:20], states[2], None, drawn(20, 3, seed=3) > 0.7)
    for at in range(len(states)):
        assert_same(states[at], noted[at])
    assert_close(again, model(inputs[9:12], states[3])[0], 0)


def assert_same(state, noted):
    for one, other in zip(numbers(state), noted, strict=True):
        assert torch.equal(one, other)


def test_a_graph_can_be_gone_through_twice_and_later():
    model, inputs = make(memory_size=9), drawn(8, 2, I)
    outputs, state = model(inputs)
    outputs.sum().backward(retain_graph=True)
    first = tuple(parameter.grad for parameter in model.parameters())
    model(drawn(20, 2, I, seed=4), state)
    model.zero_grad()
    outputs.sum().backward()
    assert_close(tuple(parameter.grad for parameter in model.parameters()), first, 0)


def test_a_journal_is_as_long_as_what_was_touched():
    """And the memory as what was written, whatever its size."""
    model = make(memory_size=1_000_000, links=True)
    _, state = model(drawn(10, 2, I))
    _, later = model(drawn(10, 2, I, seed=2), state)
    journal = state.memory.version._journal
    assert journal is not None
    assert (journal.held <= 20).all()
    assert max(later.memory.version.existing()) <= 20
    assert later.memory.version.pages.rows <= 40


def test_a_state_that_nobody_has_keeps_no_journal():
    import gc
    import weakref

    model = make(memory_size=50)
    with torch.no_grad():
        _, state = model(drawn(3, 2, I))
        versions = [weakref.ref(state.memory.version)]
        for t in range(5):
            _, state = model(drawn(3, 2, I, seed=t), state)
            versions.append(weakref.ref(state.memory.version))
    gc.collect()
    assert [version() is None for version in versions] == [True] * 5 + [False]


def test_rows_and_dtypes_of_a_state_are_copies():
    model, inputs = make(memory_size=9), drawn(6, 3, I)
    state = model(inputs)[1].detach()
    expected, end = model(inputs, state)
    for rows in (slice(1, 3), [2, 0], torch.tensor([True, False, True])):
        chosen = torch.arange(3)[rows]
        some, some_end = model(inputs[:, chosen], state[rows])
        assert_close(some, expected[:, chosen], EXACT)
        for one, other in zip(numbers(some_end), numbers(end), strict=True):
            assert_close(one[..., : other.shape[-1]].double(), other[chosen].double()[..., : one.shape[-1]], EXACT)
    single = make(memory_size=9, dtype=torch.float32)
    assert_close(single(inputs.float(), state.to(torch.float32))[0].double(), expected, 1e-3)


def test_a_batch_of_no_rows_has_gradients():
    model = make("fused")
    outputs, state = model(drawn(3, 0, I))
    assert outputs.shape == (3, 0, O)
    model(drawn(3, 0, I), state)[0].sum().backward()


def test_a_single_sequence_is_a_batch_of_one():
    model, inputs = make(), drawn(6, 1, I)
    outputs, state = model(inputs)
    alone, alone_state = model(inputs[:, 0])
    assert_close(alone, outputs[:, 0], 0)
    again, _ = model(inputs[:, 0], alone_state)
    assert_close(again, model(inputs, state)[0][:, 0], 0)
    assert model.initial_state().read_words.shape == (2, 4)


def test_engines_go_on_with_each_others_states():
    """Also where the memory of the one must grow for the other."""
    inputs = drawn(12, 2, I)
    first, then = make("reference", memory_size=50), make("fused", memory_size=50)
    expected, _ = first(inputs)
    for one, other in ((first, then), (then, first)):
        _, state = one(inputs[:4])
        outputs, state = other(inputs[4:9], state)
        assert_close(outputs, expected[4:9], EXACT)
        assert_close(one(inputs[9:], state)[0], expected[9:], EXACT)


def test_an_interrupted_call_leaves_the_state_as_it_was(monkeypatch):
    from torchdnc.engines.fused.sparse import sequence

    model, inputs = make("fused", memory_size=9), drawn(12, 2, I)
    _, state = model(inputs[:4])
    noted = [number.clone() for number in numbers(state)]
    run = vars(sequence)["run"]

    def interrupted(*arguments):
        run(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sequence, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            model(inputs[4:], state)
    assert_same(state, noted)


@pytest.mark.parametrize("failing", ["relink", "note"])
def test_going_back_can_be_interrupted(failing, monkeypatch):
    from torchdnc.engines.sparse.pages import Pages

    model, inputs = make(memory_size=20), drawn(10, 2, I)
    _, older = model(inputs[:5])
    _, newer = model(inputs[5:], older)
    noted = [[number.clone() for number in numbers(state)] for state in (newer, older, newer)]
    for state, number in zip((newer, older, newer), noted, strict=True):
        with monkeypatch.context() as patch:
            patch.setattr(Pages, failing, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with contextlib.suppress(KeyboardInterrupt):
                numbers(state)
        assert_same(state, number)


def test_a_memory_that_found_no_room_goes_on(monkeypatch):
    from torchdnc.engines.sparse.pages import Layout

    model, inputs = make(memory_size=10_000), drawn(8, 2, I)
    _, state = model(inputs)
    expected, _ = model(inputs, state)
    with monkeypatch.context() as patch:
        patch.setattr(Layout, "tables", lambda *_: (_ for _ in ()).throw(MemoryError))
        with pytest.raises(MemoryError):
            model(drawn(500, 2, I), state)
    assert_close(model(inputs, state)[0], expected, 0)


@pytest.mark.parametrize("engine", ["fused", "reference"])
def test_single_sequences_are_trained_across_calls(engine):
    model, inputs = make(engine, memory_size=20), drawn(8, I)
    found = []
    for pieces in ([inputs], [inputs[:3], inputs[3:]], [step[None] for step in inputs]):
        state, outputs = model.initial_state(), []
        for piece in pieces:
            output, state = model(piece, state)
            outputs.append(output)
        found.append(torch.autograd.grad(torch.cat(outputs).square().sum(), [*model.parameters()]))
    assert_close(found[1], found[0], EXACT)
    assert_close(found[2], found[0], EXACT)


def test_second_derivatives_are_refused_by_a_sentence():
    model = make("fused")
    outputs, _ = model(drawn(3, 2, I))
    with pytest.raises(RuntimeError, match="no second derivatives"):
        torch.autograd.grad(outputs.sum(), [*model.parameters()], create_graph=True)


BAD = [
    ({"memory_size": 0}, ValueError, "memory_size must be at least 1, got 0"),
    ({"sparse_reads": 0}, ValueError, "sparse_reads must be at least 1, got 0"),
    ({"links": 1}, TypeError, "links must be of type bool, got int"),
    ({"memory_size": 2**31}, ValueError, "memory_size must be at most 2147483647"),
    ({"storage": 5}, TypeError, "storage must be None or a directory, got int"),
    ({"engine": "fast"}, ValueError, "engine must be one of"),
]


@pytest.mark.parametrize(("options", "error", "words"), BAD, ids=str)
def test_bad_arguments_get_a_sentence(options, error, words):
    with pytest.raises(error, match=words):
        make(**options)


def test_a_state_of_another_model_is_refused():
    state = make(links=False).initial_state(2)
    with pytest.raises(ValueError, match=r"state\.memory must have"):
        make(links=True)(drawn(3, 2, I), state)
    with pytest.raises(TypeError, match="state must be of type SparseState"):
        make()(drawn(3, 2, I), (1, 2))
    with pytest.raises(TypeError, match="float32 or float64"):
        make().half()(drawn(3, 2, I).half())
