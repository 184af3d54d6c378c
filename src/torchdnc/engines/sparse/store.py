"""A sparse memory in the files of a directory, which are at every moment as the last flush left them.

Calls change private copies of the pages that they come to, which the files do not see. A flush writes what has changed
to one file, whose renaming is the moment that it counts, and then into the tables; whoever finds that file, because the
process was killed in between, writes it into them once more.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import sys
import weakref
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from torchdnc.engines.sparse.pages import KINDS, Array, Layout

FORMAT: Final = "torchdnc sparse memory 1"
FLUSH_AT: Final = 16384
"""Slots that may have changed since the last flush before a call flushes by itself."""
# Most of a mapped file is never changed: room for all of it is not to be set aside. Not every Python names the flag.
NORESERVE: Final[int] = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)
NUMBERS: Final = ("batch_size", "memory_size", "word_size", "link_width")
LAYOUT, STATE, PENDING = "memory.json", "state.safetensors", "flush.safetensors"


class StoreError(ValueError):
    """A directory or a file does not hold what it should."""


class Store:
    """The directory; no other process may open it meanwhile."""

    def __init__(self, folder: Path, layout: Layout) -> None:
        self.folder, self.layout = folder, layout
        self._changed: list[list[Array]] = [[] for _ in range(layout.batch_size)]
        lock = os.open(folder / LAYOUT, os.O_RDONLY)
        weakref.finalize(self, os.close, lock)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(f"storage {folder} is open in another process, or in another state of this one") from None

    @classmethod
    def create(cls, folder: Path, layout: Layout, state: dict[str, Tensor]) -> Store:
        """An empty memory in a new directory, or in an empty one, and the rest of a state."""
        folder.mkdir(parents=True, exist_ok=True)
        # What was not finished lacks the layout, which is written last.
        unfinished = {f"{name}.bin" for name in layout.widths()} | {STATE, f"{STATE}.part", f"{LAYOUT}.part"}
        if any(path.name not in unfinished for path in folder.iterdir()):
            raise StoreError(
                f"storage must be a new or an empty directory, got {folder}; `stored_state` goes on with one"
            )
        for name, (width, kind) in layout.widths().items():
            with open(folder / f"{name}.bin", "wb") as file:
                file.truncate(layout.batch_size * layout.memory_size * width * np.dtype(kind).itemsize)
        _write(folder / STATE, save(state, {"format": FORMAT}))
        described = layout._asdict() | {"dtype": _name(layout.dtype)}
        _write(folder / LAYOUT, json.dumps({"format": FORMAT} | described).encode())
        return cls(folder, layout)

    @classmethod
    def open(cls, folder: Path) -> Store:
        """The memory of a directory, after what a killed process had begun to write is written."""
        described = _described(folder / LAYOUT)
        layout = Layout(**described | {"dtype": getattr(torch, described["dtype"])})
        for name, (width, kind) in layout.widths().items():
            size = layout.batch_size * layout.memory_size * width * np.dtype(kind).itemsize
            path = folder / f"{name}.bin"
            if not path.is_file() or path.stat().st_size != size:
                raise StoreError(
                    f"{path} must have {size} bytes, got {path.stat().st_size if path.exists() else 'none'}"
                )
        store = cls(folder, layout)
        if (folder / PENDING).exists():
            store._apply(read_tensors(folder / PENDING))
        return store

    def state(self) -> dict[str, Tensor]:
        """The rest of the state, as of the last flush."""
        return read_tensors(self.folder / STATE)

    def tables(self) -> dict[str, Array]:
        """All rows, as of the last flush; what is changed in them stays in this process."""
        flags = mmap.MAP_PRIVATE | NORESERVE
        tables = self.layout.tables(0)
        for name, (width, kind) in self.layout.widths().items():
            # A file of no bytes cannot be mapped.
            if width and self.layout.batch_size:
                with open(self.folder / f"{name}.bin", "rb") as file:
                    pages = mmap.mmap(file.fileno(), 0, flags, mmap.PROT_READ | mmap.PROT_WRITE)
                tables[name] = np.frombuffer(pages, kind).reshape(self.layout.batch_size, -1)
        return tables

    def note(self, slots: Array, held: Array) -> None:
        """These slots of each row of the batch may have changed."""
        for b, count in enumerate(held):
            self._changed[b].append(slots[b, :count].copy())

    @property
    def needs_flush(self) -> bool:
        """Whether many slots may have changed since the last one; some are counted twice."""
        return sum(len(slots) for row in self._changed for slots in row) > FLUSH_AT

    def flush(self, tables: dict[str, Array], state: dict[str, Tensor]) -> None:
        """Makes what the tables hold now, and the rest of the state, what a killed process leaves behind."""
        pending = dict(state)
        for b, noted in enumerate(self._changed):
            slots = np.unique(np.concatenate([np.empty(0, np.int32), *noted]))
            pending[f"slots.{b}"] = torch.from_numpy(slots)
            for name, (width, _) in self.layout.widths().items():
                rows = tables[name][b].reshape(self.layout.memory_size, width)[slots]
                pending[f"rows.{b}.{name}"] = torch.from_numpy(np.ascontiguousarray(rows))
        _write(self.folder / PENDING, save(pending, {"format": FORMAT}))
        self._apply(pending)
        self._changed = [[] for _ in self._changed]

    def _apply(self, pending: dict[str, Tensor]) -> None:
        layout = self.layout
        for name, (width, kind) in layout.widths().items():
            if not width:
                continue
            shape = layout.batch_size, layout.memory_size, width
            table = np.memmap(self.folder / f"{name}.bin", kind, "r+", shape=shape)
            for b in range(layout.batch_size):
                table[b, pending[f"slots.{b}"].numpy()] = pending[f"rows.{b}.{name}"].numpy()
            table.flush()
        state = {name: tensor for name, tensor in pending.items() if not name.startswith(("slots.", "rows."))}
        _write(self.folder / STATE, save(state, {"format": FORMAT}))
        (self.folder / PENDING).unlink()


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file that this module, or `save_state`, wrote."""
    try:
        with safe_open(path, "pt") as file:
            if (file.metadata() or {}).get("format") != FORMAT:
                raise StoreError(f"{path} was not written by a sparse memory's state")
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise StoreError(f"{path} does not exist") from None
    except (SafetensorError, OSError) as error:
        raise StoreError(f"{path} is torn, or no file of tensors: {error}") from None


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Writes them all or, if it fails, leaves what was there."""
    _write(path, save({name: tensor.contiguous() for name, tensor in tensors.items()}, {"format": FORMAT}))


def _described(path: Path) -> dict[str, Any]:
    try:
        described: dict[str, Any] = json.loads(path.read_text())
        kind = described.pop("format")
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        kind = None
    whole = kind == FORMAT and set(described) == set(Layout._fields) and described["dtype"] in map(_name, KINDS)
    if not whole or any(type(described[name]) is not int for name in NUMBERS):
        raise StoreError(f"{path.parent} is not the storage of a sparse memory: {path.name} does not say so")
    return described


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _write(path: Path, content: bytes) -> None:
    """The whole file or none of it, on the disk when this returns."""
    part = path.with_name(f"{path.name}.part")
    with open(part, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
