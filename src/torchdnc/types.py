"""Dimension letters, tensor aliases, options and the immutable states.

Letters: B batch, T time, N memory slots, W word size, R read heads, H controller units. `*B` stands for any
leading dimensions. A plain name is the value at step t, a name ending in `_prev` the value at step t-1.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias, TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from torchdnc.checks import check_choice, check_share, check_size, check_type

if TYPE_CHECKING:
    from jaxtyping import Float
elif "jaxtyping" in sys.modules:
    Float = sys.modules["jaxtyping"].Float
else:
    # A development tool: where nobody has loaded it the shapes below are documentation.
    class Float:
        def __class_getitem__(cls, item):
            return item[0]


Scalars: TypeAlias = Float[Tensor, "*B"]
Weights: TypeAlias = Float[Tensor, "*B N"]
HeadScalars: TypeAlias = Float[Tensor, "*B R"]
HeadWeights: TypeAlias = Float[Tensor, "*B R N"]
Word: TypeAlias = Float[Tensor, "*B W"]
HeadWords: TypeAlias = Float[Tensor, "*B R W"]
Memory: TypeAlias = Float[Tensor, "*B N W"]
Link: TypeAlias = Float[Tensor, "*B N N"]
ReadModes: TypeAlias = Float[Tensor, "*B R 3"]

Unused: TypeAlias = tuple[()]

Rows: TypeAlias = slice | Sequence[int] | Sequence[bool] | Tensor

BACKWARD: Final = 0
"""Place of the backward mode in `read_modes`; the paper's order is backward, content, forward."""
CONTENT: Final = 1
"""Place of the content mode in `read_modes`."""
FORWARD: Final = 2
"""Place of the forward mode in `read_modes`."""

UNUSED: Final[Any] = ()
"""What a field of a state or of an interface holds unless an option needs it."""

MARKS: Final = ("written", "age", "pinned", "slots")
"""The fields of a memory's state that have no gradient."""

S = TypeVar("S", bound="tuple[Any, ...]")


@dataclass(frozen=True)
class MemoryOptions:
    """What the memory does where papers differ; the default is the paper (Graves et al. 2016, Methods)."""

    usage_gradient: bool = True
    """Gradients flow from the usage into the write weights of the step before; DeepMind's code stops them there."""
    skip_unwritten: bool = False
    """Content look-ups pass over slots never written to, so that a larger memory gives the same outputs."""
    links: Literal["full", "detached", "none"] = "full"
    """Links between slots: the paper's; without a gradient; or none, every head reading by content alone (ADNC)."""
    deallocation: bool = False
    """What is freed is wiped from the memory as well, so that no look-up finds it (DNC-D)."""
    masking: bool = False
    """Every content look-up says which parts of a word it compares (DNC-M)."""
    mask_floor: float = 0.0
    """The least that a look-up's mask lets through, in [0, 1)."""
    sharpness: bool = False
    """Every head says how sharply it follows links forward and backward (DNC-S)."""
    overflow: Literal["drop", "reclaim", "grow"] = "drop"
    """When the memory is full writes to fresh slots are lost (the paper), or slots not accessed for longest are
    released, or slots are added; docs/full-memory.md has what each guarantees."""
    high_watermark: float = 0.95
    """reclaim: slots are released when more than this share of them are in use, their usage above 1/2; in (0, 1)."""
    low_watermark: float | None = None
    """reclaim: and until no more than this share are, from 0 to `high_watermark` (None: that)."""
    grow_above: float = 0.5
    """grow: a row's slots are doubled when all are used more than this, from 0 up to, not including, 1."""
    max_memory_size: int | None = None
    """grow: the most slots that a row gets."""

    def __post_init__(self) -> None:
        for name in ("usage_gradient", "skip_unwritten", "deallocation", "masking", "sharpness"):
            check_type(name, getattr(self, name), bool)
        check_share("mask_floor", self.mask_floor)
        if self.mask_floor and not self.masking:
            raise ValueError(f"mask_floor belongs to masking=True, got {self.mask_floor} with masking=False")
        if self.sharpness and self.links == "none":
            raise ValueError("sharpness=True needs links to follow, got links='none'")
        check_choice("links", self.links, ("full", "detached", "none"))
        self._check_overflow()

    @property
    def least_in_use(self) -> float:
        """The share of the slots that stay in use when some are released."""
        return self.high_watermark if self.low_watermark is None else self.low_watermark

    def _check_overflow(self) -> None:
        check_choice("overflow", self.overflow, ("drop", "reclaim", "grow"))
        for name, share in {
            "high_watermark": self.high_watermark,
            "low_watermark": self.least_in_use,
            "grow_above": self.grow_above,
        }.items():
            check_share(name, share)
        if self.high_watermark == 0:
            raise ValueError(f"high_watermark must be above 0, got {self.high_watermark}")
        for name, policy in _POLICY_OF.items():
            if self.overflow != policy and getattr(self, name) != type(self).__dict__[name]:
                raise ValueError(
                    f"{name} belongs to overflow={policy!r}, got {getattr(self, name)} with overflow={self.overflow!r}"
                )
        if self.least_in_use > self.high_watermark:
            raise ValueError(
                f"low_watermark must be at most high_watermark, got {self.low_watermark} and {self.high_watermark}"
            )
        if self.overflow == "grow":
            if self.max_memory_size is None:
                raise ValueError("overflow='grow' needs max_memory_size, the most slots that a row gets; got None")
            check_size("max_memory_size", self.max_memory_size)


