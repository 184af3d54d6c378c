"""Bad arguments: a sentence that names them, before anything is computed."""

from __future__ import annotations

import re
from typing import cast

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from tests.nn.helpers import HIDDEN, INPUTS, WORD, OwnController, make_dnc, make_lstm
from tests.nn.helpers import make_dnc_with_own_controller as make_own
from torchdnc import DNC, LSTM, DNCState, MemoryOptions

STEPS, BATCH = 4, 2


def bad_sizes(name):
    yield {name: 0}, ValueError, f"{name} must be at least 1, got 0"
    yield {name: -1}, ValueError, f"{name} must be at least 1, got -1"
    yield {name: 1.5}, TypeError, f"{name} must be an integer, got 1.5"
    yield {name: True}, TypeError, f"{name} must be an integer, got True"


def bad_clips():
    name = "activation_gradient_clip"
    yield {name: 0}, ValueError, f"{name} must be a finite number above 0, got 0"
    yield {name: float("nan")}, ValueError, f"{name} must be a finite number above 0, got nan"
    yield {name: "10"}, TypeError, f"{name} must be a number, got '10'"
    yield {name: True}, TypeError, f"{name} must be a number, got True"


def bad_dtypes():
    yield {"dtype": torch.int64}, TypeError, "dtype must be None or a floating point dtype, got torch.int64"
    yield {"dtype": "float32"}, TypeError, "dtype must be None or a floating point dtype, got 'float32'"


def bad_controllers():
    names = "controller must be one of 'lstm', 'feedforward' or a module, got 'gru'"
    yield {"controller": "gru"}, ValueError, names
    protocol = "controller must be a name or an nn.Module with feature_size, initial_state(batch_size)"
    yield {"controller": None}, TypeError, protocol
    yield {"controller": nn.Linear(3, 3)}, TypeError, protocol
    yield {"controller": OwnController}, TypeError, protocol
    wide, own = (OwnController(INPUTS + WORD, HIDDEN + extra) for extra in (1, 0))
    yield (
        {"controller": wide},
        ValueError,
        "controller.feature_size must be hidden_size · num_layers = 5, got 6",
    )
    clip = "activation_gradient_clip must be None with one's own controller"
    yield {"controller": own, "activation_gradient_clip": 10.0}, ValueError, clip
    yield {"controller": own, "input_gain": 2.0}, ValueError, "input_gain must be 1 with one's own controller"


def bad_gains():
    yield {"input_gain": 0.0}, ValueError, "input_gain must be a finite number above 0"
    yield {"input_gain": "2"}, TypeError, "input_gain must be a number, got '2'"


def bad_engines_and_options():
    yield {"engine": "warp"}, ValueError, "engine must be one of 'auto', "
    yield {"engine": None}, ValueError, "got None"
    yield {"options": {}}, TypeError, "options must be of type MemoryOptions, got dict"


def make_without_links():
    return make_dnc(options=MemoryOptions(links="none"))


def make_skipping():
    return make_dnc(options=MemoryOptions(skip_unwritten=True))


SIZES = ["input_size", "hidden_size", "output_size", "num_layers"]
MEMORY_SIZES = ["memory_size", "word_size", "read_heads"]
BAD_OPTIONS = [*(case for name in SIZES for case in bad_sizes(name)), *bad_clips(), *bad_gains(), *bad_dtypes()]
BAD_MEMORY_OPTIONS = [
    *(case for name in MEMORY_SIZES for case in bad_sizes(name)),
    *bad_controllers(),
    *bad_engines_and_options(),
]
BAD_MODELS = [
    *((model, *case) for model in (DNC, LSTM) for case in BAD_OPTIONS),
    *((DNC, *case) for case in BAD_MEMORY_OPTIONS),
]


@pytest.mark.parametrize(("model", "options", "error", "words"), BAD_MODELS, ids=str)
def test_a_model_is_not_built(model, options, error, words):
    with pytest.raises(error, match=re.escape(words)):
        model(**{"input_size": INPUTS, "hidden_size": HIDDEN} | options)


def zeros(*shape, dtype=torch.float64):
    return torch.zeros(shape, dtype=dtype)


