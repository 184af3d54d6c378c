"""Where the words of a sparse memory are: rows for slots that exist, changed in place, and how they were before.

A call changes rows that may be gigabytes, and the state that it started from must read as before. So a state is a
`Version`. The newest one is what the rows hold; an older one is a newer one and a journal of how each row was that the
call between them came to. To use an older version is to swap the journal with the rows, after which the newer is the
older one and that same journal (Baker 1978 calls it rerooting). A journal is forgotten with the version that needs it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from torchdnc.engines.sparse.index import Index
from torchdnc.ops.content import COSINE_EPSILON

if TYPE_CHECKING:
    from torchdnc.engines.sparse.store import Store

Array = np.ndarray[Any, Any]

EXISTING, OLDEST, NEWEST, CLOCK = range(4)
"""Places in `Rows.counts`: slots that exist, the oldest and the newest of them, steps so far."""
KINDS: Final = {torch.float32: np.float32, torch.float64: np.float64}
"""The dtypes that a sparse memory may have, and what NumPy calls them."""


class Layout(NamedTuple):
    """Sizes of a memory: B batch, N slots that there may be, W word size, K_L links of a slot in each direction.

    approximate: an index proposes the slots that look-ups compare.
    """

    batch_size: int
    memory_size: int
    word_size: int
    link_width: int
    dtype: torch.dtype
    approximate: bool = False

    def widths(self) -> dict[str, tuple[int, Any]]:
        """How many numbers of which kind a row has in each table."""
        number, links = KINDS[self.dtype], self.link_width
        return {
            "content": (self.word_size, number),
            "lengths": (1, number),
            "accessed": (1, np.int32),
            "back_slots": (links, np.int32),
            "back": (links, number),
            "ahead_slots": (links, np.int32),
            "ahead": (links, number),
        }

    def tables(self, rows: int, make: Callable[..., Array] = np.zeros) -> dict[str, Array]:
        """A table of so many rows for everything that a row is made of."""
        return {name: make((self.batch_size, rows * width), kind) for name, (width, kind) in self.widths().items()}


class Journal(NamedTuple):
    """How rows were: of each row of the batch `held` of them, whose numbers are `slots` [B, P]; counts [B, 4]."""

    slots: Array
    held: Array
    tables: dict[str, Array]
    counts: Array


class Pages:
    """Tables that grow as slots come to exist; see `Rows` of the kernels."""

    def __init__(self, layout: Layout, rows: int, store: Store | None = None) -> None:
        self.layout, self.rows, self.store, self.lock = layout, rows, store, threading.RLock()
        self._reached = 0
        self.index = Index(layout.batch_size, layout.word_size) if layout.approximate else None
        self.tables = store.tables() if store else layout.tables(rows)
        self.counts = np.zeros((layout.batch_size, 4), np.int32)
        self.counts[:, [OLDEST, NEWEST]] = -1
        self.older, self.newer, self.places = self._orders(rows)
        self._exchange: tuple[Version, Version, Journal, Journal] | None = None
        self._ordered = True

    @property
    def existing(self) -> Array:
        """How many slots exist, [B]."""
        return self.counts[:, EXISTING]

    def grow(self, steps: int) -> None:
        """Room for the slots that so many steps may take; growing again and again costs no more than once."""
        # Rows that no slot has now may be those of another version.
        before, reached = self._reached, max(self._reached, self._after(steps))
        if reached > self.rows:
            rows = min(self.layout.memory_size, max(reached, 2 * self.rows))
            tables, order = self.layout.tables(rows), self._orders(rows)
            for name, (width, _) in self.layout.widths().items():
                tables[name][:, : before * width] = self.tables[name][:, : before * width]
            for longer, old in zip(order, (self.older, self.newer, self.places), strict=True):
                longer[:, :before] = old[:, :before]
            # Whatever fails above leaves all as it was; tables with more rows than they are said to have do no harm.
            self.tables, (self.older, self.newer, self.places), self.rows = tables, order, rows
        self._reached = reached

    def _orders(self, rows: int) -> tuple[Array, Array, Array]:
        """Room for `older`, `newer` and `places`."""
        older, newer, places = (np.zeros((self.layout.batch_size, rows), np.int32) for _ in range(3))
        return older, newer, places

    def _after(self, steps: int) -> int:
        """Slots that may exist after so many steps."""
        return min(self.layout.memory_size, int(self.existing.max(initial=0)) + steps)

    def copy(self, layout: Layout, chosen: Array) -> Pages:
        """These rows of the batch, as another layout has them."""
        rows = max(1, self._reached)
        pages = Pages(layout, rows)
        pages._reached, pages.counts[:] = self._reached, self.counts[chosen]
        for name, table in pages.tables.items():
            table[:] = self.tables[name][chosen, : table.shape[1]]
        pages.older[:], pages.newer[:] = self.older[chosen, :rows], self.newer[chosen, :rows]
        if layout.dtype != self.layout.dtype:
            words = pages.tables["content"].reshape(layout.batch_size, rows, layout.word_size)
            pages.tables["lengths"][:] = np.sqrt(np.square(words).sum(-1) + COSINE_EPSILON)
        return pages

    def journal(self, most: int) -> Journal:
        """An empty journal for so many rows at most."""
        B, most = self.layout.batch_size, min(most, self.rows)
        slots, held = np.empty((B, most), np.int32), np.zeros(B, np.int32)
        # What is not written to takes no room; zeros, of recycled memory, are written.
        return Journal(slots, held, self.layout.tables(most, np.empty), self.counts.copy())

    def note(self, journal: Journal) -> None:
        """What is in the journal may have changed."""
        for who in (self.store, self.index):
            if who is not None:
                who.note(journal.slots, journal.held)

    def exchange(self, newer: Version, older: Version, journal: Journal) -> None:
        """The rows become those of the older version, which the journal has; the newer one gets a journal of them."""
        now = journal._replace(tables=self.layout.tables(journal.slots.shape[1], np.empty), counts=self.counts.copy())
        for rows, noted, slots in self._each(now):
            noted[:] = rows[slots]
        # From here on all can be done once more: what is interrupted now is ended by whoever comes next.
        self._exchange = newer, older, journal, now
        self.settle()

    def settle(self) -> None:
        """Ends an exchange that was interrupted."""
        if self._exchange is None:
            return
        newer, older, journal, now = self._exchange
        self._ordered = False
        self.note(journal)
        for rows, noted, slots in self._each(journal):
            rows[slots] = noted
        self.counts[:] = journal.counts
        newer.follow(older, now)
        older.follow(None, None)
        self._exchange = None

    def _each(self, journal: Journal) -> Iterator[tuple[Array, Array, Array]]:
        """For every row of the batch and every table: its rows, those that the journal has of them, their numbers."""
        for b, count in enumerate(journal.held):
            slots = journal.slots[b, :count]
            for name, (width, _) in self.layout.widths().items():
                rows = self.tables[name][b, : self.rows * width].reshape(self.rows, width)
                yield rows, journal.tables[name][b, : count * width].reshape(count, width), slots

    def relink(self) -> None:
        """The order of access, from when each slot was."""
        for b, count in enumerate(self.existing.tolist()):
            order = np.argsort(self.tables["accessed"][b, :count], kind="stable")
            self.older[b, order[1:]], self.newer[b, order[:-1]] = order[:-1], order[1:]
            if count:
                self.older[b, order[0]], self.newer[b, order[-1]] = -1, -1
            self.counts[b, [OLDEST, NEWEST]] = (order[0], order[-1]) if count else (-1, -1)
        self._ordered = True

    def ordered(self) -> Pages:
        """These, with the order of access."""
        if not self._ordered:
            self.relink()
        return self


class Version:
    """A sparse memory as it is, or as it was once.

    A memory to which nothing was written has no pages: it costs nothing, and many calls may start from it.
    """

    def __init__(self, layout: Layout, pages: Pages | None = None) -> None:
        self.layout, self.pages = layout, pages
        self._newer: Version | None = None
        self._journal: Journal | None = None

    def open(self, steps: int) -> Pages:
        """The pages, as this version has them, with room for as many slots as so many steps may take."""
        pages = self.read() or Pages(self.layout, min(self.layout.memory_size, steps))
        pages.grow(steps)
        return pages

    def followed(self, pages: Pages, journal: Journal) -> Version:
        """The version that the pages have become, when the journal says what they were in this one."""
        newer = Version(self.layout, pages)
        pages.note(journal)
        if self.pages is not None:
            self.follow(newer, journal)
        return newer

    @property
    def is_stored(self) -> bool:
        """Whether it is in a directory, not in RAM."""
        return self.pages is not None and self.pages.store is not None

    @property
    def needs_flush(self) -> bool:
        """Whether so much has changed since its directory was written that it is to be again."""
        return self.pages is not None and self.pages.store is not None and self.pages.store.needs_flush

    def existing(self) -> list[int]:
        """How many slots each row of the batch has."""
        with self.locked():
            pages = self.read()
            return [0] * self.layout.batch_size if pages is None else pages.existing.tolist()

    def read(self) -> Pages | None:
        """The pages, as this version has them, to be read at once, by who holds their lock; None: no slot exists."""
        if self.pages is None:
            return None
        self.pages.settle()
        path = [self]
        while path[-1]._newer is not None:
            path.append(path[-1]._newer)
        for newer, older in zip(reversed(path), path[-2::-1], strict=False):
            assert older._journal is not None
            self.pages.exchange(newer, older, older._journal)
        return self.pages.ordered()

    def follow(self, newer: Version | None, journal: Journal | None) -> None:
        """This is the version before a newer one, of which the journal says what differs; None: it is the newest."""
        self._newer, self._journal = newer, journal

    def copy(self, rows: Tensor | None = None, dtype: torch.dtype | None = None) -> Version:
        """The same memory, or chosen rows of the batch of it, in pages of its own.

        Args:
            rows: their numbers; None for all.
            dtype: another one; None for the same.
        """
        chosen = np.arange(self.layout.batch_size) if rows is None else rows.numpy()
        layout = self.layout._replace(batch_size=len(chosen), dtype=dtype or self.layout.dtype)
        with self.locked():
            pages = self.read()
            return Version(layout, None if pages is None else pages.copy(layout, chosen))

    def locked(self) -> Any:
        """Holds the pages for one thread."""
        return threading.RLock() if self.pages is None else self.pages.lock
