"""The interface vector and its squashing functions, worked by hand."""

from decimal import Decimal, getcontext

import pytest
import torch

from tests.conftest import assert_close
from tests.ops.inputs import double
from torchdnc import MemoryOptions
from torchdnc.ops import interface_size, oneplus, split_interface

getcontext().prec = 60


@pytest.mark.parametrize(("word_size", "read_heads", "size"), [(64, 4, 471), (32, 8, 395), (50, 5, 428), (1, 1, 12)])
def test_size_is_that_of_the_papers_models(word_size, read_heads, size):
    assert interface_size(word_size, read_heads) == size


def test_parts_lie_in_the_papers_order():
    # With W = 2 and R = 2 the parts are 4, 2, 2, 1, 2, 2, 2, 1, 1 and 6 numbers wide.
    vector = torch.arange(23, dtype=torch.float64) / 23
    parts = split_interface(vector, word_size=2, read_heads=2)
    v = vector.tolist()
    assert parts.read_keys.tolist() == [v[0:2], v[2:4]]
    assert_close(parts.read_strengths, oneplus(vector[4:6]))
    assert parts.write_key.tolist() == v[6:8]
    assert_close(parts.write_strength, oneplus(vector[8]))
    assert_close(parts.erase, 1 / (1 + (-vector[9:11]).exp()))
    assert parts.write_vector.tolist() == v[11:13]
    assert_close(parts.free_gates, 1 / (1 + (-vector[13:15]).exp()))
    assert_close(parts.alloc_gate, 1 / (1 + (-vector[15]).exp()))
    assert_close(parts.write_gate, 1 / (1 + (-vector[16]).exp()))
    powers = vector[17:23].exp().view(2, 3)
    assert_close(parts.read_modes, powers / powers.sum(-1, keepdim=True))


@pytest.mark.parametrize("width", [22, 24])
def test_a_vector_of_another_width_is_refused(width):
    with pytest.raises(ValueError, match=f"interface must have 23 features .* got {width}"):
        split_interface(torch.zeros(1, width), word_size=2, read_heads=2)


@pytest.mark.parametrize(("word_size", "read_heads"), [(64, 4), (3, 1)])
def test_sizes_with_options_are_those_of_their_papers(word_size, read_heads):
    W, R = word_size, read_heads
    assert interface_size(W, R, MemoryOptions(links="none")) == (3 + R) * W + 2 * R + 3
    assert interface_size(W, R, MemoryOptions(masking=True)) == interface_size(W, R) + (R + 1) * W
    assert interface_size(W, R, MemoryOptions(sharpness=True)) == interface_size(W, R) + 2 * R


def test_parts_of_options_lie_behind_the_papers():
    """With W = 2 and R = 2: the paper's 23 numbers, 4 and 2 of masks, 2 and 2 of sharpness."""
    options = MemoryOptions(masking=True, mask_floor=0.2, sharpness=True)
    vector = torch.arange(interface_size(2, 2, options), dtype=torch.float64) / 23
    parts, papers = split_interface(vector, 2, 2, options), split_interface(vector[:23], 2, 2)
    for name, part in papers._asdict().items():
        if isinstance(part, torch.Tensor):
            assert torch.equal(getattr(parts, name), part)
    gates = 1 / (1 + (-vector).exp())
    assert_close(parts.read_masks, 0.2 + 0.8 * gates[23:27].view(2, 2))
    assert_close(parts.write_mask, 0.2 + 0.8 * gates[27:29])
    assert_close(parts.forward_sharpness, oneplus(vector[29:31]))
    assert_close(parts.backward_sharpness, oneplus(vector[31:33]))


def test_oneplus_is_right_to_the_last_digits():
    # PyTorch's softplus is the identity above 20, which is wrong by 2e-9 there: 1e-10 of the value.
    points = torch.cat([torch.arange(-50, 50, 0.7, dtype=torch.float64), double([-800.0, 20.1, 40.1, 1e4])])
    for x, value in zip(points.tolist(), oneplus(points).tolist(), strict=True):
        exact = 1 + (1 + Decimal(x).exp()).ln()
        assert abs(Decimal(value) - exact) <= Decimal("1e-15") * exact


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_oneplus_is_at_least_1_and_finite(dtype):
    values = oneplus(torch.tensor([-1e4, -100.0, 0.0, 100.0, 1e4], dtype=dtype))
    assert (values >= 1).all()
    assert torch.isfinite(values).all()


def test_saturated_gates_are_exact():
    # Far out every gate is 0 or 1 to the last bit, so memory can be kept, erased and freed without a trace.
    vector = torch.full((interface_size(1, 1),), 40.0, dtype=torch.float64)
    assert all(part.item() == 1 for part in split_interface(vector, 1, 1)[6:9])
    assert all(part.item() == 0 for part in split_interface(-25 * vector, 1, 1)[6:9])
