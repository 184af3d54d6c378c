"""The models against the paper's equations once more in NumPy, and the LSTM against PyTorch's own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests import oracle
from tests.conftest import assert_close
from tests.nn.helpers import HIDDEN, INPUTS, SLOTS, WORD, make_dnc, make_lstm, make_super_lstm, random, reached_state
from tests.ops.inputs import OPTIONS

STEPS, BATCH = 7, 2
Array = Any


def arrays(tensors):
    return [tensor.detach().numpy() for tensor in tensors]


def affine(layer):
    return arrays([layer.weight, layer.bias])


class DeepLSTM:
    """The paper's controller, with a matrix of its own for every gate of every layer."""

    def __init__(self, controller, h, s):
        self.layers = [affine(layer) for layer in controller.layers]
        self.h, self.s = list(h), list(s)

    def __call__(self, chi: Array) -> Array:
        below = None
        for l, (weight, bias) in enumerate(self.layers):
            W_i, W_f, W_s, W_o = np.split(weight, 4)
            b_i, b_f, b_s, b_o = np.split(bias, 4)
            seen = np.concatenate([chi, self.h[l]] + ([] if below is None else [below]), axis=1)
            i = oracle.sigmoid(seen @ W_i.T + b_i)
            f = oracle.sigmoid(seen @ W_f.T + b_f)
            self.s[l] = f * self.s[l] + i * np.tanh(seen @ W_s.T + b_s)
            o = oracle.sigmoid(seen @ W_o.T + b_o)
            self.h[l] = below = o * np.tanh(self.s[l])
        return np.concatenate(self.h, axis=1)


class Feedforward:
    def __init__(self, controller, *state):
        self.layers = [affine(layer) for layer in controller.layers]

    def __call__(self, chi: Array) -> Array:
        activations: list[Array] = []
        for weight, bias in self.layers:
            activations.append(np.tanh(np.concatenate([chi, *activations[-1:]], axis=1) @ weight.T + bias))
        return np.concatenate(activations, axis=1)


def memory_of(state):
    """The memory's state by name, without the fields that no option needs."""
    return {name: leaf.numpy() for name, leaf in state.memory._asdict().items() if isinstance(leaf, torch.Tensor)}


def interface_by_hand(interface, h):
    """A linear map, and the layer norm behind it where there is one."""
    if isinstance(interface, nn.Linear):
        weight, bias = affine(interface)
        return h @ weight.T + bias
    linear, norm = interface
    raw, (gain, bias) = interface_by_hand(linear, h), affine(norm)
    mean = raw.mean(1, keepdims=True)
    return gain * (raw - mean) / np.sqrt(((raw - mean) ** 2).mean(1, keepdims=True) + 1e-5) + bias


def dnc_by_hand(model, controller, inputs, memory, r, ahead=None):
    """Outputs, memory state and read words of a sequence, from `memory` and the read words `r` before it.

    ahead: what is known of the inputs from each step on, [T, B, ·].
    """
    weight, b_y = affine(model.output)
    W_y, W_r = np.split(weight, [weight.shape[1] - r[0].size], axis=1)
    outputs = []
    for t, x in enumerate(inputs.numpy()):
        h = controller(np.concatenate([x, r.reshape(len(x), -1)], axis=1))
        if ahead is not None:
            h = np.concatenate([h, ahead[t]], axis=1)
        xi = interface_by_hand(model.interface, h)
        xi = oracle.split_interface(xi, model.word_size, model.read_heads, model.options)
        r, memory = oracle.access(xi, memory, model.options)
        outputs.append(h @ W_y.T + r.reshape(len(x), -1) @ W_r.T + b_y)
    return np.stack(outputs), memory, r


