"""The DNC with a sparse memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from torchdnc.checks import check_bound, check_choice, check_dtype, check_like, check_shape, check_size, check_type
from torchdnc.engines import check_engine
from torchdnc.engines.sparse import select_sparse
from torchdnc.engines.sparse.index import missing
from torchdnc.engines.sparse.pages import KINDS, Layout
from torchdnc.engines.sparse.states import SparseMemoryState, SparseState, empty_memory, with_batch
from torchdnc.nn.controllers import check_controller_state, check_input_gain, enlarge_inputs, make_controller
from torchdnc.nn.interface import enlarge, make_interface
from torchdnc.nn.recurrent import Call, Recurrent, linear_output
from torchdnc.ops import sparse_interface_size

MOST_SLOTS = 2**31 - 1
"""A slot's number is one of 32 bits."""
LookUp = Literal["exact", "approximate"]


class SparseDNC(Recurrent):
    """A DNC whose steps read and write a few slots of a memory that may have millions; called as a DNC is.

    Every head reads the K slots that are most similar to its key, or to which links lead from those it read before. A
    step writes into what was read before, and into the slot that was not accessed for longest, which it empties:
        w^w = α (γ w̄^r_{t−1} + (1 − γ) e),  M_t = (1 − e) M_{t−1} + w^w vᵀ.
    With `links` this is the SDNC, without them SAM. Slots exist from when they are first taken: a memory costs what was
    written to it, whatever its size, and look-ups know no other slots.

    Args:
        input_size: I, features of each input.
        hidden_size: H, units of each layer of the controller.
        output_size: outputs of a linear map (with bias) of the features; None returns the features: h of
            every layer, then the read words.
        memory_size: N, slots that there may be; when all exist, the oldest are written over. No parameter depends on
            it.
        word_size: W, numbers in a slot.
        read_heads: R.
        sparse_reads: K, slots that a head reads.
        links: which slot was written after which, without a gradient of the links.
        link_width: K_L, links of a slot in each direction.
        look_up: "exact", or "approximate": where very many slots exist, an index proposes those that are compared; it
            needs faiss, and finds most of the nearest slots, not all.
        storage: a directory, new or empty, in which the memory of `initial_state` lies. It may then be larger than RAM,
            and outlives the process: `state.flush()` writes what has changed, as a call does when that is much, and
            `stored_state` goes on with it. For inference, under `torch.no_grad()`. None: in RAM.
        num_layers: layers of the controller.
        controller: "lstm" (the paper's deep LSTM), "feedforward", or a module that keeps to
            `torchdnc.nn.controllers.Controller`, takes I + R·W inputs and emits num_layers · H features.
        batch_first: inputs and outputs are [B, T, ·] instead of [T, B, ·].
        engine: "auto", or an engine by name.
        interface_norm: the interface vector is normalised, with a gain and a bias of its own (Franke et al. 2018).
        input_gain: factor of the controller's first weights for the input x, as in `DNC`.
        activation_gradient_clip: bound on the gradient of the controller's activations; None for none.
        dtype: of the parameters, float32 or float64.
    Raises:
        ValueError, TypeError: an argument is out of range.
    Source: Rae et al. 2016.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        output_size: int | None = None,
        *,
        memory_size: int = 65536,
        word_size: int = 32,
        read_heads: int = 4,
        sparse_reads: int = 4,
        links: bool = True,
        link_width: int = 8,
        look_up: LookUp = "exact",
        storage: str | Path | None = None,
        num_layers: int = 1,
        controller: str | nn.Module = "lstm",
        batch_first: bool = False,
        engine: str = "auto",
        interface_norm: bool = False,
        input_gain: float = 1.0,
        activation_gradient_clip: float | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        sizes = {
            "input_size": input_size,
            "hidden_size": hidden_size,
            "memory_size": memory_size,
            "word_size": word_size,
            "read_heads": read_heads,
            "sparse_reads": sparse_reads,
            "link_width": link_width,
            "num_layers": num_layers,
        }
        for name, size in sizes.items():
            check_size(name, size)
        _check_look_up(look_up)
        _check_storage(storage, engine)
        self.look_up, self.storage = look_up, storage
        for name, switch in {"links": links, "batch_first": batch_first, "interface_norm": interface_norm}.items():
            check_type(name, switch, bool)
        if memory_size > MOST_SLOTS:
            raise ValueError(f"memory_size must be at most {MOST_SLOTS}, got {memory_size}")
        check_dtype("dtype", dtype)
        check_bound("activation_gradient_clip", activation_gradient_clip)
        check_input_gain(input_gain, controller)
        self.input_gain = input_gain
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.memory_size, self.word_size, self.read_heads = memory_size, word_size, read_heads
        self.sparse_reads, self.links, self.link_width = sparse_reads, links, link_width
        self.batch_first, self.engine = batch_first, check_engine(engine)

        self.controller: Any = make_controller(
            controller,
            input_size + read_heads * word_size,
            hidden_size,
            num_layers,
            activation_gradient_clip,
            dtype=dtype,
        )
        self.feature_size = hidden_size * num_layers
        self.interface_size = sparse_interface_size(word_size, read_heads, links)
        self.interface: Any = make_interface(self.feature_size, self.interface_size, interface_norm, dtype=dtype)
        self.output = linear_output(self.feature_size + read_heads * word_size, output_size, device=None, dtype=dtype)
        self._enlarge()

    def reset_parameters(self) -> None:
        """Draws every parameter anew, from the distribution it was made with."""
        super().reset_parameters()
        self._enlarge()

    def _enlarge(self) -> None:
        enlarge(self.interface)
        enlarge_inputs(self.controller, self.input_size, self.input_gain)

    def stored_state(self) -> SparseState:
        """The state that the storage holds: that of the last flush.

        Raises:
            ValueError: there is no storage, it holds no memory of this model, or another process has it open.
        """
        if self.storage is None:
            raise ValueError("storage must be a directory for a stored state, got None")
        from torchdnc.engines.sparse.saving import open_stored

        state = open_stored(self.storage)
        self._check_state(state, state.read_words.shape[:-2])
        return state

    def _zeros(self, batch_size: int) -> SparseState:
        like = self._like()
        memory = empty_memory(self._layout(batch_size), self.read_heads, self.sparse_reads)
        words = like.new_zeros(batch_size, self.read_heads, self.word_size)
        state = SparseState(self.controller.initial_state(batch_size), memory, words)
        if self.storage is None:
            return state
        from torchdnc.engines.sparse.saving import create_stored

        return create_stored(self.storage, state)

    def _layout(self, batch_size: int) -> Layout:
        return Layout(
            batch_size=batch_size,
            memory_size=self.memory_size,
            word_size=self.word_size,
            link_width=self.link_width * self.links,
            dtype=self._like().dtype,
            approximate=self.look_up == "approximate",
        )

    def _like(self) -> Tensor:
        """A parameter, whose dtype and device a state has."""
        like: Tensor = next(self.interface.parameters())
        if like.device.type != "cpu":
            raise ValueError(f"a SparseDNC must be on the CPU, where its memory lies, got parameters on {like.device}")
        if like.dtype not in KINDS:
            raise TypeError(f"a SparseDNC must be of float32 or float64, got parameters of {like.dtype}")
        return like

    def _check_state(self, state: Any, batch: tuple[int, ...]) -> None:
        check_type("state", state, SparseState)
        check_type("state.memory", state.memory, SparseMemoryState)
        R, K, like, memory = self.read_heads, self.sparse_reads, self._like(), state.memory
        layout = memory.version.layout
        wanted = self._layout(batch[0] if batch else 1)._replace(memory_size=layout.memory_size)
        if layout != wanted:
            raise ValueError(f"state.memory must have the layout {wanted}, got {layout}")
        check_shape("state.memory.content", memory.content, (*batch, layout.memory_size, self.word_size))
        for name in ("read_slots", "read_weights"):
            check_shape(f"state.memory.{name}", getattr(memory, name), (*batch, R, K))
        if self.links:
            for name in ("precedence_slots", "precedence"):
                check_shape(f"state.memory.{name}", getattr(memory, name), (*batch, self.link_width))
        check_shape("state.read_words", state.read_words, (*batch, R, self.word_size))
        check_like("state.read_words", state.read_words, like)
        check_controller_state("state.controller", state.controller, self.controller, batch)

    def _batch_state(self, state: Any, batch_size: int, batched: bool) -> Any:
        if state is not None:
            self._check_state(state, (batch_size,) if batched else ())
        # Before a directory is made for a call that is refused.
        stored = self.storage is not None if state is None else state.memory.version.is_stored
        if stored and torch.is_grad_enabled():
            raise ValueError("storage is for inference, got a call with gradients on: use torch.no_grad()")
        if state is None:
            return self._zeros(batch_size)
        return state if batched else with_batch(state)

    def _run(self, call: Call) -> tuple[Tensor, SparseState]:
        run = select_sparse(self.engine, self, call.inputs)
        features, state = run(self, call.inputs, call.state, call.lengths, call.reset)
        if state.memory.version.needs_flush:
            state.flush()
        return features, state

    def extra_repr(self) -> str:
        return (
            f"input_size={self.input_size}, memory_size={self.memory_size}, word_size={self.word_size}, "
            f"read_heads={self.read_heads}, sparse_reads={self.sparse_reads}, links={self.links}, "
            f"engine={self.engine!r}"
        )


def _check_look_up(look_up: Any) -> None:
    check_choice("look_up", look_up, get_args(LookUp))
    if look_up == "approximate" and (reason := missing()):
        raise ValueError(f'look_up must be "exact" here: {reason}')


def _check_storage(storage: Any, engine: str) -> None:
    if storage is None:
        return
    if not isinstance(storage, str | Path):
        raise TypeError(f"storage must be None or a directory, got {type(storage).__name__}")
    if engine == "reference":
        raise ValueError('storage needs engine="fused" or "auto", got "reference"')
