"""On a GPU every dense model gives what it gives on the CPU."""

import copy

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from tests.nn.helpers import INPUTS, MODELS, assert_same, make_dnc, named_leaves, random, reached_state, weighted_sum
from torchdnc.nn.recurrent import Recurrent

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


def measured(model: Recurrent, inputs: Tensor, state: object) -> dict[str, Tensor]:
    """Outputs, final state, and gradients of the parameters and inputs, all on the CPU."""
    inputs = inputs.clone().requires_grad_()
    outputs, final = model(inputs, state, lengths=torch.tensor([7, 4]))
    sources = dict(model.named_parameters()) | {"inputs": inputs}
    on_cpu = pytree.tree_map(lambda leaf: leaf.cpu(), (outputs, final))
    gradients = torch.autograd.grad(weighted_sum(on_cpu), list(sources.values()), materialize_grads=True)
    found = {"outputs": outputs} | named_leaves(final) | dict(zip(sources, gradients, strict=True))
    return {name: value.detach().cpu() for name, value in found.items()}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_a_gpu_gives_what_the_cpu_gives(make):
    model, inputs = make(), random(7, 2, INPUTS)
    state = reached_state(model)
    there = copy.deepcopy(model).cuda()
    moved = pytree.tree_map(lambda leaf: leaf.cuda(), state)
    assert_same(measured(there, inputs.cuda(), moved), measured(model, inputs, state))


def test_a_call_without_a_state_begins_on_the_gpu():
    outputs, state = make_dnc().cuda()(random(3, 2, INPUTS).cuda())
    assert outputs.is_cuda
    assert all(leaf.is_cuda for leaf in pytree.tree_leaves(state))


def test_the_fused_engine_says_that_it_needs_the_cpu():
    with pytest.raises(ValueError, match="it runs on the CPU only, and the input is on cuda"):
        make_dnc(engine="fused").cuda()(random(3, 2, INPUTS).cuda())