def bools(*shape):
    return zeros(*shape, dtype=torch.bool)


def refuse(module, arguments):
    raise AssertionError(f"{type(module).__name__} computed before the arguments were checked")


def watched(model):
    """The model, unable to compute."""
    for part in model.children():
        part.register_forward_pre_hook(refuse)
    return model


@pytest.mark.parametrize("make", [make_dnc, make_lstm, make_own])
def test_a_watched_model_notices_a_computation(make):
    with pytest.raises(AssertionError, match="computed before the arguments were checked"):
        watched(make())(zeros(STEPS, BATCH, INPUTS))


INPUT = zeros(STEPS, BATCH, INPUTS)
FLOAT32 = "torch.float64 like the parameters, got torch.float32"
BAD_INPUTS = [
    ([[1.0]], TypeError, "input must be a tensor, got list"),
    (None, TypeError, "input must be a tensor, got NoneType"),
    (zeros(4, 2, 2), ValueError, "input must have shape [any, any, 3], got [4, 2, 2]"),
    (zeros(4, 2), ValueError, "input must have shape [any, 3], got [4, 2]"),
    (zeros(3), ValueError, "input must have shape [any, 3], got [3]"),
    (zeros(1, 4, 2, 3), ValueError, "input must have shape [any, 3], got [1, 4, 2, 3]"),
    (zeros(0, 2, 3), ValueError, "input must have at least one time step, got 0"),
    (INPUT.float(), TypeError, f"input must be {FLOAT32}"),
    (INPUT.long(), TypeError, "got torch.int64"),
    (INPUT.to("meta"), ValueError, "input must be on cpu like the parameters, got meta"),
    (pack_sequence([zeros(4, 2)]), ValueError, "input.data must have shape [any, 3], got [4, 2]"),
    (pack_sequence([zeros(3)]), ValueError, "input.data must have shape [any, 3], got [3]"),
]
BAD_STEP_INPUTS = [
    ("x", TypeError, "step_input must be a tensor, got str"),
    (zeros(4, 2, 3), ValueError, "step_input must have shape [3], got [4, 2, 3]"),
    (zeros(2, 2), ValueError, "step_input must have shape [any, 3], got [2, 2]"),
    (zeros(2), ValueError, "step_input must have shape [3], got [2]"),
]


@pytest.mark.parametrize("make", [make_dnc, make_lstm])
@pytest.mark.parametrize(("input", "error", "words"), BAD_INPUTS, ids=str)
def test_an_input_is_refused(make, input, error, words):
    with pytest.raises(error, match=re.escape(words)):
        watched(make())(input)


@pytest.mark.parametrize("make", [make_dnc, make_lstm])
@pytest.mark.parametrize(("step_input", "error", "words"), BAD_STEP_INPUTS, ids=str)
def test_a_step_input_is_refused(make, step_input, error, words):
    with pytest.raises(error, match=re.escape(words)):
        watched(make()).step(step_input)


STATE, LSTM_STATE = make_dnc().initial_state(BATCH), make_lstm().initial_state(BATCH)


def with_memory(**changes):
    return STATE._replace(memory=STATE.memory._replace(**changes))


def with_controller(controller):
    return STATE._replace(controller=controller)


