"""Rows of a sparse memory: how they are noted before they change, and the order in which they were accessed."""

from numba import njit

from torchdnc.engines.fused.kernels.options import EXACT
from torchdnc.engines.fused.kernels.vectors import clear, copy
from torchdnc.engines.sparse.pages import CLOCK, EXISTING, NEWEST, OLDEST


@njit(**EXACT)
def touch(rows, journal, b, slot, W, links):
    """The slot's place in the journal, which notes how it is when a call first comes to it."""
    place, held = rows.places[b, slot], journal.held[b]
    # What earlier calls left in `places` need not be cleared: a place is the slot's only if the journal says so too.
    if 0 <= place < held and journal.slots[b, place] == slot:
        return place
    journal.slots[b, held], rows.places[b, slot], journal.held[b] = slot, held, held + 1
    copy(journal.content[b, held * W :], rows.content[b, slot * W :], W)
    journal.lengths[b, held], journal.accessed[b, held] = rows.lengths[b, slot], rows.accessed[b, slot]
    for q in range(links):
        there, here = held * links + q, slot * links + q
        journal.back_slots[b, there], journal.back[b, there] = rows.back_slots[b, here], rows.back[b, here]
        journal.ahead_slots[b, there], journal.ahead[b, there] = rows.ahead_slots[b, here], rows.ahead[b, here]
    return held


@njit(**EXACT)
def oldest(rows, b, N):
    """The slot to take: the one that was not accessed for longest, the lowest of those never accessed."""
    count, slot = rows.counts[b, EXISTING], rows.counts[b, OLDEST]
    if count < N and (count == 0 or rows.accessed[b, slot] > 0):
        return count
    return slot


@njit(**EXACT)
def create(rows, b, slot, links):
    """Has the next slot exist, as one that was never accessed. What its row holds is of a memory before."""
    counts = rows.counts[b]
    first = counts[OLDEST]
    rows.older[b, slot], rows.newer[b, slot], rows.accessed[b, slot] = -1, first, 0
    if first >= 0:
        rows.older[b, first] = slot
    else:
        counts[NEWEST] = slot
    counts[OLDEST], counts[EXISTING] = slot, slot + 1
    for q in range(slot * links, slot * links + links):
        rows.back_slots[b, q], rows.ahead_slots[b, q] = -1, -1


@njit(**EXACT)
def access(rows, b, slot):
    """Makes it the newest."""
    counts = rows.counts[b]
    before, after, newest = rows.older[b, slot], rows.newer[b, slot], counts[NEWEST]
    rows.accessed[b, slot] = counts[CLOCK]
    if slot == newest:
        return
    rows.older[b, after] = before
    if before >= 0:
        rows.newer[b, before] = after
    else:
        counts[OLDEST] = after
    rows.newer[b, newest], rows.older[b, slot], rows.newer[b, slot] = slot, newest, -1
    counts[NEWEST] = slot


@njit(**EXACT)
def start_afresh(rows, b):
    """No slot exists."""
    counts = rows.counts[b]
    counts[EXISTING], counts[OLDEST], counts[NEWEST], counts[CLOCK] = 0, -1, -1, 0


@njit(**EXACT)
def empty(rows, b, slot, W):
    """Its word := 0."""
    clear(rows.content[b, slot * W :], W)


@njit(**EXACT)
def mix(amounts, slots, count, slot, amount):
    """Adds to what a slot has; `slots` are the `count` that have something. How many these are then."""
    if amount > 0:
        if amounts[slot] == 0:
            slots[count] = slot
            count += 1
        amounts[slot] += amount
    return count


@njit(**EXACT)
def sort_slots(slots, count):
    """Ascending, by insertion: there are few."""
    for k in range(1, count):
        slot, at = slots[k], k
        while at > 0 and slots[at - 1] > slot:
            slots[at] = slots[at - 1]
            at -= 1
        slots[at] = slot