class LSTMFromTheEnd:
    """The layers of a `BackwardLSTM` as those of a deep LSTM, run over the inputs in reverse."""

    def __init__(self, backward_lstm):
        self.layers = backward_lstm.layers

    def __call__(self, inputs: Array) -> Array:
        inputs = inputs[::-1]
        found: list[Array] = []
        for lstm in self.layers:
            U, V, b, c = arrays(lstm.parameters())
            h = s = np.zeros((inputs.shape[1], lstm.hidden_size))
            outputs = []
            for x in np.concatenate([inputs, *found[-1:]], axis=2):
                i, f, candidate, o = np.split(x @ U.T + b + h @ V.T + c, 4, axis=1)
                s = oracle.sigmoid(f) * s + oracle.sigmoid(i) * np.tanh(candidate)
                h = oracle.sigmoid(o) * np.tanh(s)
                outputs.append(h)
            found.append(np.stack(outputs))
        return np.concatenate(found, axis=2)[::-1]


CONTROLLERS = {"lstm": DeepLSTM, "feedforward": Feedforward}


@pytest.mark.parametrize("engine", ["reference", "auto"])
@pytest.mark.parametrize("read_heads", [1, 3])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("controller", CONTROLLERS)
def test_dnc_is_the_papers(controller, num_layers, read_heads, engine):
    model = make_dnc(controller=controller, num_layers=num_layers, read_heads=read_heads, engine=engine)
    inputs, state = random(STEPS, BATCH, INPUTS), reached_state(model, BATCH)
    by_hand = CONTROLLERS[controller](model.controller, *map(arrays, state.controller))
    expected, memory, read_words = dnc_by_hand(model, by_hand, inputs, memory_of(state), state.read_words.numpy())
    outputs, final = model(inputs, state)
    assert_close(outputs, expected, 1e-10)
    for name, expected_leaf in memory.items():
        assert_close(getattr(final.memory, name), expected_leaf, 1e-10)
    assert_close(final.read_words, read_words, 1e-10)


def vary(norm):
    """Gain and bias begin at 1 and 0, which would hide what is done with them."""
    with torch.no_grad():
        norm.weight.copy_(random(*norm.weight.shape, seed=8))
        norm.bias.copy_(random(*norm.bias.shape, seed=9))


@pytest.mark.parametrize("engine", ["reference", "auto"])
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_interface_is_normalised_and_sees_both_directions(bidirectional, num_layers, engine):
    options: Any = {"bidirectional": bidirectional, "interface_norm": True, "engine": engine}
    model = make_dnc(num_layers=num_layers, read_heads=2, **options)
    vary(model.interface[1])
    inputs, state = random(STEPS, BATCH, INPUTS), reached_state(model, BATCH)
    by_hand = DeepLSTM(model.controller, *map(arrays, state.controller))
    ahead = LSTMFromTheEnd(model.backward_lstm)(inputs.numpy()) if bidirectional else None
    start = memory_of(state), state.read_words.numpy()
    expected, memory, read_words = dnc_by_hand(model, by_hand, inputs, *start, ahead)
    outputs, final = model(inputs, state)
    assert_close(outputs, expected, 1e-10)
    for name, leaf in memory.items():
        assert_close(getattr(final.memory, name), leaf, 1e-10)
    assert_close(final.read_words, read_words, 1e-10)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_dnc_with_an_option_is_the_oracles(options):
    if options.overflow == "grow":
        options = replace(options, max_memory_size=SLOTS)
    model = make_dnc(num_layers=2, read_heads=2, options=options)
    inputs, state = random(STEPS, BATCH, INPUTS), reached_state(model, BATCH)
    by_hand = DeepLSTM(model.controller, *map(arrays, state.controller))
    expected, memory, _ = dnc_by_hand(model, by_hand, inputs, memory_of(state), state.read_words.numpy())
    with torch.no_grad():
        outputs, final = model(inputs, state)
    assert_close(outputs, expected, 1e-10)
    assert memory.keys() == memory_of(final).keys()
    for name, leaf in memory.items():
        assert_close(getattr(final.memory, name), leaf, 1e-10)


