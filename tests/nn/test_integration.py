"""The models among PyTorch's own tools."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import load, save
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.utils import _pytree as pytree

from tests.conftest import assert_close
from tests.nn.helpers import (
    EXACT,
    HIDDEN,
    INPUTS,
    MODELS,
    OUTPUTS,
    assert_same_state,
    enlarge,
    make_dnc,
    make_lstm,
    measure,
    random,
    reached_state,
    unbatched,
    weighted_sum,
)
from torchdnc import DNC
from torchdnc.engines import reference
from torchdnc.ops import access

STEPS, BATCH = 5, 3


@pytest.mark.parametrize("options", [{"num_layers": 2, "read_heads": 2}, {"controller": "feedforward"}], ids=str)
def test_autocast_computes_the_memory_in_float32(options, monkeypatch):
    """Products of the controller and of the output are rounded; nothing that the memory sees or keeps is."""
    model = make_dnc(dtype=torch.float32, **options)
    inputs, state = (
        random(STEPS, BATCH, INPUTS).float(),
        reached_state(make_dnc(**options), BATCH).to(torch.float32),
    )
    expected, expected_state = model(inputs, state)
    seen: set[torch.dtype] = set()
    products: set[torch.dtype] = set()

    def watched_access(interface, memory, *rest):
        assert not torch.is_autocast_enabled("cpu")
        seen.update(leaf.dtype for leaf in pytree.tree_leaves((interface, memory)))
        return access(interface, memory, *rest)

    monkeypatch.setattr(reference, "access", watched_access)
    for layer in model.controller.layers:
        layer.register_forward_hook(lambda module, arguments, product: products.add(product.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs, final = model(inputs, state)
    weighted_sum((outputs.float(), final)).backward()

    assert seen == {torch.float32}
    assert products == {torch.bfloat16} == {outputs.dtype}
    assert {leaf.dtype for leaf in pytree.tree_leaves(final)} == {torch.float32}
    # bfloat16 keeps 8 binary digits.
    assert_close(outputs.float(), expected, 0.05)
    assert_same_state(final, expected_state, 0.05)
    assert not torch.equal(outputs.float(), expected)
    for parameter in model.parameters():
        assert isinstance(parameter.grad, torch.Tensor)
        assert parameter.grad.isfinite().all()


@pytest.mark.parametrize("make", [make_dnc, make_lstm])
def test_autocast_takes_inputs_that_are_already_rounded(make):
    model = make(dtype=torch.float32)
    inputs = random(STEPS, BATCH, INPUTS).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs, final = model(inputs)
        expected, expected_state = model(inputs.float())
    assert_close(outputs.float(), expected.float(), 0)
    assert_same_state(final, expected_state, 0)


def test_per_example_gradients():
    """`vmap` of `grad` over a batch equals autograd on one example after the other."""
    model = make_dnc(num_layers=2, read_heads=2, activation_gradient_clip=0.1)
    inputs, state = random(STEPS, BATCH, INPUTS), reached_state(model, BATCH)

    def loss(parameters, inputs, state):
        return weighted_sum(functional_call(model, parameters, (inputs, state)))

    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    actual = vmap(grad(loss), in_dims=(None, 1, 0))(parameters, inputs, state)
    for row in range(BATCH):
        one = loss(dict(model.named_parameters()), inputs[:, row], unbatched(state, row))
        expected = torch.autograd.grad(one, list(model.parameters()))
        assert_close(tuple(gradient[row] for gradient in actual.values()), expected, EXACT)


def test_functional_call_uses_the_given_parameters():
    model, other = make_dnc(), make_dnc()
    enlarge(other)
    inputs = random(STEPS, BATCH, INPUTS)
    outputs, final = functional_call(model, dict(other.named_parameters()), (inputs,))
    expected, expected_state = other(inputs)
    assert_close(outputs, expected, 0)
    assert_same_state(final, expected_state, 0)
    assert not torch.allclose(outputs, model(inputs)[0])


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_a_copy_is_equal_and_independent(make):
    model = make()
    inputs = random(STEPS, BATCH, INPUTS)
    expected, state = model(inputs)
    twin = copy.deepcopy(model)
    assert_close(twin(inputs)[0], expected, 0)
    enlarge(twin)
    assert_close(model(inputs)[0], expected, 0)
    assert not torch.allclose(twin(inputs)[0], expected)
    assert_same_state(copy.deepcopy(state.detach()), state, 0)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_a_model_made_without_storage_is_filled_later(make):
    """Nothing is allocated on the meta device; `reset_parameters` draws what it draws for any other model."""

    def drawn(model):
        torch.manual_seed(7)
        model.reset_parameters()
        return model

    with torch.device("meta"):
        model = make()
    assert all(parameter.is_meta for parameter in model.parameters())
    model.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(float("nan"))
    for actual, expected in zip(drawn(model).parameters(), drawn(make()).parameters(), strict=True):
        assert_close(actual, expected, 0)


def test_reset_parameters_draws_as_building_does():
    torch.manual_seed(7)
    built = DNC(INPUTS, HIDDEN, OUTPUTS, num_layers=2)
    again = DNC(INPUTS, HIDDEN, OUTPUTS, num_layers=2)
    torch.manual_seed(7)
    again.reset_parameters()
    for actual, expected in zip(again.parameters(), built.parameters(), strict=True):
        assert_close(actual, expected, 0)


def test_shapes_can_be_inferred_on_the_meta_device():
    model = make_dnc(device="meta")
    outputs, final = model(random(STEPS, BATCH, INPUTS).to("meta"))
    expected, expected_state = make_dnc()(random(STEPS, BATCH, INPUTS))
    assert outputs.shape == expected.shape
    for leaf, other in zip(pytree.tree_leaves(final), pytree.tree_leaves(expected_state), strict=True):
        assert leaf.is_meta
        assert leaf.shape == other.shape


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_gradients_are_clipped_by_their_norm(make):
    model = make()
    outputs, _ = model(random(STEPS, BATCH, INPUTS))
    (100 * weighted_sum(outputs)).backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    norm = sum(gradient.square().sum() for gradient in gradients) ** 0.5
    assert norm > 1
    assert_close(nn.utils.clip_grad_norm_(model.parameters(), 1.0, error_if_nonfinite=True), norm, EXACT)
    expected = tuple(gradient / norm for gradient in gradients)
    # PyTorch adds 1e-6 to the norm that it divides by.
    assert_close(tuple(parameter.grad for parameter in model.parameters()), expected, 1e-6)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_parameters_survive_a_file(make):
    """Through safetensors, which unpickles nothing."""
    model, other = make(), make()
    enlarge(other)
    other.load_state_dict(load(save(model.state_dict())), strict=True)
    inputs = random(STEPS, BATCH, INPUTS)
    assert_close(other(inputs)[0], model(inputs)[0], 0)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_training_and_evaluation_compute_the_same(make):
    model = make()
    inputs = random(STEPS, BATCH, INPUTS)
    assert model.training
    expected, _ = model(inputs)
    with torch.inference_mode():
        assert_close(model.eval()(inputs)[0], expected, 0)


@pytest.mark.parametrize("make", [make_dnc, make_lstm])
def test_frozen_parameters_get_no_gradient(make):
    model = make()
    inputs, state = random(STEPS, BATCH, INPUTS), reached_state(model, BATCH)
    expected = measure(model, model, inputs, state)
    frozen = next(iter(model.parameters())).requires_grad_(False)
    weighted_sum(model(inputs, state)).backward()
    assert frozen.grad is None
    for name, parameter in list(model.named_parameters())[1:]:
        assert_close(parameter.grad, expected[f"gradient of {name}"], EXACT)


ROUNDING = [(torch.float32, 1e-5), (torch.bfloat16, 0.1), (torch.float16, 0.01)]


@pytest.mark.parametrize(("dtype", "tolerance"), ROUNDING)
@pytest.mark.parametrize("make", [make_dnc, make_lstm])
def test_parameters_of_other_dtypes(make, dtype, tolerance):
    model, exact = make(dtype=dtype), make()
    exact.load_state_dict({name: value.double() for name, value in model.state_dict().items()})
    inputs = random(STEPS, BATCH, INPUTS).to(dtype)
    outputs, final = model(inputs)
    weighted_sum(outputs).backward()
    assert {leaf.dtype for leaf in pytree.tree_leaves((outputs, final))} == {dtype}
    # Only the outputs: rounding decides which of two slots of nearly the same usage is written.
    assert_close(outputs.double(), exact(inputs.double())[0], tolerance)
    for parameter in model.parameters():
        assert isinstance(parameter.grad, torch.Tensor)
        assert parameter.grad.isfinite().all()
