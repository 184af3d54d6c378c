"""Configurations survive being written down, and what is wrong in one is refused in a sentence."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from tests.training.runs import TINY
from torchdnc import DNC, MemoryOptions
from torchdnc.tasks import BAbI, Copy, RepeatCopy, Spec
from torchdnc.training import (
    DNCModel,
    Goal,
    LSTMModel,
    Model,
    Optimizer,
    RunConfig,
    find_recipe,
    load_recipe,
    recipe_names,
    train,
)
from torchdnc.training.models import SparseDNCModel
from torchdnc.training.plain import to_toml

OPTIONS = MemoryOptions(usage_gradient=False, masking=True, mask_floor=0.1, links="detached")
CONFIGS = [
    replace(TINY, model=DNCModel(options=OPTIONS)),
    RunConfig(RepeatCopy(), LSTMModel(num_layers=2), goal=Goal("wrong_bits", 1e-5), max_minutes=0.5),
    RunConfig(
        BAbI(tasks=(1, 6), data_dir=Path("some where"), vocabulary=("-", 'a"b', "c\\d")),
        optimizer=Optimizer("rmsprop", 3e-5, momentum=0.5, clip_value=10.0),
    ),
]

PLAIN = {"task": {"kind": "copy"}, "model": {"kind": "dnc"}}


@pytest.mark.parametrize("config", CONFIGS, ids=["tiny", "lstm", "babi"])
def test_round_trips(config: RunConfig) -> None:
    data = config.to_dict()
    assert RunConfig.from_dict(json.loads(json.dumps(data))) == config
    assert RunConfig.from_dict(tomllib.loads(to_toml(data))) == config


def test_kinds_are_named() -> None:
    data = CONFIGS[1].to_dict()
    assert (data["task"]["kind"], data["model"]["kind"]) == ("repeat-copy", "lstm")
    assert data["goal"] == {"metric": "wrong_bits", "at_most": 1e-5}
    assert data["task"]["max_repeats"] == 10


def test_toml_of_known_data() -> None:
    data = {"a": 1, "b": None, "c": {"d": [1, 2], "e": True, "f": "x", "h": {"i": 0}}, "g": 1e-05}
    assert to_toml(data) == 'a = 1\ng = 1e-05\n\n[c]\nd = [1, 2]\ne = true\nf = "x"\n\n[c.h]\ni = 0'


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (PLAIN | {"stepz": 3}, "has no option 'stepz': its options are task, model"),
        (PLAIN | {"steps": "many"}, "steps must be a whole number, got 'many'"),
        (PLAIN | {"steps": True}, "steps must be a whole number, got True"),
        (PLAIN | {"steps": 1.5}, "steps must be a whole number, got 1.5"),
        (PLAIN | {"steps": None}, "steps must be a whole number, got None"),
        (PLAIN | {"steps": 0}, "steps must be at least 1, got 0"),
        (PLAIN | {"seed": -1}, "seed must be at least 0, got -1"),
        (PLAIN | {"threads": 0}, "threads must be at least 1, got 0"),
        (PLAIN | {"max_minutes": -2}, "max_minutes must be a finite number above 0, got -2"),
        ({"model": {"kind": "dnc"}}, "needs the option 'task'"),
        (PLAIN | {"task": {"bits": 3}}, "task needs the option 'kind', one of copy, repeat-copy"),
        (PLAIN | {"task": {"kind": "cpy"}}, "task.kind must be one of 'copy', .*, got 'cpy'"),
        (PLAIN | {"task": {"kind": "copy", "bit": 3}}, "task has no option 'bit'"),
        (PLAIN | {"task": {"kind": "copy", "bits": 0}}, "bits must be at least 1, got 0"),
        (PLAIN | {"task": {"kind": "babi", "tasks": [1, "x"]}}, "task.tasks must be a whole number, got 'x'"),
        (PLAIN | {"model": {"kind": "lstm", "memory_size": 3}}, "model has no option 'memory_size'"),
        (PLAIN | {"model": {"kind": "dnc", "controller": "gru"}}, "controller must be one of 'lstm', 'feedforw"),
        (PLAIN | {"optimizer": {"name": "sgd"}}, "optimizer.name must be one of 'rmsprop', 'adam', got 'sgd'"),
        (PLAIN | {"model": {"kind": "dnc", "options": {"linkz": 3}}}, "model.options has no option 'linkz'"),
        (PLAIN | {"model": {"kind": "dnc", "options": {"skip_unwritten": 1}}}, "skip_unwritten must be true or false"),
        (PLAIN | {"model": {"kind": "dnc", "options": {"sharpness": True, "links": "none"}}}, "needs links to follow"),
        (PLAIN | {"optimizer": 3}, "optimizer must be Optimizer, got 3"),
        (PLAIN | {"optimizer": {"name": "adam", "momentum": 0.9}}, 'momentum belongs to "rmsprop", got 0.9'),
        (PLAIN | {"optimizer": {"name": "adam", "decay": 0.9}}, 'decay belongs to "rmsprop", got 0.9'),
        (PLAIN | {"optimizer": {"clip_norm": 1.0, "clip_value": 2.0}}, "exclude each other, got 1.0 and 2.0"),
        (PLAIN | {"optimizer": {"learning_rate": 0}}, "learning_rate must be a finite number above 0, got 0"),
        (PLAIN | {"optimizer": {"decay": 1.0}}, r"optimizer.decay must be in \[0, 1\), got 1.0"),
        (PLAIN | {"goal": {"metric": "wrong_bits"}}, "goal needs the option 'at_most'"),
    ],
)
def test_refusals(data: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        RunConfig.from_dict(data)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"goal": Goal("errors", 0.1)}, "goal.metric must be one of 'wrong_bits', .*, got 'errors'"),
        ({"goal": Goal("perfect", 1.0)}, "goal.metric must be a score that is better when lower, got 'perfect'"),
        ({"model": DNCModel(memory_size=10**9)}, "got 1000000000: the links take 16000000000000000000 bytes"),
        ({"model": DNCModel(hidden_size=0)}, "hidden_size must be at least 1, got 0"),
        ({"model": DNCModel(activation_gradient_clip=-1.0)}, "activation_gradient_clip must be .*, got -1"),
    ],
)
def test_refused_before_anything_is_written(tmp_path: Path, changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        train(replace(TINY, **changes), tmp_path / "run")  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


def test_recipes_are_whole() -> None:
    papers = {"copy-demo", "copy", "repeat-copy", "associative-recall", "babi-dnc"}
    assert papers <= set(recipe_names())
    for name in recipe_names():
        config = load_recipe(find_recipe(name))
        kinds: dict[str, type[Model]] = {"babi-lstm": LSTMModel, "recall-sam": SparseDNCModel}
        assert isinstance(config.model, kinds.get(name, DNCModel))
        assert name not in papers or vars(config.model)["activation_gradient_clip"] == 10
        config.model.build(Spec(3, 2))
        assert RunConfig.from_dict(tomllib.loads(to_toml(config.to_dict()))) == config


@pytest.mark.parametrize("options", [MemoryOptions(), MemoryOptions(usage_gradient=False, skip_unwritten=True)])
def test_options_reach_the_model(options: MemoryOptions) -> None:
    model = DNCModel(4, 4, 4, 1, options=options).build(TINY.task.spec)
    assert isinstance(model, DNC)
    assert model.options == options
    assert DNCModel().options == MemoryOptions()


def test_recipe_of_the_paper() -> None:
    config = load_recipe(find_recipe("babi-dnc"))
    assert config.task == BAbI(tasks=tuple(range(1, 21)), edition="en-10k")
    assert config.model == DNCModel(256, 256, 64, 4, activation_gradient_clip=10.0)
    assert (config.optimizer.name, config.optimizer.learning_rate, config.batch_size) == ("rmsprop", 1e-4, 1)
    assert load_recipe(find_recipe("copy")).task == Copy(bits=8, min_length=1, max_length=20)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("steps = ", "own.toml is not TOML"),
        ("steps = 3", "own.toml needs the option 'task'"),
        ('[task]\nkind = "copy"\nbitz = 3', "own.toml: task has no option 'bitz'"),
    ],
)
def test_bad_recipe_file(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "own.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=sentence):
        load_recipe(find_recipe(str(path)))
