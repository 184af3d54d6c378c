"""The states of a sparse memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from torchdnc.engines.sparse.pages import KINDS, Layout, Version
from torchdnc.types import UNUSED, HeadWords, Rows, Unused

S = TypeVar("S")


@dataclass(frozen=True, eq=False)
class SparseMemoryState:
    """What a sparse memory carries from one step to the next. At the start it is empty.

    content [B, N, W] stands for the words in autograd: gradients of them are its gradients. It takes no room and holds
    no word; these are in `version`, and `snapshot` reads them.
    read_slots [B, R, K]: what the last step read, -1 for nothing, and read_weights [B, R, K]; precedence_slots and
    precedence [B, K_L]: what was written last, likewise; () without links.
    """

    content: Tensor
    read_slots: Tensor
    read_weights: Tensor
    precedence_slots: Tensor | Unused
    precedence: Tensor | Unused
    version: Version

    def detach(self) -> SparseMemoryState:
        """The same values, cut from the graph that made them."""
        return _map_leaves(self, Tensor.detach)

    def to(self, dtype: torch.dtype) -> SparseMemoryState:
        """A copy in another dtype, cut from the graph."""
        if dtype not in KINDS:
            raise ValueError(f"dtype must be torch.float32 or torch.float64, got {dtype}")
        convert = lambda leaf: leaf.detach().to(dtype) if leaf.is_floating_point() else leaf  # noqa: E731
        return self._copied(convert, self.version.copy(dtype=dtype))

    def __getitem__(self, rows: Rows) -> SparseMemoryState:
        """A copy of the chosen rows of the batch (slice, list, mask or index tensor), its words cut from the graph."""
        if self.content.dim() != 3:
            raise ValueError("rows can be taken of a state with a batch dimension, got that of a single sequence")
        chosen = torch.arange(self.version.layout.batch_size)[_rows_of(rows)]
        return self._copied(lambda leaf: leaf[chosen], self.version.copy(chosen))

    def _copied(self, change: Callable[[Tensor], Tensor], version: Version) -> SparseMemoryState:
        # What stands for the words takes no room only as long as it is what `token` makes.
        small = _map_leaves(replace(self, content=UNUSED), change)
        content = token(version.layout)
        return replace(small, content=content if self.content.dim() == 3 else content[0], version=version)


class SparseState(NamedTuple):
    """The whole state of a SparseDNC: its controller's, its memory's, and the last words read [B, R, W]."""

    controller: Any
    memory: SparseMemoryState
    read_words: HeadWords

    def detach(self) -> SparseState:
        """The same values, cut from the graph that made them."""
        return _map_leaves(self, Tensor.detach)

    def save(self, path: str | Path) -> None:
        """Writes the state, with all its words, to a file of tensors.

        Raises:
            TypeError: its controller is not one that comes with torchdnc.
        """
        from torchdnc.engines.sparse.saving import save_state

        save_state(self, path)

    @classmethod
    def load(cls, path: str | Path) -> SparseState:
        """The state that was saved there, in RAM.

        Raises:
            ValueError: the file is torn, or something else.
        """
        from torchdnc.engines.sparse.saving import load_state

        return load_state(path)

    def flush(self) -> None:
        """Writes the state to the storage of its memory: from then on, it is what a process finds there.

        A process that is killed at any moment leaves the state of the last flush behind.

        Raises:
            ValueError: the memory is in RAM.
        """
        from torchdnc.engines.sparse.saving import flush_state

        flush_state(self)

    def to(self, dtype: torch.dtype) -> SparseState:
        """A copy in another dtype, cut from the graph."""
        memory = self.memory.to(dtype)
        convert = lambda leaf: leaf.detach().to(dtype) if leaf.is_floating_point() else leaf  # noqa: E731
        return SparseState(pytree.tree_map(convert, self.controller), memory, convert(self.read_words))

    def __getitem__(self, rows: Rows) -> SparseState:  # type: ignore[override]
        """A copy of the chosen rows of the batch (slice, list, mask or index tensor); its words are cut from the graph.

        A plain integer gives that field, as in any tuple: for one row write `state[3:4]`.
        """
        if isinstance(rows, int):
            return tuple.__getitem__(self, rows)  # type: ignore[no-any-return]
        chosen = _rows_of(rows)
        controller = pytree.tree_map(lambda leaf: leaf[chosen], self.controller)
        return SparseState(controller, self.memory[rows], self.read_words[chosen])


def with_batch(state: SparseState) -> SparseState:
    """The state of a batch of one from that of a single sequence."""
    small = state._replace(memory=replace(state.memory, content=UNUSED))
    batched = _map_leaves(small, lambda leaf: leaf.unsqueeze(0))
    return batched._replace(memory=replace(batched.memory, content=_WithBatch.apply(state.memory.content)))


class _WithBatch(torch.autograd.Function):
    """`unsqueeze(0)`, whose own backward cannot be of a sparse gradient."""

    @staticmethod
    def forward(ctx: Any, content: Tensor) -> Tensor:
        return content.unsqueeze(0)

    @staticmethod
    def backward(ctx: Any, d_content: Tensor) -> Tensor:
        return d_content.select(0, 0)


def token(layout: Layout) -> Tensor:
    """What stands for the words in autograd: [B, N, W], of one number."""
    return torch.zeros((), dtype=layout.dtype).expand(layout.batch_size, layout.memory_size, layout.word_size)


def empty_memory(layout: Layout, read_heads: int, sparse_reads: int) -> SparseMemoryState:
    """A memory in which no slot exists."""
    B, links = layout.batch_size, layout.link_width
    return SparseMemoryState(
        content=token(layout),
        read_slots=torch.full((B, read_heads, sparse_reads), -1, dtype=torch.int32),
        read_weights=torch.zeros(B, read_heads, sparse_reads, dtype=layout.dtype),
        precedence_slots=torch.full((B, links), -1, dtype=torch.int32) if links else UNUSED,
        precedence=torch.zeros(B, links, dtype=layout.dtype) if links else UNUSED,
        version=Version(layout),
    )


def _map_leaves(state: S, function: Callable[[Tensor], Tensor]) -> S:
    mapped: S = pytree.tree_map(function, state)
    return mapped


def _rows_of(rows: Any) -> Any:
    """Rows as a tensor may be indexed with them."""
    if isinstance(rows, slice):
        return rows
    chosen = torch.as_tensor(rows, dtype=None if isinstance(rows, Tensor) or len(rows) else torch.long)
    if chosen.dim() != 1:
        raise ValueError(f"rows must have one dimension, got shape {list(chosen.shape)}")
    return chosen


LEAVES = ("content", "read_slots", "read_weights", "precedence_slots", "precedence")


def _flatten(state: SparseMemoryState) -> tuple[list[Any], Version]:
    return [getattr(state, name) for name in LEAVES], state.version


pytree.register_pytree_node(
    SparseMemoryState,
    _flatten,
    lambda leaves, version: SparseMemoryState(*[*leaves, version]),
    serialized_type_name="torchdnc.SparseMemoryState",
)
pytree.register_pytree_node(
    SparseState,
    lambda state: (list(state), None),
    lambda leaves, _: SparseState(*leaves),
    serialized_type_name="torchdnc.SparseState",
)