OF_DNC, OF_LSTM = "state must be of type DNCState", "state must be of type LSTMState"
MEMORY = "state.memory.memory must have shape"
OWN = "state.controller must be built like the controller's initial_state (dict), got LSTMState"
TWO_LAYERS = make_lstm(num_layers=2).initial_state(BATCH)
BAD_STATES = [
    (make_dnc, (zeros(2, 5), zeros(2, 5)), TypeError, f"{OF_DNC}, got tuple"),
    (make_dnc, LSTM_STATE, TypeError, f"{OF_DNC}, got LSTMState"),
    (make_dnc, 3, TypeError, f"{OF_DNC}, got int"),
    (make_dnc, STATE[:1], ValueError, f"{MEMORY} [2, any, 4], got [1, 6, 4]"),
    (make_dnc, make_dnc().initial_state(), ValueError, f"{MEMORY} [2, any, 4], got [6, 4]"),
    (make_without_links, STATE, ValueError, "state.memory.precedence must be () with this model's options"),
    (make_skipping, STATE, TypeError, "state.memory.written must be a tensor, got tuple"),
    (make_dnc, STATE._replace(memory=3), TypeError, "state.memory must be of type MemoryState, got int"),
    (make_dnc, with_memory(usage=zeros(2, 5)), ValueError, "state.memory.usage must have shape [2, 6]"),
    (make_dnc, with_memory(link=zeros(2, 6, 5)), ValueError, "state.memory.link must have shape [2, 6, 6]"),
    (
        make_dnc,
        with_memory(read_weights=zeros(2, 2, 6)),
        ValueError,
        "read_weights must have shape [2, 1, 6]",
    ),
    (
        make_dnc,
        with_memory(precedence=None),
        TypeError,
        "state.memory.precedence must be a tensor, got NoneType",
    ),
    (
        make_dnc,
        STATE._replace(read_words=zeros(2, 1, 3)),
        ValueError,
        "state.read_words must have shape [2, 1, 4]",
    ),
    (make_dnc, STATE.to(torch.float32), TypeError, f"state.memory.memory must be {FLOAT32}"),
    (make_dnc, STATE.to("meta"), ValueError, "state.memory.memory must be on cpu like the parameters, got meta"),
    (make_dnc, with_controller(()), TypeError, "state.controller must be of type LSTMState, got tuple"),
    (make_dnc, with_controller(TWO_LAYERS), ValueError, "state.controller.hidden must have 1 layers, got 2"),
    (make_own, STATE, TypeError, OWN),
    (make_own, with_controller({"gru": zeros(1, 5)}), ValueError, "state.controller must have 2 rows"),
    (
        make_own,
        with_controller({"gru": 3}),
        TypeError,
        "each leaf of state.controller must be of type Tensor",
    ),
    (make_lstm, STATE, TypeError, f"{OF_LSTM}, got DNCState"),
    (make_lstm, LSTM_STATE[:1], ValueError, "state.hidden[0] must have shape [2, 5], got [1, 5]"),
    (make_lstm, LSTM_STATE.to(torch.float32), TypeError, f"state.hidden[0] must be {FLOAT32}"),
    (
        make_lstm,
        LSTM_STATE._replace(hidden=None),
        TypeError,
        "state.hidden must be of type tuple, got NoneType",
    ),
]
BAD_SINGLE_STATES = [
    (make_dnc, "x", TypeError, f"{OF_DNC}, got str"),
    (make_dnc, STATE[:1], ValueError, f"{MEMORY} [any, 4], got [1, 6, 4]"),
    (make_lstm, LSTM_STATE, ValueError, "state.hidden[0] must have shape [5], got [2, 5]"),
]


@pytest.mark.parametrize("method", ["forward", "step"])
@pytest.mark.parametrize(("make", "state", "error", "words"), BAD_STATES)
def test_a_state_is_refused(make, state, error, words, method):
    model = watched(make())
    with pytest.raises(error, match=re.escape(words)):
        getattr(model, method)(INPUT if method == "forward" else INPUT[0], state)


@pytest.mark.parametrize("method", ["forward", "step"])
@pytest.mark.parametrize(("make", "state", "error", "words"), BAD_SINGLE_STATES)
def test_a_state_of_a_single_sequence_is_refused(make, state, error, words, method):
    model = watched(make())
    with pytest.raises(error, match=re.escape(words)):
        getattr(model, method)(INPUT[:, 0] if method == "forward" else INPUT[0, 0], state)


