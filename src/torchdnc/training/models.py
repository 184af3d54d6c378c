"""Models by their settings."""

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import nn

from torchdnc.nn import DNC, LSTM, NTM, SparseDNC, SuperLSTM
from torchdnc.tasks import Spec
from torchdnc.types import PAPER, MemoryOptions


@dataclass(frozen=True)
class Model(ABC):
    """A network to train; its fields are its settings, checked when it is built."""

    name: ClassVar[str]

    @abstractmethod
    def build(self, spec: Spec) -> nn.Module:
        """The network for a task of this width, with fresh weights; raises ValueError for a bad setting."""

    def count_parameters(self, spec: Spec) -> int:
        """How many parameters the network has; raises as `build` does."""
        # Without storage: neither memory nor random numbers are spent.
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in self.build(spec).parameters())


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

    options: MemoryOptions = PAPER
    """What the memory does where papers differ."""

    interface_norm: bool = False
    """Layer normalisation of the interface vector, as in ADNC."""
    bidirectional: bool = False
    """A second LSTM reads the input from its end, as in BiADNC."""
    bypass_dropout: float = 0.0
    """While training, the share of the controller's activations that outputs do not see; 0.1 in ADNC."""
    input_gain: float = 1.0
    """Factor of the first weights for the input; 60 in the recipes of bAbI, whose inputs are one-hot."""

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
            options=self.options,
            interface_norm=self.interface_norm,
            bidirectional=self.bidirectional,
            bypass_dropout=self.bypass_dropout,
            input_gain=self.input_gain,
        )


@dataclass(frozen=True)
class SparseDNCModel(Model):
    """The DNC with a sparse memory: with links SDNC, without them SAM."""

    name: ClassVar[str] = "sparse-dnc"

    hidden_size: int = 100
    """Units of a controller layer."""
    memory_size: int = 65536
    """Slots that there may be; they cost nothing until they are written to."""
    word_size: int = 32
    """Width of a slot."""
    read_heads: int = 4
    """Read heads."""
    sparse_reads: int = 4
    """Slots that a head reads."""
    links: bool = True
    """Links between slots, which tell in what order they were written."""
    link_width: int = 8
    """Links of a slot in each direction."""
    num_layers: int = 1
    """Controller layers."""
    controller: Literal["lstm", "feedforward"] = "lstm"
    """Kind of controller."""
    activation_gradient_clip: float | None = None
    """Largest absolute gradient at a controller activation (None: no limit)."""
    engine: Literal["auto", "reference", "fused"] = "auto"
    """How the memory is computed; every engine gives the same numbers to rounding."""
    interface_norm: bool = False
    """Layer normalisation of the interface vector, as in ADNC."""
    input_gain: float = 1.0
    """Factor of the first weights for the input; 60 in the recipes of bAbI, whose inputs are one-hot."""

    def build(self, spec: Spec) -> nn.Module:
        return SparseDNC(
            spec.input_size,
            self.hidden_size,
            spec.output_size,
            memory_size=self.memory_size,
            word_size=self.word_size,
            read_heads=self.read_heads,
            sparse_reads=self.sparse_reads,
            links=self.links,
            link_width=self.link_width,
            num_layers=self.num_layers,
            controller=self.controller,
            engine=self.engine,
            interface_norm=self.interface_norm,
            input_gain=self.input_gain,
            activation_gradient_clip=self.activation_gradient_clip,
        )


@dataclass(frozen=True)
class NTMModel(Model):
    """The Neural Turing Machine."""

    name: ClassVar[str] = "ntm"

    hidden_size: int = 100
    """Units of a controller layer."""
    memory_size: int = 128
    """Memory slots."""
    word_size: int = 20
    """Width of a slot."""
    read_heads: int = 1
    """Read heads."""
    write_heads: int = 1
    """Write heads."""
    shift_range: int = 1
    """Slots that a head can move by in a step, either way."""
    num_layers: int = 1
    """Controller layers."""
    controller: Literal["lstm", "feedforward"] = "lstm"
    """Kind of controller."""
    activation_gradient_clip: float | None = None
    """Largest absolute gradient at a controller activation (None: no limit)."""

    def build(self, spec: Spec) -> nn.Module:
        return NTM(
            spec.input_size,
            self.hidden_size,
            spec.output_size,
            memory_size=self.memory_size,
            word_size=self.word_size,
            read_heads=self.read_heads,
            write_heads=self.write_heads,
            shift_range=self.shift_range,
            num_layers=self.num_layers,
            controller=self.controller,
            activation_gradient_clip=self.activation_gradient_clip,
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
    input_gain: float = 1.0
    """Factor of the first weights for the input; 60 in the recipes of bAbI, whose inputs are one-hot."""

    def build(self, spec: Spec) -> nn.Module:
        return LSTM(
            spec.input_size,
            self.hidden_size,
            spec.output_size,
            num_layers=self.num_layers,
            activation_gradient_clip=self.activation_gradient_clip,
            input_gain=self.input_gain,
        )


@dataclass(frozen=True)
class SuperLSTMModel(Model):
    """The deep LSTM with every gate a network of its own: a baseline without a memory."""

    name: ClassVar[str] = "super-lstm"

    hidden_size: int = 256
    """Units of a layer."""
    num_layers: int = 1
    """Layers."""
    gate_layers: int = 1
    """Hidden layers of each gate's network; with none it is the LSTM."""
    gate_size: int | None = None
    """Units of each of those (None: as many as a layer has)."""
    activation_gradient_clip: float | None = None
    """Largest absolute gradient at an activation; 10 in the paper (None: no limit)."""

    def build(self, spec: Spec) -> nn.Module:
        return SuperLSTM(
            spec.input_size,
            self.hidden_size,
            spec.output_size,
            num_layers=self.num_layers,
            gate_layers=self.gate_layers,
            gate_size=self.gate_size,
            activation_gradient_clip=self.activation_gradient_clip,
        )


MODELS: dict[str, type[Model]] = {
    model.name: model for model in (DNCModel, SparseDNCModel, NTMModel, LSTMModel, SuperLSTMModel)
}


def check_room(model: Model, batch_size: int) -> None:
    """Raise ValueError if the links of so many sequences alone cannot fit into this machine's memory."""
    if not isinstance(model, DNCModel) or model.options.links == "none":
        return
    links = torch.float32.itemsize * batch_size * model.memory_size**2
    room = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if links > room:
        raise ValueError(
            f"memory_size must be small enough for this machine's {room} bytes, got {model.memory_size}: "
            f"the links take {links} bytes for {batch_size} sequences at a time"
        )
