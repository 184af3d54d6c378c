"""The sparse memory's step against its equations in loops, and what it must do exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import assert_close
from torchdnc import ops

B, N, W, R, K, LINKS = 3, 6, 4, 2, 3, 2


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def interface(seed, links=True):
    raw = 2 * drawn(B, ops.sparse_interface_size(W, R, links), seed=seed)
    return ops.split_sparse_interface(raw, W, R, links)


def empty(links=True):
    zeros = lambda *shape: torch.zeros(B, *shape, dtype=torch.float64)  # noqa: E731
    whole = lambda *shape: torch.zeros(B, *shape, dtype=torch.long)  # noqa: E731
    linked: Any = (zeros(N), zeros(N, N)) if links else ((), ())
    return ops.SparseSlots(zeros(N, W), whole(N), whole(), whole(N).bool(), zeros(R, N), *linked)


def reached(links):
    """A memory in which every slot exists, and some were taken twice."""
    slots = empty(links)
    for t in range(N + 2):
        _, slots = ops.sparse_access(interface(seed=t, links=links), slots, K, LINKS)
    return slots


def largest(values, count):
    """The others are 0. Ties go to the lowest index."""
    order = sorted(range(len(values)), key=lambda i: (-values[i], i))[:count]
    return np.array([value if i in order else 0.0 for i, value in enumerate(values)])


def step_in_loops(xi, prev, links):
    """Rae et al. 2016 for one row of a batch, in NumPy."""
    memory, accessed = prev["memory"].copy(), prev["accessed"].copy()
    slot = min(range(N), key=lambda i: (accessed[i], i))
    exists = prev["exists"].copy()
    exists[slot] = True
    write = xi["write_gate"] * xi["again_gate"] * sum(prev["read_weights"]) / R
    write[slot] += xi["write_gate"] * (1 - xi["again_gate"])
    memory[slot] = 0
    for i in range(N):
        memory[i] = memory[i] + write[i] * xi["write_vector"]

    reads = []
    for r in range(R):
        key, beta = xi["read_keys"][r], xi["read_strengths"][r]
        length = lambda v: np.sqrt(np.sum(v * v) + 1e-6)  # noqa: E731
        cosine = [key @ memory[i] / (length(key) * length(memory[i])) for i in range(N)]
        best = sorted((i for i in range(N) if exists[i]), key=lambda i: (-cosine[i], i))[:K]
        powers = {i: np.exp(beta * cosine[i]) for i in best}
        reads.append(np.array([powers.get(i, 0.0) / sum(powers.values()) for i in range(N)]))

    precedence, link = prev.get("precedence"), prev.get("link")
    if links:
        before = precedence.copy()
        before[slot] = 0
        grown = np.zeros((N, N))
        for i in range(N):
            for j in range(N):
                kept = 0 if slot in (i, j) else link[i, j]
                grown[i, j] = 0 if i == j else (1 - write[i]) * kept + write[i] * before[j]
        rows = np.array([largest(row, LINKS) for row in grown])
        link = np.array([largest(column, LINKS) for column in rows.T]).T
        precedence = largest((1 - sum(write)) * before + write, LINKS)
        for r in range(R):
            back, found, ahead = xi["read_modes"][r]
            old = prev["read_weights"][r]
            forward = [sum(link[i, j] * old[j] for j in range(N)) for i in range(N)]
            backward = [sum(link[j, i] * old[j] for j in range(N)) for i in range(N)]
            mixed = [back * b + found * c + ahead * f for b, c, f in zip(backward, reads[r], forward, strict=True)]
            reads[r] = largest(mixed, K)

    clock = prev["clock"] + 1
    accessed[write + sum(reads) > 0.005] = clock
    words = np.array([sum(read[i] * memory[i] for i in range(N)) for read in reads])
    return words, {
        "memory": memory, "accessed": accessed, "clock": clock, "exists": exists, "read_weights": np.array(reads),
        "precedence": precedence, "link": link,
    }  # fmt: skip


def row(parts, b):
    return {name: part[b].numpy() for name, part in parts._asdict().items() if isinstance(part, torch.Tensor)}


@pytest.mark.parametrize("links", [True, False])
def test_a_step_is_what_the_equations_say(links):
    """Over more steps than there are slots, so that some are taken anew."""
    slots = empty(links)
    for t in range(3 * N):
        xi = interface(seed=t, links=links)
        words, after = ops.sparse_access(xi, slots, K, LINKS)
        for b in range(B):
            expected, expected_after = step_in_loops(row(xi, b), row(slots, b), links)
            assert_close(words[b], expected, 1e-12)
            for name, value in row(after, b).items():
                assert_close(value.astype(float), np.asarray(expected_after[name], float), 1e-12)
        slots = after
    assert slots.exists.all()


def test_gradients_are_those_of_the_numbers():
    slots = reached(links=False)
    raw = 2 * drawn(B, ops.sparse_interface_size(W, R, False), seed=99)

    def step(raw, memory, read_weights):
        # Where nothing was read a number may not be moved: a little more would be read.
        before = slots._replace(memory=memory, read_weights=read_weights * (slots.read_weights > 0))
        words, after = ops.sparse_access(ops.split_sparse_interface(raw, W, R, False), before, K, LINKS)
        return words, after.memory, after.read_weights

    leaves = [leaf.clone().requires_grad_() for leaf in (raw, slots.memory, slots.read_weights)]
    assert torch.autograd.gradcheck(step, leaves)


def test_gradients_flow_along_links_and_not_into_them():
    """What chooses where to write makes the links, too, and stays as it is here."""
    slots, xi = reached(links=True), interface(seed=99)

    def step(memory, vector, keys, strengths, modes):
        moved = xi._replace(write_vector=vector, read_keys=keys, read_strengths=strengths, read_modes=modes)
        words, after = ops.sparse_access(moved, slots._replace(memory=memory), K, LINKS)
        return words, after.memory, after.read_weights

    parts = slots.memory, xi.write_vector, xi.read_keys, xi.read_strengths, xi.read_modes
    leaves = [part.clone().requires_grad_() for part in parts]
    assert torch.autograd.gradcheck(step, leaves)
    read_weights = slots.read_weights.clone().requires_grad_()
    words, after = ops.sparse_access(xi, slots._replace(read_weights=read_weights), K, LINKS)
    assert not after.link.requires_grad
    assert not after.precedence.requires_grad
    assert torch.autograd.grad(words.sum(), read_weights)[0].any()


def test_slots_are_taken_in_order_then_the_oldest():
    accessed = torch.tensor([[0, 0, 0], [3, 0, 0], [3, 2, 4], [2, 2, 2]])
    assert ops.oldest_slot(accessed).tolist() == [0, 1, 1, 0]


def test_links_stay_few_in_rows_and_columns():
    slots = empty()
    for t in range(40):
        _, slots = ops.sparse_access(interface(seed=t), slots, K, LINKS)
        assert ((slots.link > 0).sum(-1) <= LINKS).all()
        assert ((slots.link > 0).sum(-2) <= LINKS).all()
        assert ((slots.precedence > 0).sum(-1) <= LINKS).all()
        assert (slots.link.diagonal(dim1=-2, dim2=-1) == 0).all()
        assert (slots.read_weights.sum(-1) <= 1 + 1e-12).all()
        assert ((slots.read_weights > 0).sum(-1) <= K).all()


def test_the_interface_has_the_width_that_it_says():
    assert ops.sparse_interface_size(W, R, links=False) == R * W + R + W + 2
    assert ops.sparse_interface_size(W, R, links=True) == R * W + R + W + 2 + 3 * R
    with pytest.raises(ValueError, match="interface must have 22 features"):
        ops.split_sparse_interface(drawn(B, 25), W, R, links=True)
