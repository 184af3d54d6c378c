"""Precedence and links, worked by hand and on a planted chain of writes."""

from itertools import pairwise

import pytest
import torch

from tests.conftest import assert_close
from tests.ops.inputs import double
from torchdnc.ops import directional_weights, link, precedence, sharpen_directional

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


def test_a_sharpness_of_1_gives_each_slot_its_share():
    followed = torch.rand(3, 4, 7, dtype=torch.float64)
    shares = followed / followed.sum(-1, keepdim=True)
    # The ε of every slot, 1e-6, is all that is between them.
    assert_close(sharpen_directional(shares, torch.ones(3, 4, dtype=torch.float64)), shares, 1e-5)


def test_sharpness_is_a_power():
    followed = double([[0.1, 0.3, 0.0, 0.4]])
    powers = [(weight + 1e-6) ** 3 for weight in (0.1, 0.3, 0.0, 0.4)]
    assert_close(sharpen_directional(followed, double([3.0])), [[power / sum(powers) for power in powers]])


def test_a_blurred_step_along_a_chain_becomes_sharp():
    # Every write is spread a little over all slots, as when gates are not quite closed.
    links, _ = write_all(0.9 * SLOTS[CHAIN] + 0.02)
    forward, _ = directional_weights(links, SLOTS[CHAIN[:1]])
    sharp = sharpen_directional(forward, double([10.0]))
    assert forward[0, CHAIN[1]] < 0.8
    assert sharp[0, CHAIN[1]] > 0.999


def test_links_that_lead_nowhere_are_uniform_over_the_slots_that_take_part():
    nowhere = torch.zeros(2, 5, dtype=torch.float64)
    assert_close(sharpen_directional(nowhere, double([1.0, 1e4])), [[0.2] * 5] * 2)
    written = double([1.0, 0.0, 1.0, 0.0, 0.0])
    assert_close(sharpen_directional(nowhere, double([1.0, 1e4]), written), [[0.5, 0.0, 0.5, 0.0, 0.0]] * 2)
    assert not sharpen_directional(nowhere, double([1.0, 1e4]), 0 * written).any()


@pytest.mark.parametrize("sharpness", [1.0, 1.5, 4.0])
def test_derivatives_of_sharpness_are_those_of_a_power_where_weights_are_0_too(sharpness):
    weights = double([[0.5, 0.0, 0.2, 0.0], [0.0] * 4]).requires_grad_()
    exponents = double([sharpness] * 2).requires_grad_()

    def by_powers(weights, exponents):
        powers = (weights + 1e-6) ** exponents.unsqueeze(-1)
        return powers / powers.sum(-1, keepdim=True)

    def derivatives(equation):
        sources, order = [weights, exponents], torch.arange(1.0, 9).double().view(2, 4)
        first = torch.autograd.grad((equation(*sources) * order).sum(), sources, create_graph=True)
        total = torch.stack([(slope * (1 + slope.detach())).sum() for slope in first]).sum()
        return [*first, *torch.autograd.grad(total, sources)]

    for ours, expected in zip(derivatives(sharpen_directional), derivatives(by_powers), strict=True):
        size = expected.detach().abs().max()
        assert_close(ours / size, expected / size, 1e-9)
