"""Whose words are read, against closed forms and against a memory that holds names instead of words."""

import numpy as np
import pytest
import torch

from tests.conftest import assert_close
from torchdnc.inspector.attribution import origins, read_shares
from torchdnc.ops import erase_and_write

T, N, R, S = 9, 5, 3, 4


@pytest.fixture
def weightings():
    """Write weightings [T, N] and read weightings [T, R, N], of sum at most 1, and the part of each step."""
    generator = torch.Generator().manual_seed(0)
    writes = torch.rand(T, N, generator=generator, dtype=torch.float64).softmax(-1) * 0.9
    reads = torch.rand(T, R, N, generator=generator, dtype=torch.float64).softmax(-1)
    return writes, reads, torch.tensor([0, 0, 1, 1, 1, 2, 2, 3, 3])


def by_hand(writes, reads, parts, asking):
    """The closed form: step τ's share of slot i at step t is w_τ(i) Π_{τ < k ≤ t} (1 − w_k(i))."""
    w, r = writes.numpy(), reads.numpy()
    shares = np.zeros(S)
    for t in np.flatnonzero(asking):
        for tau in range(t + 1):
            left = w[tau] * np.prod(1 - w[tau + 1 : t + 1], axis=0)
            shares[parts[tau]] += (r[t] * left).sum()
    return shares / shares.sum()


def test_shares_are_those_of_the_closed_form(weightings):
    writes, reads, parts = weightings
    for asking in (torch.arange(T) == T - 1, torch.arange(T) >= T - 3, parts == 1):
        assert_close(read_shares(writes, reads, parts, asking), by_hand(writes, reads, parts, asking))


def test_origins_are_what_a_memory_of_names_holds(weightings):
    """A memory that is erased where it is written to, and into which every part writes a name of its own."""
    writes, _, parts = weightings
    memory = origin = torch.zeros(N, S, dtype=torch.float64)
    for t in range(T):
        name = torch.eye(S, dtype=torch.float64)[parts[t]]
        memory = erase_and_write(memory, writes[t], torch.ones(S, dtype=torch.float64), name)
        origin = origins(origin, writes[t], int(parts[t]))
        assert_close(origin, memory)
    assert_close(origin.sum(-1), 1 - (1 - writes).prod(0))


def test_the_last_to_write_a_slot_wholly_is_the_one_who_is_read():
    """Parts 0, 1 and 2 write slots 0, 1 and 0; a head looks at slot 0, another in equal parts at both."""
    writes = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    looks = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    reads = torch.stack([torch.zeros(2, 2)] * 3 + [looks])
    parts, last = torch.tensor([0, 1, 2, 3]), torch.tensor([False, False, False, True])
    assert_close(read_shares(writes, reads, parts, last), torch.tensor([0, 0.25, 0.75, 0]))
    early = torch.tensor([False, True, False, False])
    reads[1] = looks
    assert_close(read_shares(writes, reads, parts, early), torch.tensor([0.75, 0.25, 0, 0]))


def test_a_step_reads_what_it_has_just_written():
    writes, reads = torch.tensor([[0.0], [0.5]]), torch.tensor([[[0.0]], [[1.0]]])
    shares = read_shares(writes, reads, torch.tensor([0, 1]), torch.tensor([False, True]))
    assert_close(shares, torch.tensor([0.0, 1.0]))


def test_where_nothing_is_read_no_share_is_made_up(weightings):
    writes, reads, parts = weightings
    assert not read_shares(writes, 0 * reads, parts, parts == 1).any()
    assert not read_shares(0 * writes, reads, parts, parts == 1).any()
