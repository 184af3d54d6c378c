"""Models of other kinds, and of about as many parameters as another."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from torchdnc.checks import check_size
from torchdnc.tasks import Spec
from torchdnc.training.folder import CONFIG, read_config
from torchdnc.training.models import MODELS, Model
from torchdnc.training.recipes import find_recipe, load_recipe

TOLERANCE = 0.02
"""Models whose numbers of parameters differ by at most this share are about equal."""


def of_kind(model: Model, kind: str) -> Model:
    """A model of this kind, with the settings that it shares with another; else with its kind's defaults."""
    names = {field.name for field in fields(model)}
    shared = {field.name: getattr(model, field.name) for field in fields(MODELS[kind]) if field.name in names}
    return MODELS[kind](**shared)


def matched(model: Model, spec: Spec, count: int) -> Model:
    """The model with the hidden size that brings its number of parameters closest to another.

    Args:
        model: any kind; its number of parameters grows with `hidden_size`.
        spec: the task's width.
        count: how many parameters to have; at least 1.
    Raises:
        ValueError: no hidden size comes within `TOLERANCE`, or a setting is bad.
    """
    check_size("match_parameters", count)
    above = 1
    while _count(model, spec, above) < count:
        above *= 2
    below = above // 2
    while above - below > 1:
        middle = (below + above) // 2
        below, above = (middle, above) if _count(model, spec, middle) < count else (below, middle)
    found = {size: _count(model, spec, size) for size in (below, above) if size}
    size = min(found, key=lambda size: abs(found[size] - count))
    if abs(found[size] - count) > TOLERANCE * count:
        told = " and ".join(f"{size} makes {number}" for size, number in found.items())
        raise ValueError(
            f"match_parameters must be a number that a hidden_size of {model.name} comes within "
            f"{100 * TOLERANCE:g}% of, got {count}: {told}"
        )
    return _sized(model, size)


def parameters_named(text: str, spec: Spec) -> int:
    """A number of parameters: written out, or that of a run's or a recipe's model for a task of this width.

    Raises:
        ValueError: it is neither a number, nor the folder of a run, nor a recipe.
    """
    if text.isdecimal():
        return int(text)
    folder = Path(text)
    config = read_config(folder)[0] if (folder / CONFIG).is_file() else load_recipe(find_recipe(text))
    return config.model.count_parameters(spec)


def _count(model: Model, spec: Spec, hidden_size: int) -> int:
    return _sized(model, hidden_size).count_parameters(spec)


def _sized(model: Model, hidden_size: int) -> Model:
    change: dict[str, Any] = {"hidden_size": hidden_size}
    return replace(model, **change)
