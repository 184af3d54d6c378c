"""Models of about equally many parameters, counted by hand."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.runs import TINY, uninterrupted
from torchdnc.tasks import Spec
from torchdnc.training import MODELS, DNCModel, LSTMModel, find_recipe, load_recipe
from torchdnc.training.folder import CONFIG, read_config
from torchdnc.training.matching import matched, of_kind, parameters_named
from torchdnc.training.models import NTMModel, SuperLSTMModel
from torchdnc.types import MemoryOptions

SPEC = Spec(9, 8)


def lstm_parameters(hidden: int, layers: int, read: int = 0) -> int:
    """Of the deep LSTM alone: 4 H units a layer, each on input, reads, h of before, h of the layer below, bias."""
    width = SPEC.input_size + read + hidden + 1
    return 4 * hidden * (layers * width + (layers - 1) * hidden)


def dnc_parameters(model: DNCModel) -> int:
    features, W, R = model.num_layers * model.hidden_size, model.word_size, model.read_heads
    interface = W * R + 3 * W + 5 * R + 3
    controller = lstm_parameters(model.hidden_size, model.num_layers, W * R)
    return controller + interface * (features + 1) + SPEC.output_size * (features + W * R + 1)


@pytest.mark.parametrize("layers", [1, 3])
def test_counts(layers: int) -> None:
    lstm = LSTMModel(17, num_layers=layers)
    assert lstm.count_parameters(SPEC) == lstm_parameters(17, layers) + SPEC.output_size * (17 * layers + 1)
    dnc = DNCModel(13, memory_size=4, word_size=5, read_heads=2, num_layers=layers)
    assert dnc.count_parameters(SPEC) == dnc_parameters(dnc)


@pytest.mark.parametrize("kind", MODELS)
def test_counting_builds_the_same_network_and_draws_no_numbers(kind: str) -> None:
    model = MODELS[kind]()
    before = torch.get_rng_state()
    count = model.count_parameters(SPEC)
    assert torch.equal(torch.get_rng_state(), before)
    assert count == sum(parameter.numel() for parameter in model.build(SPEC).parameters())


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("count", [30_000, 61_234, 1_352_969])
def test_every_kind_can_be_matched_and_no_other_size_is_closer(kind: str, count: int) -> None:
    model: Any = matched(MODELS[kind](**SMALL.get(kind, {})), SPEC, count)
    sizes = range(max(1, model.hidden_size - 2), model.hidden_size + 3)
    off = {size: abs(replace(model, hidden_size=size).count_parameters(SPEC) - count) for size in sizes}
    assert min(off, key=off.__getitem__) == model.hidden_size
    assert off[model.hidden_size] <= 0.02 * count


SMALL: dict[str, dict[str, int]] = {kind: {"word_size": 6, "read_heads": 1} for kind in ("dnc", "ntm")}


def test_a_model_matches_itself() -> None:
    for model in (DNCModel(71), LSTMModel(3, num_layers=2), SuperLSTMModel(12, gate_size=5), NTMModel(1)):
        change: dict[str, Any] = {"hidden_size": 40}
        assert matched(replace(model, **change), SPEC, model.count_parameters(SPEC)) == model


def test_what_no_size_comes_near_is_refused() -> None:
    model = LSTMModel(num_layers=3)
    counts = [replace(model, hidden_size=size).count_parameters(SPEC) for size in range(1, 30)]
    for below, above in itertools.pairwise(counts):
        middle = (below + above) // 2
        if above - middle > 0.021 * middle:
            with pytest.raises(ValueError, match=rf"2% of, got {middle}: \d+ makes {below} and \d+ makes {above}$"):
                matched(model, SPEC, middle)
    with pytest.raises(ValueError, match=rf"lstm comes within 2% of, got 2: 1 makes {counts[0]}$"):
        matched(model, SPEC, 2)


def test_another_kind_keeps_what_both_have() -> None:
    dnc = DNCModel(
        30, memory_size=7, word_size=6, read_heads=3, num_layers=2, options=MemoryOptions(usage_gradient=False)
    )
    assert of_kind(dnc, "ntm") == NTMModel(30, 7, 6, 3, num_layers=2)
    assert of_kind(dnc, "super-lstm") == SuperLSTMModel(30, 2)
    assert of_kind(dnc, "dnc") == dnc


def test_numbers_by_name(tmp_path: Path) -> None:
    assert parameters_named("1234", SPEC) == 1234
    # On the width asked for, whatever the task that the recipe is for.
    recipe = load_recipe(find_recipe("ngrams")).model
    assert isinstance(recipe, DNCModel)
    assert parameters_named("ngrams", SPEC) == dnc_parameters(recipe)
    assert isinstance(TINY.model, DNCModel)
    assert parameters_named(str(uninterrupted(tmp_path / "run", steps=1)), SPEC) == dnc_parameters(TINY.model)
    with pytest.raises(ValueError, match="there is no recipe -5"):
        parameters_named("-5", SPEC)


def without(run: Path, name: str) -> None:
    data = json.loads((run / CONFIG).read_text())
    del data[name]
    (run / CONFIG).write_text(json.dumps(data))


def test_a_run_of_before_they_were_counted_can_be_read(tmp_path: Path) -> None:
    run = uninterrupted(tmp_path / "run", steps=1)
    whole = read_config(run)
    without(run, "parameters")
    assert read_config(run) == whole
    without(run, "notes")
    with pytest.raises(ValueError, match="must hold config, environment and notes"):
        read_config(run)
