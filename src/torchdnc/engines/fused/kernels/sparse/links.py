"""Links between few slots: of a slot the K_L strongest in each direction, held at both of their ends.

Of `slots` and `weights` of a list, the first that are there count, up to a -1.
"""

from numba import njit

from torchdnc.engines.fused.kernels.options import EXACT
from torchdnc.engines.fused.kernels.sparse.rows import touch


@njit(**EXACT)
def find(slots, at, links, slot):
    """Where a list of links, which starts at `at`, has a slot; -1: nowhere."""
    for q in range(at, at + links):
        if slots[q] == slot:
            return q
        if slots[q] < 0:
            return -1
    return -1


@njit(**EXACT)
def remove(slots, weights, at, links, slot):
    """Takes a slot off a list."""
    q = find(slots, at, links, slot)
    if q < 0:
        return
    last = q
    while last + 1 < at + links and slots[last + 1] >= 0:
        last += 1
    slots[q], weights[q] = slots[last], weights[last]
    slots[last], weights[last] = -1, 0


@njit(**EXACT)
def unlink(rows, journal, b, slot, W, links):
    """Takes off all links of a slot: they were those of another word."""
    back, ahead, at = rows.back_slots[b], rows.ahead_slots[b], slot * links
    for q in range(at, at + links):
        if back[q] >= 0:
            touch(rows, journal, b, back[q], W, links)
            remove(ahead, rows.ahead[b], back[q] * links, links, slot)
        if ahead[q] >= 0:
            touch(rows, journal, b, ahead[q], W, links)
            remove(back, rows.back[b], ahead[q] * links, links, slot)
    for q in range(at, at + links):
        back[q], ahead[q] = -1, -1


@njit(**EXACT)
def sort_strongest(slots, origins, weights, count):
    """By descending weight, ties by ascending slot."""
    for k in range(1, count):
        slot, origin, weight, at = slots[k], origins[k], weights[k], k
        while at > 0 and (weights[at - 1] < weight or (weights[at - 1] == weight and slots[at - 1] > slot)):
            slots[at], origins[at], weights[at] = slots[at - 1], origins[at - 1], weights[at - 1]
            at -= 1
        slots[at], origins[at], weights[at] = slot, origin, weight


@njit(**EXACT)
def fill(slots, weights, at, links, from_slots, from_weights, count):
    """A list := the first `links` of so many."""
    for q in range(links):
        there = q < count
        slots[at + q] = from_slots[q] if there else -1
        weights[at + q] = from_weights[q] if there else 0


@njit(**EXACT)
def link_row(
    rows, journal, b, a, slot, weight, written, recent_slots, recent, candidates, origins, values, pending, W, links
):  # fmt: skip
    """The slot's row of L' = (1 − w) L + w p, its strongest links; those that are new await their columns in `pending`.

    a: which of the `written` slots it is.
    """
    back, at, count = rows.back_slots[b], slot * links, 0
    touch(rows, journal, b, slot, W, links)
    for q in range(at, at + links):
        if back[q] < 0:
            break
        candidates[count], origins[count], values[count] = back[q], -1, (1 - weight) * rows.back[b, q]
        count += 1
    old = count
    for q in range(links):
        before, share = recent_slots[q], weight * recent[q]
        pending[q * written + a] = 0
        if before < 0 or before == slot or share == 0:
            continue
        same = -1
        for k in range(old):
            if candidates[k] == before:
                same = k
        if same >= 0:
            values[same] += share
        else:
            candidates[count], origins[count], values[count] = before, q, share
            count += 1
    sort_strongest(candidates, origins, values, count)
    fill(back, rows.back[b], at, links, candidates, values, count)
    for k in range(count):
        before = candidates[k]
        if origins[k] >= 0:
            if k < links:
                pending[origins[k] * written + a] = values[k]
            continue
        touch(rows, journal, b, before, W, links)
        if k < links:
            rows.ahead[b, find(rows.ahead_slots[b], before * links, links, slot)] = values[k]
        else:
            remove(rows.ahead_slots[b], rows.ahead[b], before * links, links, slot)


@njit(**EXACT)
def link_column(rows, journal, b, q, slot, slots, count, written, candidates, origins, values, pending, W, links):
    """The slot's column of L', with what `pending` has for it: its strongest links, the others taken off their rows."""
    ahead, at, found = rows.ahead_slots[b], slot * links, 0
    touch(rows, journal, b, slot, W, links)
    for k in range(at, at + links):
        if ahead[k] < 0:
            break
        candidates[found], values[found] = ahead[k], rows.ahead[b, k]
        found += 1
    for a in range(count):
        if pending[q * written + a] > 0:
            candidates[found], values[found] = slots[a], pending[q * written + a]
            found += 1
    sort_strongest(candidates, origins, values, found)
    fill(ahead, rows.ahead[b], at, links, candidates, values, found)
    for k in range(links, found):
        touch(rows, journal, b, candidates[k], W, links)
        remove(rows.back_slots[b], rows.back[b], candidates[k] * links, links, slot)


@njit(**EXACT)
def link_written(
    rows, journal, b, slots, weights, count, recent_slots, recent, candidates, origins, values, pending, W, links
):  # fmt: skip
    """The links after a write to so many slots."""
    for a in range(count):
        link_row(
            rows, journal, b, a, slots[a], weights[a], count, recent_slots, recent, candidates, origins, values,
            pending, W, links,
        )  # fmt: skip
    for q in range(links):
        if recent_slots[q] >= 0:
            link_column(
                rows, journal, b, q, recent_slots[q], slots, count, count, candidates, origins, values, pending, W,
                links,
            )  # fmt: skip


@njit(**EXACT)
def precede(recent_slots, recent, slots, weights, count, candidates, origins, values, links):
    """p := the strongest of (1 − Σ w) p + w."""
    stays = recent.dtype.type(1)
    for a in range(count):
        stays -= weights[a]
    found = 0
    for q in range(links):
        if recent_slots[q] >= 0 and stays * recent[q] > 0:
            candidates[found], values[found] = recent_slots[q], stays * recent[q]
            found += 1
    old = found
    for a in range(count):
        same = -1
        for k in range(old):
            if candidates[k] == slots[a]:
                same = k
        if same >= 0:
            values[same] += weights[a]
        else:
            candidates[found], values[found] = slots[a], weights[a]
            found += 1
    sort_strongest(candidates, origins, values, found)
    fill(recent_slots, recent, 0, links, candidates, values, found)