BAD_KEYWORDS = [
    ({"lengths": torch.tensor([4, 5])}, ValueError, "lengths must be from 0 to 4, got [4, 5]"),
    ({"lengths": [-1, 2]}, ValueError, "lengths must be from 0 to 4, got [-1, 2]"),
    ({"lengths": [1.0, 2.0]}, TypeError, "lengths must be integers, got torch.float32"),
    ({"lengths": [True, False]}, TypeError, "lengths must be integers, got torch.bool"),
    ({"lengths": [1j, 2]}, TypeError, "lengths must be integers, got torch.complex64"),
    ({"lengths": "ab"}, TypeError, "lengths must be integers, got 'ab'"),
    ({"lengths": [1, [2]]}, TypeError, "lengths must be integers, got [1, [2]]"),
    ({"lengths": [1, 2, 3]}, ValueError, "lengths must have shape [2], got [3]"),
    ({"lengths": [[1, 2]]}, ValueError, "lengths must have shape [2], got [1, 2]"),
    ({"reset": zeros(4, 2)}, TypeError, "reset must be bool, got torch.float64"),
    ({"reset": [[True]]}, TypeError, "reset must be a tensor, got list"),
    ({"reset": bools(2, 4)}, ValueError, "reset must have shape [4, 2], got [2, 4]"),
]
BAD_SINGLE_KEYWORDS = [
    ({"lengths": [1, 2]}, ValueError, "lengths must have shape [1], got [2]"),
    ({"lengths": 5}, ValueError, "lengths must be from 0 to 4, got [5]"),
    ({"reset": bools(4, 1)}, ValueError, "reset must have shape [4], got [4, 1]"),
    ({"reset": [True]}, TypeError, "reset must be a tensor, got list"),
]


@pytest.mark.parametrize("make", [make_dnc, make_lstm])
@pytest.mark.parametrize(("keywords", "error", "words"), BAD_KEYWORDS, ids=str)
def test_lengths_and_resets_are_refused(make, keywords, error, words):
    with pytest.raises(error, match=re.escape(words)):
        watched(make())(INPUT, **keywords)


@pytest.mark.parametrize(("keywords", "error", "words"), BAD_SINGLE_KEYWORDS, ids=str)
def test_length_and_reset_of_a_single_sequence_are_refused(keywords, error, words):
    with pytest.raises(error, match=re.escape(words)):
        watched(make_dnc())(INPUT[:, 0], **keywords)


def test_a_reset_is_laid_out_as_the_input_is():
    with pytest.raises(ValueError, match=re.escape("reset must have shape [2, 4], got [4, 2]")):
        watched(make_dnc(batch_first=True))(INPUT.transpose(0, 1), reset=bools(4, 2))


def test_a_packed_sequence_carries_its_own_lengths():
    with pytest.raises(ValueError, match="lengths must be None with a PackedSequence"):
        watched(make_dnc())(pack_sequence([INPUT[:, 0]]), lengths=[4])


@pytest.mark.parametrize(
    ("size", "error", "words"),
    [(-1, ValueError, "at least 0, got -1"), (0.5, TypeError, "an integer, got 0.5")],
)
def test_a_number_of_rows_is_refused(size, error, words):
    with pytest.raises(error, match=f"batch_size must be {words}"):
        make_lstm().initial_state(size)


@pytest.mark.parametrize(
    ("size", "error", "words"),
    [(0, ValueError, "at least 1, got 0"), (0.5, TypeError, "an integer, got 0.5")],
)
def test_a_number_of_slots_is_refused(size, error, words):
    with pytest.raises(error, match=f"memory_size must be {words}"):
        make_dnc().resize(STATE, size)


def test_what_is_no_state_is_not_resized():
    with pytest.raises(TypeError, match="state must be of type DNCState, got NoneType"):
        make_dnc().resize(cast(DNCState, None), 3)


def test_autocast_takes_no_double_input():
    """Autocast leaves float64 as it is, which then fits no weight."""
    with (
        torch.autocast("cpu", dtype=torch.bfloat16),
        pytest.raises(TypeError, match=r"input must be .*float32 like the parameters, got .*float64"),
    ):
        watched(make_dnc(dtype=torch.float32))(INPUT)


def test_autocast_takes_no_rounded_state():
    """The memory computes in its state's precision."""
    with (
        torch.autocast("cpu", dtype=torch.bfloat16),
        pytest.raises(TypeError, match=r"state.memory.memory must be .*float32 like the parameters, got .*bfloat16"),
    ):
        watched(make_dnc(dtype=torch.float32))(INPUT.float(), STATE.to(torch.bfloat16))