_POLICY_OF: Final = {
    "high_watermark": "reclaim",
    "low_watermark": "reclaim",
    "grow_above": "grow",
    "max_memory_size": "grow",
}
"""Which policy an option belongs to."""

PAPER: Final = MemoryOptions()
"""The options of the paper."""


def _map_leaves(state: S, function: Callable[[Tensor], Tensor]) -> S:
    mapped: S = pytree.tree_map(function, state)
    return mapped


def _take_rows(state: S, rows: Any) -> Any:
    if isinstance(rows, int):
        # PyTorch itself walks a named tuple by number, so an integer keeps the tuple's meaning: that field.
        return tuple.__getitem__(state, rows)
    if not isinstance(rows, slice | Tensor):
        rows = torch.as_tensor(rows, dtype=None if len(rows) else torch.long)
    if isinstance(rows, Tensor) and rows.dim() != 1:
        raise ValueError(f"rows must have one dimension, got shape {list(rows.shape)}")
    return _map_leaves(state, lambda leaf: leaf[rows if isinstance(rows, slice) else rows.to(leaf.device)])


class MemoryState(NamedTuple):
    """Everything the memory carries from one step to the next. All zeros at the start.

    memory [B, N, W]; usage [B, N] in [0, 1]; precedence [B, N], sum at most 1; link [B, N, N], where
    `link[b, i, j]` says how much slot i was written right after slot j, zero on its diagonal;
    write_weights [B, N] and read_weights [B, R, N], each weighting of sum at most 1.
    A field behind these is () unless an option needs it: written [B, N], 1 where a slot was ever written to
    and 0 elsewhere (`skip_unwritten`); age [B, N], steps since a slot was accessed, and pinned [B, N], 1 where it must
    not be released (`overflow="reclaim"`); slots [B], how many of the N a row has, which at the start are all
    (`overflow="grow"`). With `links="none"` precedence and link are () as well.
    """

    memory: Memory
    usage: Weights
    precedence: Weights
    link: Link
    write_weights: Weights
    read_weights: HeadWeights
    written: Weights = UNUSED
    age: Weights = UNUSED
    pinned: Weights = UNUSED
    slots: Scalars = UNUSED

    def detach(self) -> MemoryState:
        """The same values, cut from the graph that made them."""
        return _map_leaves(self, Tensor.detach)

    def to(self, *args: Any, **kwargs: Any) -> MemoryState:
        """`Tensor.to` of every leaf: a device, a dtype or both."""
        return _map_leaves(self, lambda leaf: leaf.to(*args, **kwargs))

    def __getitem__(self, rows: Rows) -> MemoryState:  # type: ignore[override]
        """The chosen rows of the batch (slice, list, mask or index tensor); the batch dimension stays.

        A plain integer gives that field, as in any tuple: for one row write `state[3:4]`.
        """
        return _take_rows(self, rows)  # type: ignore[no-any-return]


