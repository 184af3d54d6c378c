"""The tape of a call, and what else its kernels work on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from torchdnc.engines.fused.kernels.arrays import Array, Team
from torchdnc.engines.fused.kernels.sparse.arrays import Journal as NotedRows
from torchdnc.engines.fused.kernels.sparse.arrays import Rows, SparseScratch, SparseSizes, SparseTape
from torchdnc.engines.fused.kernels.sparse.layout import numbers_size, slots_size
from torchdnc.engines.fused.rooms import array, cut, empty, rooms, starts
from torchdnc.engines.fused.sequence import controller_shapes
from torchdnc.engines.sparse.index import PROPOSED, STALE
from torchdnc.engines.sparse.pages import Journal, Pages
from torchdnc.engines.sparse.states import SparseMemoryState


class Tapes(NamedTuple):
    """The tape as tensors, for autograd to save: its numbers, and the places of slots."""

    numbers: Tensor
    places: Tensor


def memory_rows(pages: Pages) -> Rows:
    """The rows as kernels know them."""
    return Rows(**pages.tables, counts=pages.counts, older=pages.older, newer=pages.newer, places=pages.places)


def noted_rows(journal: Journal) -> NotedRows:
    """The journal as kernels know it."""
    return NotedRows(slots=journal.slots, held=journal.held, **journal.tables, counts=journal.counts)


def _number_shapes(sizes: SparseSizes) -> dict[str, tuple[int, ...]]:
    """Of the tape's numbers, by name."""
    B, RK, W, links = sizes.B, sizes.R * sizes.K, sizes.W, sizes.links > 0
    places, steps, words = (sizes.T + 1, sizes.T, sizes.T) if sizes.keep else (2, 1, 0)
    return controller_shapes(sizes) | {
        "read_weights": (places, B, RK),
        "read_rows": (words, B, RK * W),
        "found_weights": (steps * links, B, RK),
        "found_rows": (words * links, B, RK * W),
        "forward": (words * links, B, RK * sizes.K),
        "backward": (words * links, B, RK * sizes.K),
    }


def _place_shapes(sizes: SparseSizes) -> dict[str, tuple[int, ...]]:
    """Of what the tape has of places of slots."""
    T, B, RK = sizes.T, sizes.B, sizes.R * sizes.K
    places, steps = (T + 1, T) if sizes.keep else (2, 1)
    return {
        "read_places": (places, B, RK),
        "found_places": (steps * (sizes.links > 0), B, RK),
        "taken": (steps, B),
    }


def room_to_keep(sizes: SparseSizes, like: Tensor) -> Tapes:
    """A tape that holds nothing yet."""
    numbers, places = [*_number_shapes(sizes).values()], [*_place_shapes(sizes).values()]
    return Tapes(empty(like, starts(numbers)[-1]), torch.empty(starts(places)[-1], dtype=torch.int32))


def tape_of(sizes: SparseSizes, tapes: Tapes, alive: Array, fresh: Array) -> SparseTape:
    """The tape."""
    numbers, places = _number_shapes(sizes), _place_shapes(sizes)
    cuts = dict(zip(numbers, cut(tapes.numbers, [*numbers.values()]), strict=True))
    cuts |= dict(zip(places, cut(tapes.places, [*places.values()]), strict=True))
    return SparseTape(**cuts, alive=alive, fresh=fresh)


def scratch_of(
    team: Team, sizes: SparseSizes, like: Tensor, memory: SparseMemoryState | None, slots: int
) -> SparseScratch:
    """Room to work in. memory: the one that forward begins with; slots: those that there is room for."""
    B, H, R, K, links = sizes.B, sizes.H, sizes.R, sizes.K, sizes.links
    approximate = memory is not None and memory.version.layout.approximate
    columns = R * sizes.W + H * sizes.recurrent + H * (sizes.layers > 1)
    chi, hidden, zeros, numbers = rooms(
        like,
        (team.threads if team.threads > B else 1, B, columns),
        (B, sizes.layers * H),
        (H,),
        (team.threads, numbers_size(R, K, links)),
    )
    zeros[:] = 0
    recent, recent_slots = np.zeros((B, 0), numbers.dtype), np.zeros((B, 0), np.int32)
    if memory is not None and isinstance(memory.precedence, Tensor) and isinstance(memory.precedence_slots, Tensor):
        recent, recent_slots = array(memory.precedence).copy(), array(memory.precedence_slots).copy()
    return SparseScratch(
        chi=chi,
        hidden=hidden,
        zeros=zeros,
        # Of zeros that nobody touches the system makes none.
        mix=np.zeros((team.threads, slots), numbers.dtype),
        numbers=numbers,
        slots=np.empty((team.threads, slots_size(R, K, links)), np.int32),
        recent=recent,
        recent_slots=recent_slots,
        none=np.full(R * K, -1, np.int32),
        proposals=np.empty((B, R, PROPOSED * approximate), np.int32),
        proposed=np.zeros(B, np.int32),
        changed=np.empty((B, STALE * approximate), np.int32),
        stale=np.zeros(B, np.int32),
        marks=np.zeros((team.threads, slots * approximate), np.int8),
    )
