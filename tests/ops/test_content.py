"""Content-based addressing, worked by hand."""

import math

import torch

from tests.conftest import assert_close
from tests.ops.inputs import double
from tests.ops.test_against_oracle import by_dtype
from torchdnc.ops import content_weights

# |v|² = 25 of each word below, and ε = 1e-6 comes on top.
COSINE = 25 / (25 + 1e-6)


def test_words_are_weighted_by_the_exponential_of_their_cosine():
    memory = double([[3.0, 4.0], [0.0, 0.0], [-3.0, -4.0], [4.0, -3.0]])
    powers = [math.exp(2 * COSINE), 1.0, math.exp(-2 * COSINE), 1.0]
    expected = [power / sum(powers) for power in powers]
    assert_close(content_weights(memory, double([3.0, 4.0]), double(2.0)), expected)


def test_each_head_has_its_key_and_its_strength():
    memory = double([[3.0, 4.0], [4.0, -3.0]])
    found = content_weights(memory, double([[3.0, 4.0], [4.0, -3.0]]), double([1.0, 3.0]))
    share = [1 / (1 + math.exp(-COSINE)), 1 / (1 + math.exp(-3 * COSINE))]
    assert_close(found, [[share[0], 1 - share[0]], [1 - share[1], share[1]]])


def test_masked_parts_are_not_compared():
    # Of three words that begin alike, a mask of the beginning finds all, and one of the whole word finds the first.
    memory = double([[1.0, 0.0, 2.0], [1.0, 0.0, -2.0], [1.0, 0.0, 0.0], [0.0, 1.0, 2.0]])
    key, masks = memory[0].expand(2, 3), double([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
    beginning, whole = content_weights(memory, key, double([1e3, 1e3]), (), masks)
    assert_close(beginning, [1 / 3, 1 / 3, 1 / 3, 0])
    assert_close(whole, [1, 0, 0, 0])


@by_dtype
def test_a_mask_of_ones_is_none(dtype):
    memory, keys = torch.randn(2, 7, 5, dtype=dtype), torch.randn(2, 3, 5, dtype=dtype)
    strengths = 1 + 9 * torch.rand(2, 3, dtype=dtype)
    found = content_weights(memory, keys, strengths)
    assert_close(content_weights(memory, keys, strengths, (), torch.ones_like(keys)), found)
    masks = torch.rand_like(keys)
    masked = [content_weights(memory * masks[:, [r]], keys[:, r] * masks[:, r], strengths[:, r]) for r in range(3)]
    assert_close(content_weights(memory, keys, strengths, (), masks), torch.stack(masked, 1))


def test_a_mask_of_zeros_finds_every_slot_alike():
    memory, key = double([[3.0, 4.0], [0.0, 0.0], [1.0, 0.0]]), double([3.0, 4.0])
    assert_close(content_weights(memory, key, double(1e4), (), double([0.0, 0.0])), [1 / 3] * 3)


def test_an_empty_key_finds_every_slot_alike():
    memory = double([[3.0, 4.0], [0.0, 0.0], [1.0, 0.0]])
    assert_close(content_weights(memory, double([0.0, 0.0]), double(1e4)), [1 / 3] * 3)


def test_an_empty_memory_is_found_alike_everywhere():
    found = content_weights(double([[0.0] * 2, [0.0] * 2]), double([3.0, 4.0]), double(1e4))
    assert_close(found, [0.5, 0.5])


@by_dtype
def test_a_great_strength_finds_exactly_one_slot(dtype):
    memory = torch.eye(5, dtype=dtype)
    assert torch.equal(content_weights(memory, memory, torch.full((5,), 1e4, dtype=dtype)), memory)


def test_the_gradient_at_an_empty_row_is_bounded_by_the_epsilon():
    # Two words of cosine 0 have half each: d share = β · 0.5 · 0.5 · dc, and at an empty row the cosine c
    # rises by k / (sqrt(|k|² + ε) sqrt(ε)).
    memory, key = double([[0.0, 0.0], [4.0, -3.0]]).requires_grad_(), double([3.0, 4.0])
    share = content_weights(memory, key, double(2.0))[0]
    (gradient,) = torch.autograd.grad(share, memory)
    slope = 2 * 0.25 / (math.sqrt(25 + 1e-6) * 1e-3)
    assert_close(gradient[0], [3 * slope, 4 * slope])
