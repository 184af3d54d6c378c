"""Approximate look-ups: what an index proposes is compared exactly, and what changed since is never missed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.conftest import assert_close
from tests.engines.test_sparse import EXACT, I, drawn, everything, make, numbers
from torchdnc import SparseDNC
from torchdnc.bench.sparse import written
from torchdnc.engines.sparse import index

pytest.importorskip("faiss")


@pytest.fixture
def eager(monkeypatch):
    """An index from a few slots on, which proposes as many as are asked for."""

    def when(worth=16, proposed=10_000, stale=4096):
        monkeypatch.setattr(index, "WORTH", worth)
        monkeypatch.setattr(index, "STALE", stale)
        for module in (index, __import__("torchdnc.engines.fused.sparse.tape", fromlist=["x"])):
            monkeypatch.setattr(module, "PROPOSED", proposed)
            monkeypatch.setattr(module, "STALE", stale)

    return when


def in_calls(model, inputs):
    outputs, state = [], None
    for first in range(0, len(inputs), 20):
        output, state = model(inputs[first : first + 20], state)
        outputs.append(output)
    return torch.cat(outputs), state


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("stale", [4096, 0])
def test_an_index_that_proposes_all_slots_is_exact(links, stale, eager):
    eager(stale=max(stale, 60))
    inputs = drawn(80, 2, I)
    (actual, gradients), (expected, expected_gradients) = (
        everything(make("fused", links=links, memory_size=60, look_up=look_up), in_calls, inputs)
        for look_up in ("approximate", "exact")
    )
    for one, other in zip((*actual, *gradients), (*expected, *expected_gradients), strict=True):
        assert_close(one.double(), other.double(), EXACT)


def test_older_states_are_looked_up_as_they_were(eager):
    eager()
    exact, model = make("fused", memory_size=60), make("fused", memory_size=60, look_up="approximate")
    ends = []
    for each in (exact, model):
        with torch.no_grad():
            _, state = each(drawn(40, 2, I))
            each(drawn(20, 2, I, seed=2), state)
            _, end = each(drawn(20, 2, I, seed=3), state, None, drawn(20, 2, seed=4) > 1.5)
            ends.append(numbers(end))
    for one, other in zip(*ends, strict=True):
        assert_close(one.double(), other.double(), EXACT)


def test_most_of_the_nearest_are_found():
    """Of keys near to words, among words that have nothing in common: the hardest there are."""
    random = np.random.default_rng(0)
    words = random.standard_normal((100_000, 32)).astype(np.float32)
    keys = words[random.integers(0, len(words), 40)] + 0.1 * random.standard_normal((40, 32)).astype(np.float32)
    made = index.Index(1, 32)
    made.refresh(words.reshape(1, -1), np.array([len(words)]))
    proposed = made.propose(0, keys)
    assert proposed is not None
    similar = keys @ (words / np.linalg.norm(words, axis=1, keepdims=True)).T
    nearest = np.argsort(-similar, axis=1)[:, :4]
    assert np.mean([np.isin(best, some).mean() for best, some in zip(nearest, proposed, strict=True)]) > 0.95


def test_few_slots_need_no_index():
    model = SparseDNC(I, 4, memory_size=1000, word_size=4, look_up="approximate")
    inputs = torch.randn(30, 2, I)
    outputs, state = model(inputs)
    assert state.memory.version.pages.index._codes == [None, None]
    torch.manual_seed(0)
    model.look_up = "exact"
    assert torch.equal(model(inputs)[0], outputs)


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match='look_up must be "exact" here: faiss is not installed'):
        make(look_up="approximate")


def test_a_full_memory_is_looked_up_approximately():
    model = SparseDNC(8, 20, memory_size=70_000, word_size=32, read_heads=2, look_up="approximate", dtype=torch.float32)
    state = written(model, 1)
    with torch.no_grad():
        outputs, state = model(torch.randn(5, 1, 8), state)
    assert state.memory.version.pages.index._codes[0] is not None
    assert outputs.isfinite().all()
