"""What the options of the memory change, and what they leave."""

import importlib
import re
from dataclasses import FrozenInstanceError

import pytest
import torch
from torch.utils import _pytree as pytree

from tests.conftest import assert_close
from torchdnc import MemoryOptions, MemoryState
from torchdnc.ops import access, interface_size, link, split_interface
from torchdnc.types import PAPER

# `torchdnc.ops.access` is the function.
access_module = importlib.import_module("torchdnc.ops.access")

B, N, W, R = 2, 4, 3, 2
STOPPED = MemoryOptions(usage_gradient=False)


def start():
    shapes = [(B, N, W), (B, N), (B, N), (B, N, N), (B, N), (B, R, N)]
    return MemoryState(*[torch.zeros(shape, dtype=torch.float64) for shape in shapes])


def interfaces(steps):
    generator = torch.Generator().manual_seed(0)
    width = interface_size(W, R)
    return torch.randn(steps, B, width, dtype=torch.float64, generator=generator).requires_grad_()


def roll_out(vectors, options, between=lambda state: state):
    """Words and state after these interface vectors; `between` may change the state before each step."""
    state = start()
    for vector in vectors:
        words, state = access(split_interface(vector, W, R), between(state), options)
    return words, state


def gradient(vectors, *arguments):
    words, state = roll_out(vectors, *arguments)
    leaves = pytree.tree_leaves((words, state))
    return torch.autograd.grad(torch.stack([leaf.square().sum() for leaf in leaves]).sum(), vectors)[0]


def cut_writes(state):
    """Write weights enter the next step through the usage alone, so this cuts exactly that path."""
    return state._replace(write_weights=state.write_weights.detach())


def test_values_are_the_same_without_the_usage_gradient():
    vectors = interfaces(5)
    (words, state), (paper_words, paper_state) = roll_out(vectors, STOPPED), roll_out(vectors, PAPER)
    assert torch.equal(words, paper_words)
    for leaf, paper_leaf in zip(*map(pytree.tree_leaves, (state, paper_state)), strict=True):
        assert torch.equal(leaf, paper_leaf)


def test_without_the_usage_gradient_the_gradient_is_that_of_detached_writes():
    vectors = interfaces(5)
    stopped, detached = gradient(vectors, STOPPED), gradient(vectors, PAPER, cut_writes)
    assert torch.equal(stopped, detached)
    assert stopped.any()
    assert (gradient(vectors, PAPER) - stopped).abs().max() > 1e-3


def test_without_the_usage_gradient_frees_are_still_learned():
    vectors = interfaces(2)
    _, state = roll_out(vectors, STOPPED)
    (slope,) = torch.autograd.grad(state.usage.sum(), vectors)
    before = R * W + R + 3 * W + 1  # read keys and strengths, write key and strength, erase, write vector
    assert slope[1, :, before : before + R].abs().min() > 0


def test_write_weights_of_the_step_before_get_no_gradient_without_it():
    given = start()._replace(write_weights=torch.full((B, N), 0.2, dtype=torch.float64, requires_grad=True))
    for options, expected in ((PAPER, True), (STOPPED, False)):
        words, state = access(split_interface(interfaces(1)[0], W, R), given, options)
        total = torch.stack([leaf.sum() for leaf in pytree.tree_leaves((words, state))]).sum()
        (slope,) = torch.autograd.grad(total, given.write_weights, allow_unused=True)
        assert (slope is not None and slope.abs().min() > 0) == expected


def test_detached_links_are_the_papers_without_their_gradient(monkeypatch):
    vectors = interfaces(5)
    detached = MemoryOptions(links="detached")
    (words, state), (paper_words, paper_state) = roll_out(vectors, detached), roll_out(vectors, PAPER)
    assert torch.equal(words, paper_words)
    assert torch.equal(state.link, paper_state.link)
    assert not state.link.requires_grad

    def slope(options):
        # Of the words alone: the last links and precedence have gradients of their own.
        return torch.autograd.grad(roll_out(vectors, options)[0].square().sum(), vectors)[0]

    stopped = slope(detached)
    assert (slope(PAPER) - stopped).abs().max() > 1e-4
    monkeypatch.setattr(access_module, "link", lambda *arguments: link(*arguments).detach())
    assert_close(stopped, slope(PAPER))


def test_without_links_a_memory_is_the_papers_with_all_its_heads_on_content():
    options = MemoryOptions(links="none")
    vectors = interfaces(6)
    state, papers = start()._replace(precedence=(), link=()), start()
    content = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64).expand(B, R, 3)
    for vector in vectors:
        interface = split_interface(vector[:, : interface_size(W, R, options)], W, R, options)
        words, state = access(interface, state, options)
        expected, papers = access(interface._replace(read_modes=content), papers)
        assert interface.read_modes == state.link == state.precedence == ()
        assert torch.equal(words, expected)
        for name in ("memory", "usage", "write_weights", "read_weights"):
            assert torch.equal(getattr(state, name), getattr(papers, name))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"usage_gradient": 1}, TypeError, "usage_gradient must be of type bool, got int"),
        ({"skip_unwritten": "no"}, TypeError, "skip_unwritten must be of type bool, got str"),
        ({"deallocation": None}, TypeError, "deallocation must be of type bool, got NoneType"),
        ({"masking": 0}, TypeError, "masking must be of type bool, got int"),
        ({"masking": True, "mask_floor": 1.0}, ValueError, "mask_floor must be at least 0 and less than 1, got 1.0"),
        ({"masking": True, "mask_floor": "a"}, TypeError, "mask_floor must be a number, got 'a'"),
        ({"mask_floor": 0.1}, ValueError, "mask_floor belongs to masking=True, got 0.1 with masking=False"),
        ({"sharpness": 2.0}, TypeError, "sharpness must be of type bool, got float"),
        ({"sharpness": True, "links": "none"}, ValueError, "sharpness=True needs links to follow, got links='none'"),
        ({"links": "some"}, ValueError, "links must be one of 'full', 'detached', 'none', got 'some'"),
    ],
)
def test_options_are_refused(options, error, words):
    with pytest.raises(error, match=re.escape(words)):
        MemoryOptions(**options)


def test_options_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        PAPER.usage_gradient = False  # type: ignore[misc]


def test_paper_is_the_default():
    assert PAPER.usage_gradient is True
    vectors = interfaces(3)
    by_default = start()
    for vector in vectors:
        words, by_default = access(split_interface(vector, W, R), by_default)
    assert_close(words, roll_out(vectors, PAPER)[0])
    ours, papers = [torch.autograd.grad(result.sum(), vectors)[0] for result in (words, roll_out(vectors, PAPER)[0])]
    assert_close(ours, papers)