@pytest.mark.parametrize("controller", CONTROLLERS)
def test_dnc_is_the_papers_from_the_first_step(controller):
    """Only the outputs are compared: which of two slots with tied usage is written is up to rounding."""
    model = make_dnc(controller=controller, num_layers=2)
    inputs = random(STEPS, BATCH, INPUTS)
    shapes = {"memory": (SLOTS, WORD), "usage": (SLOTS,), "precedence": (SLOTS,), "link": (SLOTS, SLOTS)}
    shapes |= {"write_weights": (SLOTS,), "read_weights": (1, SLOTS)}
    memory = {name: np.zeros((BATCH, *shape)) for name, shape in shapes.items()}
    by_hand = CONTROLLERS[controller](model.controller, *np.zeros((2, 2, BATCH, HIDDEN)))
    expected, _, _ = dnc_by_hand(model, by_hand, inputs, memory, np.zeros((BATCH, WORD)))
    assert_close(model(inputs)[0], expected, 1e-10)


@pytest.mark.parametrize("num_layers", [1, 3])
def test_lstm_is_the_papers(num_layers):
    model = make_lstm(output_size=None, num_layers=num_layers)
    inputs, state = random(STEPS, BATCH, INPUTS), reached_state(model, BATCH)
    by_hand = DeepLSTM(model.controller, *map(arrays, state))
    expected = [by_hand(x) for x in inputs.numpy()]
    outputs, final = model(inputs, state)
    assert_close(outputs, np.stack(expected), 1e-10)
    assert_close(final, (tuple(by_hand.h), tuple(by_hand.s)), 1e-10)


def test_lstm_of_one_layer_is_pytorchs():
    ours = make_lstm(output_size=None)
    theirs = nn.LSTM(INPUTS, HIDDEN, dtype=torch.float64)
    weight, bias = ours.parameters()
    weights = {
        "weight_ih_l0": weight[:, :INPUTS],
        "weight_hh_l0": weight[:, INPUTS:],
        "bias_ih_l0": bias,
        "bias_hh_l0": torch.zeros_like(bias),
    }
    theirs.load_state_dict(weights)
    inputs, state = random(STEPS, BATCH, INPUTS), reached_state(ours, BATCH)
    expected, (hidden, cell) = theirs(inputs, (torch.stack(state.hidden), torch.stack(state.cell)))
    outputs, final = ours(inputs, state)
    assert_close(outputs, expected)
    assert_close(final, ((hidden[0],), (cell[0],)))


@pytest.mark.parametrize(("num_layers", "gate_layers"), [(1, 1), (2, 3)])
def test_super_lstm_has_a_network_for_every_gate(num_layers, gate_layers):
    model: Any = make_super_lstm(output_size=None, num_layers=num_layers, gate_layers=gate_layers, gate_size=4)
    inputs, state = random(STEPS, BATCH, INPUTS), reached_state(model, BATCH)
    h, s = map(arrays, state)
    expected = []
    for x in inputs.numpy():
        for l, layer in enumerate(model.controller.layers):
            seen = np.concatenate([x, h[l], *h[l - 1 : l]], axis=1)
            i, f, candidate, o = (by_hand(gate, seen) for gate in layer.gates)
            s[l] = oracle.sigmoid(f) * s[l] + oracle.sigmoid(i) * np.tanh(candidate)
            h[l] = oracle.sigmoid(o) * np.tanh(s[l])
        expected.append(np.concatenate(h, axis=1))
    outputs, final = model(inputs, state)
    assert_close(outputs, np.stack(expected), 1e-10)
    assert_close(final, (tuple(h), tuple(s)), 1e-10)


def by_hand(network, x):
    """Linear maps with a tanh between any two."""
    first, *others = [affine(layer) for layer in network if isinstance(layer, nn.Linear)]
    x = x @ first[0].T + first[1]
    for weight, bias in others:
        x = np.tanh(x) @ weight.T + bias
    return x


def test_super_lstm_of_linear_gates_is_the_lstm():
    linear: Any = make_lstm(num_layers=2)
    gates: Any = make_super_lstm(num_layers=2, gate_layers=0)
    with torch.no_grad():
        for layer, networks in zip(linear.controller.layers, gates.controller.layers, strict=True):
            for (network,), *parts in zip(networks.gates, layer.weight.chunk(4), layer.bias.chunk(4), strict=True):
                network.weight.copy_(parts[0])
                network.bias.copy_(parts[1])
        gates.output.load_state_dict(linear.output.state_dict())
    inputs = random(STEPS, BATCH, INPUTS)
    assert_close(gates(inputs), linear(inputs))
