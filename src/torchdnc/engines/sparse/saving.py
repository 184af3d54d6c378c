"""States of a sparse memory as files, and as what a directory holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from torchdnc.engines.sparse.pages import EXISTING, Layout, Pages, Version
from torchdnc.engines.sparse.states import SparseMemoryState, SparseState, token, with_batch
from torchdnc.engines.sparse.store import Store, StoreError, read_tensors, write_tensors
from torchdnc.types import UNUSED, LSTMState

NUMBERS = ("memory_size", "word_size", "link_width", "approximate")


def save_state(state: SparseState, path: str | Path) -> None:
    """Writes a state with all its words; see `SparseState.save`."""
    version = state.memory.version
    with version.locked():
        pages = version.read() or Pages(version.layout, 1)
        most = int(pages.existing.max(initial=0))
        rows = {
            f"rows.{name}": torch.from_numpy(table[:, : most * (table.shape[1] // pages.rows)].copy())
            for name, table in pages.tables.items()
        }
        sizes = torch.tensor([int(getattr(version.layout, name)) for name in NUMBERS])
        write_tensors(Path(path), _small(state, pages) | rows | {"sizes": sizes})


def load_state(path: str | Path) -> SparseState:
    """Reads a state that was saved; see `SparseState.load`."""
    tensors = read_tensors(Path(path))
    try:
        sizes = dict(zip(NUMBERS, tensors.pop("sizes").tolist(), strict=True))
        words = tensors["read_words"]
        sizes["approximate"] = bool(sizes["approximate"])
        layout = Layout(batch_size=len(words), dtype=words.dtype, **sizes)
        most = max([1, *tensors["counts"][:, EXISTING].tolist()])
        if most > layout.memory_size:
            raise ValueError(f"counts must be at most memory_size, {layout.memory_size}, got {most}")
        pages = Pages(layout, most)
        for name, table in pages.tables.items():
            rows = tensors.pop(f"rows.{name}").numpy()
            if rows.dtype != table.dtype or rows.shape not in (table.shape, (len(words), 0)):
                raise ValueError(f"rows.{name} must be {table.dtype} of shape {table.shape}")
            table[:, : rows.shape[1]] = rows
        return _state(tensors, layout, pages)
    except (KeyError, IndexError, ValueError, TypeError, RuntimeError) as error:
        raise StoreError(f"{path} does not hold a whole state of a sparse memory: {error!r}") from None


def create_stored(folder: str | Path, state: SparseState) -> SparseState:
    """A state without words, whose memory is from now on in a new directory."""
    layout = state.memory.version.layout
    store = Store.create(Path(folder).absolute(), layout, _small(state, Pages(layout, 1)))
    return _stored(store)


def open_stored(folder: str | Path) -> SparseState:
    """The state that a directory holds."""
    return _stored(Store.open(Path(folder).absolute()))


def flush_state(state: SparseState) -> None:
    """Writes a state to the directory of its memory; see `SparseState.flush`."""
    version = state.memory.version
    with version.locked():
        pages = version.read()
        if pages is None or pages.store is None:
            raise ValueError("flush needs a memory with a storage, got one in RAM: `save` writes it to a file")
        pages.store.flush(pages.tables, _small(state, pages))
        # The process's own copies of what is now in the files are given back.
        pages.tables = pages.store.tables()


def _stored(store: Store) -> SparseState:
    pages = Pages(store.layout, store.layout.memory_size, store)
    try:
        return _state(store.state(), store.layout, pages)
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise StoreError(f"storage {store.folder} does not hold a whole state: {error!r}") from None


def _small(state: SparseState, pages: Pages) -> dict[str, Tensor]:
    """All of a state but the rows of its memory."""
    if not isinstance(state.controller, LSTMState) and state.controller != ():
        kind = type(state.controller).__name__
        raise TypeError(f"only states of controllers that come with torchdnc can be saved, got {kind}")
    batched = state.read_words.dim() == 3
    if not batched:
        state = with_batch(state)
    memory = state.memory
    small = {
        "batched": torch.tensor(batched),
        "read_words": state.read_words,
        "counts": torch.from_numpy(pages.counts.copy()),
    }
    small |= {"read_slots": memory.read_slots, "read_weights": memory.read_weights}
    if isinstance(memory.precedence, Tensor) and isinstance(memory.precedence_slots, Tensor):
        small |= {"precedence": memory.precedence, "precedence_slots": memory.precedence_slots}
    hidden, cells = state.controller or ((), ())
    small |= {f"hidden.{layer}": part for layer, part in enumerate(hidden)}
    small |= {f"cell.{layer}": part for layer, part in enumerate(cells)}
    return {name: tensor.detach().contiguous() for name, tensor in small.items()}


def _state(tensors: dict[str, Tensor], layout: Layout, pages: Pages) -> SparseState:
    """The opposite of `_small`, with these pages, whose counts it sets."""
    pages.counts[:] = tensors["counts"].numpy()
    # Kernels believe what they are given.
    if np.any(pages.existing < 0) or np.any(pages.existing > pages.rows):
        raise ValueError(f"counts must be from 0 to {pages.rows}")
    most = int(pages.existing.max(initial=0))
    for name in ("read_weights", "precedence") if layout.link_width else ("read_weights",):
        if tensors[name].dtype != layout.dtype:
            raise ValueError(f"{name} must be {layout.dtype}, got {tensors[name].dtype}")
    for name in ("read_slots", "precedence_slots") if layout.link_width else ("read_slots",):
        _check_slots(name, tensors[name].numpy(), most)
    if pages.store is None and layout.link_width:
        for name in ("back_slots", "ahead_slots"):
            _check_slots(name, pages.tables[name][:, : most * layout.link_width], most)
    pages.grow(0)
    pages.relink()
    layers = range(sum(name.startswith("hidden.") for name in tensors))
    hidden, cells = (tuple(tensors[f"{part}.{layer}"] for layer in layers) for part in ("hidden", "cell"))
    controller: Any = LSTMState(hidden, cells) if layers else ()
    memory = SparseMemoryState(
        content=token(layout),
        read_slots=tensors["read_slots"],
        read_weights=tensors["read_weights"],
        precedence_slots=tensors["precedence_slots"] if layout.link_width else UNUSED,
        precedence=tensors["precedence"] if layout.link_width else UNUSED,
        version=Version(layout, pages),
    )
    state = SparseState(controller, memory, tensors["read_words"])
    if tensors["batched"]:
        return state
    single: SparseState = pytree.tree_map(lambda leaf: leaf.squeeze(0), state)
    return single


def _check_slots(name: str, slots: Any, count: int) -> None:
    """Raises ValueError unless these are numbers of slots that exist, or -1."""
    if slots.dtype != np.int32 or np.any(slots < -1) or np.any(slots >= max(count, 1)):
        raise ValueError(f"{name} must be whole numbers from -1 to below {count}")