class LSTMState(NamedTuple):
    """Hidden and cell activations of every layer, each [B, H]."""

    hidden: tuple[Tensor, ...]
    cell: tuple[Tensor, ...]

    def detach(self) -> LSTMState:
        """The same values, cut from the graph that made them."""
        return _map_leaves(self, Tensor.detach)

    def to(self, *args: Any, **kwargs: Any) -> LSTMState:
        """`Tensor.to` of every leaf: a device, a dtype or both."""
        return _map_leaves(self, lambda leaf: leaf.to(*args, **kwargs))

    def __getitem__(self, rows: Rows) -> LSTMState:  # type: ignore[override]
        """The chosen rows of the batch (slice, list, mask or index tensor); the batch dimension stays.

        A plain integer gives that field, as in any tuple: for one row write `state[3:4]`.
        """
        return _take_rows(self, rows)  # type: ignore[no-any-return]


class DNCState(NamedTuple):
    """The whole state of a DNC: its controller's, its memory's, and the last words read [B, R, W]."""

    controller: Any
    memory: MemoryState
    read_words: HeadWords

    def detach(self) -> DNCState:
        """The same values, cut from the graph that made them."""
        return _map_leaves(self, Tensor.detach)

    def to(self, *args: Any, **kwargs: Any) -> DNCState:
        """`Tensor.to` of every leaf: a device, a dtype or both."""
        return _map_leaves(self, lambda leaf: leaf.to(*args, **kwargs))

    def __getitem__(self, rows: Rows) -> DNCState:  # type: ignore[override]
        """The chosen rows of the batch (slice, list, mask or index tensor); the batch dimension stays.

        A plain integer gives that field, as in any tuple: for one row write `state[3:4]`.
        """
        return _take_rows(self, rows)  # type: ignore[no-any-return]


class NTMState(NamedTuple):
    """The whole state of an NTM: its controller's, the memory [B, N, W], the weightings of the read heads [B, R, N] and
    of the write heads [B, heads, N], and the last words read [B, R, W]."""

    controller: Any
    memory: Memory
    read_weights: HeadWeights
    write_weights: HeadWeights
    read_words: HeadWords

    def detach(self) -> NTMState:
        """The same values, cut from the graph that made them."""
        return _map_leaves(self, Tensor.detach)

    def to(self, *args: Any, **kwargs: Any) -> NTMState:
        """`Tensor.to` of every leaf: a device, a dtype or both."""
        return _map_leaves(self, lambda leaf: leaf.to(*args, **kwargs))

    def __getitem__(self, rows: Rows) -> NTMState:  # type: ignore[override]
        """The chosen rows of the batch (slice, list, mask or index tensor); the batch dimension stays.

        A plain integer gives that field, as in any tuple: for one row write `state[3:4]`.
        """
        return _take_rows(self, rows)  # type: ignore[no-any-return]


class Interface(NamedTuple):
    """The interface vector in its parts, squashed into their ranges (Methods, "Interface parameters").

    read_keys [B, R, W]; read_strengths [B, R] in [1, inf); write_key [B, W]; write_strength [B] in [1, inf);
    erase [B, W] in [0, 1]; write_vector [B, W]; free_gates [B, R], alloc_gate [B], write_gate [B] in [0, 1];
    read_modes [B, R, 3], on the simplex: backward, content, forward; () with `links="none"`.
    Parts behind these are () unless an option needs them: read_masks [B, R, W] and write_mask [B, W] in
    [mask_floor, 1] (`masking`); forward_sharpness and backward_sharpness [B, R] in [1, inf) (`sharpness`).
    """

    read_keys: HeadWords
    read_strengths: HeadScalars
    write_key: Word
    write_strength: Scalars
    erase: Word
    write_vector: Word
    free_gates: HeadScalars
    alloc_gate: Scalars
    write_gate: Scalars
    read_modes: ReadModes
    read_masks: HeadWords = UNUSED
    write_mask: Word = UNUSED
    forward_sharpness: HeadScalars = UNUSED
    backward_sharpness: HeadScalars = UNUSED


def _register(state_type: type[Any]) -> None:
    """Registers a state with pytree by hand: a named type can also be saved inside an exported program."""
    pytree.register_pytree_node(
        state_type,
        lambda state: (list(state), None),
        lambda leaves, _: state_type(*leaves),
        serialized_type_name=f"torchdnc.{state_type.__name__}",
        flatten_with_keys_fn=lambda state: (
            [(pytree.GetAttrKey(name), value) for name, value in zip(state._fields, state, strict=True)],
            None,
        ),
    )


for _state_type in (MemoryState, LSTMState, DNCState, NTMState, Interface):
    _register(_state_type)
    # A state is plain tensors: `torch.load` may read one without unpickling anything else.
    torch.serialization.add_safe_globals([_state_type])
