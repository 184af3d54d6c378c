"""An approximate index of the words of a sparse memory: it proposes a few hundred slots, to be compared exactly.

The words are kept once more as 4-bit codes of pairs of numbers (product quantisation; faiss), which are gone through in
a fraction of the time that the words take. Slots that changed since the codes were made are always compared; when they
are many, all codes are made anew.
"""

from __future__ import annotations

import importlib.util
from typing import Any, Final

import numpy as np

from torchdnc.ops.content import COSINE_EPSILON

Array = np.ndarray[Any, Any]

PROPOSED: Final = 256
"""Slots that are compared exactly for each key, besides those that changed."""
WORTH: Final = 65536
"""From so many slots on there is an index; fewer are gone through faster."""
STALE: Final = 4096
"""Slots that may have changed before the codes are made anew."""
TRAINED_ON: Final = 65536
"""Words from which the codes are learned."""


def missing() -> str | None:
    """Why there can be no index, as the end of a sentence; None if there can."""
    if importlib.util.find_spec("faiss") is None:
        return "faiss is not installed: pip install 'torchdnc[index]'"
    return None


class Index:
    """The index of every row of the batch."""

    def __init__(self, batch_size: int, word_size: int) -> None:
        self.word_size = word_size
        self._codes: list[Any] = [None] * batch_size
        self._changed: list[list[Array]] = [[] for _ in range(batch_size)]

    def note(self, slots: Array, held: Array) -> None:
        """These slots of each row of the batch may have changed."""
        for b, count in enumerate(held):
            self._changed[b].append(slots[b, :count].copy())

    def changed(self, b: int) -> Array:
        """Slots that may have changed since the codes were made; after a refresh `STALE` at most."""
        self._changed[b] = [np.unique(np.concatenate([np.empty(0, np.int32), *self._changed[b]]))]
        return self._changed[b][0]

    def refresh(self, content: Array, existing: Array) -> None:
        """Makes the codes of rows of the batch that have many slots, and many that changed.

        Args:
            content: [B, C·W].
            existing: [B], how many slots there are.
        """
        for b, count in enumerate(existing):
            if count < WORTH:
                self._codes[b], self._changed[b] = None, []
            elif self._codes[b] is None or len(self.changed(b)) > STALE:
                self._codes[b] = _codes(content[b, : count * self.word_size].reshape(count, self.word_size))
                self._changed[b] = []

    def propose(self, b: int, keys: Array) -> Array | None:
        """Slots most like each key [R, W], [R, PROPOSED], by their codes; None where there are no codes."""
        codes = self._codes[b]
        if codes is None:
            return None
        import faiss
        import torch

        faiss.omp_set_num_threads(torch.get_num_threads())
        _, slots = codes.search(_padded(keys), min(PROPOSED, codes.ntotal))
        found: Array = slots.astype(np.int32)
        return found


def _codes(words: Array) -> Any:
    import faiss

    sample = _padded(words[:: max(1, len(words) // TRAINED_ON)])
    codes = faiss.index_factory(sample.shape[1], f"PQ{sample.shape[1] // 2}x4fs", faiss.METRIC_INNER_PRODUCT)
    codes.train(sample)
    # In pieces: the words may be as many as memory has room for.
    for first in range(0, len(words), TRAINED_ON):
        codes.add(_padded(words[first : first + TRAINED_ON]))
    return codes


def _padded(words: Array) -> Array:
    """Of length 1, in float32, with an even number of numbers."""
    lengths = np.sqrt(np.square(words).sum(-1, keepdims=True) + COSINE_EPSILON)
    return np.pad(words / lengths, ((0, 0), (0, words.shape[1] % 2))).astype(np.float32)
