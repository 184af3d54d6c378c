"""Gradients of whole sequences against finite differences, and the bound on those of the activations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck
from torch.func import functional_call
from torch.utils import _pytree as pytree

from tests.conftest import assert_close
from tests.nn.helpers import EXACT, INPUTS, make_dnc, make_lstm, random, reached_state, weighted_sum
from torchdnc import DNC
from torchdnc.nn.controllers import clip_gradient

STEPS, BATCH = 4, 2


@pytest.mark.parametrize("engine", ["reference", "auto"])
@pytest.mark.parametrize("controller", ["lstm", "feedforward"])
def test_gradients_are_those_of_finite_differences(controller, engine):
    """Inputs, parameters and every part of the initial state, of two heads and two layers."""
    torch.manual_seed(3)
    sizes: dict[str, Any] = {"memory_size": 3, "word_size": 2, "read_heads": 2, "num_layers": 2}
    model = DNC(2, 2, 1, controller=controller, engine=engine, dtype=torch.float64, **sizes)
    inputs = random(2, 1, 2, seed=5)
    with torch.no_grad():
        state = model(random(8, 1, 2))[1]
        # Allocation jumps where usages tie, so they must not.
        usage = torch.tensor([[0.2, 0.8, 0.5]], dtype=torch.float64)
        state = state._replace(memory=state.memory._replace(usage=usage))
        assert model(inputs, state)[1].memory.usage.sort().values.diff().min() > 1e-2
    names = [name for name, _ in model.named_parameters()]
    leaves, structure = pytree.tree_flatten(state)
    sources = [inputs, *model.parameters(), *leaves]

    def run(inputs, *rest):
        parameters = dict(zip(names, rest[: len(names)], strict=True))
        state = pytree.tree_unflatten(list(rest[len(names) :]), structure)
        outputs, final = functional_call(model, parameters, (inputs, state))
        return outputs, *pytree.tree_leaves(final)

    assert gradcheck(run, [source.detach().clone().requires_grad_() for source in sources])


def test_clip_gradient_is_the_identity_with_a_bounded_gradient():
    activations = random(20).requires_grad_()
    arriving = 5 * random(20, seed=2)
    clipped = clip_gradient(activations, 2.0)
    clipped.backward(arriving)
    assert_close(clipped, activations, 0)
    assert_close(activations.grad, arriving.numpy().clip(-2.0, 2.0), 0)
    assert arriving.abs().max() > 2 > arriving.abs().min()
    assert clip_gradient(activations, None) is activations


class Hooked(nn.Module):
    """A controller that clips by hand: a hook cuts the gradient of every h_t when it has been summed up."""

    def __init__(self, inner: nn.Module, bound: float) -> None:
        super().__init__()
        self.inner, self.bound = inner, bound
        self.feature_size = inner.feature_size
        self.initial_state = inner.initial_state
        self.cuts: list[bool] = []

    def cut(self, gradient: Tensor) -> Tensor:
        self.cuts += (gradient.abs() > self.bound).flatten().tolist()
        return gradient.clamp(-self.bound, self.bound)

    def forward(self, input, state):
        features, state = self.inner(input, state)
        # A feedforward controller of one layer has no state, and its features are its activations.
        for h in state.hidden if state else [features]:
            h.register_hook(self.cut)
        return features, state


@pytest.mark.parametrize("options", [{"num_layers": 2}, {"controller": "feedforward"}], ids=str)
def test_activation_gradients_are_clipped_as_by_hooks(options):
    bound = 10.0
    free = make_dnc(**options)
    clipped = make_dnc(activation_gradient_clip=bound, **options)
    hooked = Hooked(free.controller, bound)
    by_hand = make_dnc(num_layers=options.get("num_layers", 1), controller=hooked)
    for model in (clipped, by_hand):
        for own, parameter in zip(model.parameters(), free.parameters(), strict=True):
            own.data.copy_(parameter)

    def gradients(model):
        inputs = random(STEPS, BATCH, INPUTS).requires_grad_()
        outputs, _ = model(inputs)
        # So huge a loss cuts most gradients.
        return outputs, torch.autograd.grad(100 * weighted_sum(outputs), [inputs, *model.parameters()])

    outputs, actual = gradients(clipped)
    expected_outputs, expected = gradients(by_hand)
    assert_close(actual, expected, EXACT)
    assert_close(outputs, expected_outputs, EXACT)
    assert 0 < sum(hooked.cuts) < len(hooked.cuts)
    with pytest.raises(AssertionError, match="off by"):
        assert_close(actual, gradients(make_dnc(**options))[1], tolerance=1e-3)


@pytest.mark.parametrize("make", [make_dnc, make_lstm])
def test_a_bound_out_of_reach_or_none_changes_nothing(make):
    inputs = random(STEPS, BATCH, INPUTS)

    def gradients(model):
        outputs, _ = model(inputs, reached_state(model, BATCH))
        return torch.autograd.grad(weighted_sum(outputs), list(model.parameters()))

    # To rounding: an LSTM without a bound runs on PyTorch's own.
    assert_close(gradients(make(activation_gradient_clip=1e9)), gradients(make()))
    assert_close(gradients(make(activation_gradient_clip=None)), gradients(make()), 0)


def test_an_lstm_pushed_hard_receives_the_bound():
    """A loss that pushes every h far up leaves the gradient of a loss that pushes each by the bound."""
    bound, inputs = 10.0, random(BATCH, INPUTS)
    free, clipped = make_lstm(output_size=None), make_lstm(output_size=None, activation_gradient_clip=bound)
    (bound * free.step(inputs)[0].sum()).backward()
    (1e6 * clipped.step(inputs)[0].sum()).backward()
    for expected, actual in zip(free.parameters(), clipped.parameters(), strict=True):
        assert_close(actual.grad, expected.grad)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_torch_func_takes_an_lstm_apart() -> None:
    """PyTorch's own LSTM, on which plain calls run, has no rules for these."""
    model = make_lstm()
    inputs = random(STEPS, BATCH, INPUTS)
    parameters = dict(model.named_parameters())

    def outputs(parameters: Mapping[str, torch.Tensor], inputs: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = functional_call(model, dict(parameters), (inputs,))[0]
        return found

    assert_close(torch.func.vmap(outputs, (None, 0))(parameters, inputs.unsqueeze(0))[0], outputs(parameters, inputs))
    moved = torch.func.jvp(lambda inputs: outputs(parameters, inputs), (inputs,), (torch.ones_like(inputs),))[1]
    step = 1e-6
    difference = outputs(parameters, inputs + step) - outputs(parameters, inputs - step)
    assert_close(moved, difference / (2 * step), 1e-6)
