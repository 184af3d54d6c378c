"""Precedence and links, worked by hand and on a planted chain of writes."""

from itertools import pairwise

import torch

from tests.conftest import assert_close
from tests.ops.inputs import double
from torchdnc.ops import directional_weights, link, precedence

CHAIN = [2, 0, 3, 1]
SLOTS = torch.eye(5, dtype=torch.float64)


def write_all(writes):
    """Links and precedence after writing these weightings in turn."""
    links, before = torch.zeros(5, 5, dtype=torch.float64), torch.zeros(5, dtype=torch.float64)
    for write in writes:
        links, before = link(links, before, write), precedence(before, write)
    return links, before


def test_precedence_is_the_last_write_and_what_it_left_of_the_ones_before():
    before, write = double([0.5, 0.25, 0.0]), double([0.0, 0.25, 0.5])
    assert_close(precedence(before, write), [0.125, 0.3125, 0.5])


def test_a_link_fades_with_either_end_and_is_made_from_precedence():
    links = double([[0.0, 0.4], [0.2, 0.0]])
    before, write = double([0.5, 0.25]), double([0.6, 0.1])
    # 0.3 · 0.4 + 0.6 · 0.25 and 0.3 · 0.2 + 0.1 · 0.5; nothing follows itself.
    assert_close(link(links, before, write), [[0.0, 0.27], [0.11, 0.0]])


def test_a_planted_chain_of_writes_is_linked_slot_to_slot():
    links, before = write_all(SLOTS[CHAIN])
    expected = torch.zeros(5, 5, dtype=torch.float64)
    for earlier, later in pairwise(CHAIN):
        expected[later, earlier] = 1
    assert torch.equal(links, expected)
    assert torch.equal(before, SLOTS[CHAIN[-1]])


def test_a_planted_chain_is_followed_forward_and_backward():
    links, _ = write_all(SLOTS[CHAIN])
    forward, backward = directional_weights(links, SLOTS[CHAIN])
    nowhere = torch.zeros(1, 5, dtype=torch.float64)
    assert torch.equal(forward, torch.cat([SLOTS[CHAIN[1:]], nowhere]))
    assert torch.equal(backward, torch.cat([nowhere, SLOTS[CHAIN[:-1]]]))


def test_writing_a_slot_again_takes_it_out_of_its_old_place():
    # 2, 0, 3, 1 and then 0 once more: 3 no longer follows 0, and 0 follows 1.
    links, _ = write_all(SLOTS[[*CHAIN, 0]])
    forward, backward = directional_weights(links, SLOTS)
    assert torch.equal(forward[1], SLOTS[0])
    assert torch.equal(backward[0], SLOTS[1])
    assert not forward[2].any()
    assert not backward[3].any()


def test_writing_one_slot_twice_running_links_nothing_to_itself():
    links, before = write_all(SLOTS[[2, 2]])
    assert not links.any()
    assert torch.equal(before, SLOTS[2])


def test_a_step_without_a_write_does_not_break_the_chain():
    pause = torch.zeros_like(SLOTS[0])
    links, _ = write_all([SLOTS[2], pause, SLOTS[0]])
    assert links[0, 2] == 1
    assert links.sum() == 1
