"""The gradient of the words of a memory, of which a call comes to a few."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from torchdnc.engines.fused.kernels.arrays import Array
from torchdnc.engines.fused.rooms import array
from torchdnc.engines.sparse.dense import sparse_gradient


class Touched(NamedTuple):
    """The words that a call came to: slots [B, P], of which `held` [B] count; existing [B]: how many slots there were
    before; afresh [B], bool: whether the row started afresh at some step."""

    slots: Array
    held: Array
    existing: Array
    afresh: Array


class Passed(NamedTuple):
    """The gradient of words that a call did not come to: row of the batch and slot [2, n] of each, and it [n, W]."""

    places: Tensor
    values: Tensor


def take_in(d_content: Tensor | None, touched: Touched, W: int, like: Tensor) -> tuple[Array, Passed | None]:
    """The gradient of the words that the call came to [B, P·W], and that of the others."""
    rows = like.new_zeros(len(touched.held), int(touched.held.max(initial=0)), W)
    if d_content is None:
        return array(rows.flatten(1)), None
    d_content = (d_content if d_content.is_sparse else d_content.to_sparse(2)).coalesce()
    (batch, slot), values = d_content.indices(), d_content.values()
    passing = torch.ones(len(slot), dtype=torch.bool)
    for b in np.flatnonzero(touched.held):
        noted, order = torch.from_numpy(touched.slots[b, : touched.held[b]]).long().sort()
        here = (batch == b).nonzero().squeeze(-1)
        place = torch.searchsorted(noted, slot[here]).clamp(max=len(noted) - 1)
        same = noted[place] == slot[here]
        rows[b, order[place[same]]] = values[here[same]]
        passing[here[same]] = False
    return array(rows.flatten(1)), Passed(d_content.indices()[:, passing], values[passing])


def hand_out(rows: Array, passed: Passed | None, touched: Touched, shape: tuple[int, ...]) -> Tensor:
    """The gradient of the words before the first step, of those that there were."""
    places, values = [torch.empty(2, 0, dtype=torch.long)], [torch.from_numpy(rows[:0]).view(0, shape[-1])]
    for b, (count, existing) in enumerate(zip(touched.held, touched.existing, strict=True)):
        noted = torch.from_numpy(touched.slots[b, :count]).long()
        there = noted < int(existing)
        places.append(torch.stack([torch.full_like(noted, b), noted])[:, there])
        values.append(torch.from_numpy(rows[b]).view(-1, shape[-1])[:count][there])
    if passed is not None:
        batch, slot = passed.places
        there = (slot < torch.from_numpy(touched.existing)[batch]) & ~torch.from_numpy(touched.afresh)[batch]
        places.append(passed.places[:, there])
        values.append(passed.values[there])
    return sparse_gradient(torch.cat(places, 1), torch.cat(values), shape)
