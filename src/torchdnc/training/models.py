"""Models by their settings."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn

from torchdnc.nn import DNC, LSTM
from torchdnc.tasks import Spec


@dataclass(frozen=True)
class Model(ABC):
    """A network to train; its fields are its settings, checked when it is built."""

    name: ClassVar[str]

    @abstractmethod
    def build(self, spec: Spec) -> nn.Module:
        """The network for a task of this width, with fresh weights; raises ValueError for a bad setting."""


@dataclass(frozen=True)
class DNCModel(Model):
    """The differentiable neural computer."""

    name: ClassVar[str] = "dnc"

    hidden_size: int = 256
    """Units of a controller layer."""
    memory_size: int = 256
    """Memory slots."""
    word_size: int = 64
    """Width of a slot."""
    read_heads: int = 4
    """Read heads."""
    num_layers: int = 1
    """Controller layers."""
    controller: Literal["lstm", "feedforward"] = "lstm"
    """Kind of controller."""
    activation_gradient_clip: float | None = None
    """Largest absolute gradient at a controller activation; 10 in the paper (None: no limit)."""
    engine: Literal["auto", "reference", "fused"] = "auto"
    """How the memory is computed; every engine gives the same numbers to rounding."""

    def build(self, spec: Spec) -> nn.Module:
        return DNC(
            spec.input_size,
            self.hidden_size,
            spec.output_size,
            memory_size=self.memory_size,
            word_size=self.word_size,
            read_heads=self.read_heads,
            num_layers=self.num_layers,
            controller=self.controller,
            activation_gradient_clip=self.activation_gradient_clip,
            engine=self.engine,
        )


@dataclass(frozen=True)
class LSTMModel(Model):
    """The paper's deep LSTM without a memory: the baseline."""

    name: ClassVar[str] = "lstm"

    hidden_size: int = 256
    """Units of a layer."""
    num_layers: int = 1
    """Layers."""
    activation_gradient_clip: float | None = None
    """Largest absolute gradient at an activation; 10 in the paper (None: no limit)."""

    def build(self, spec: Spec) -> nn.Module:
        return LSTM(
            spec.input_size,
            self.hidden_size,
            spec.output_size,
            num_layers=self.num_layers,
            activation_gradient_clip=self.activation_gradient_clip,
        )


MODELS: dict[str, type[Model]] = {model.name: model for model in (DNCModel, LSTMModel)}
