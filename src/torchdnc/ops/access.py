"""One step of the memory: the composition of all the other operations."""

from __future__ import annotations

from torch import Tensor

from torchdnc.ops.allocation import allocation_weights, retention, usage
from torchdnc.ops.content import content_weights
from torchdnc.ops.links import directional_weights, link, precedence, sharpen_directional
from torchdnc.ops.overflow import age, exists, grow, released
from torchdnc.ops.reading import read_weights, read_words
from torchdnc.ops.writing import deallocate, erase_and_write, write_weights, written
from torchdnc.types import PAPER, UNUSED, HeadWords, Interface, Link, MemoryOptions, MemoryState, Unused, Weights


def access(
    interface: Interface, memory_state: MemoryState, options: MemoryOptions = PAPER
) -> tuple[HeadWords, MemoryState]:
    """One step of the memory: count usage, write, link, read. Without links, heads read where they find their keys.

    The order is the paper's: usage from the weightings of the step before, the write look-up in the old
    memory, the links from the old precedence, the read look-up in the new memory.

    Args:
        interface: as `split_interface` gives it.
        memory_state: the state after step t−1.
        options: departures from the paper.
    Returns:
        read_words [B, R, W] and the state after step t. The state passed in is not changed.
    Source: Graves et al. 2016, Methods.
    """
    xi, prev = interface, memory_state
    if options.overflow == "grow":
        prev = grow(prev, options)

    counted = prev.write_weights if options.usage_gradient else prev.write_weights.detach()
    kept = retention(xi.free_gates, prev.read_weights)
    used = usage(prev.usage, counted, kept)
    gone = None
    if options.overflow == "reclaim":
        gone = released(used, prev.age, prev.pinned, options.high_watermark, options.least_in_use) != 0
        used = used.masked_fill(gone, 0)

    found = content_weights(prev.memory, xi.write_key, xi.write_strength, searched(prev), xi.write_mask)
    allocation = allocation_weights(used, exists(prev.slots, used))
    written_at = write_weights(found, allocation, xi.alloc_gate, xi.write_gate)
    held = deallocate(prev.memory, kept) if options.deallocation else prev.memory
    if gone is not None:
        held = held.masked_fill(gone.unsqueeze(-1), 0)
    memory = erase_and_write(held, written_at, xi.erase, xi.write_vector)
    ever_written = UNUSED
    if options.skip_unwritten:
        ever_written = written(prev.written if gone is None else prev.written.masked_fill(gone, 0), written_at)
    looked_at = searched(prev._replace(written=ever_written))

    content = content_weights(memory, xi.read_keys, xi.read_strengths, looked_at, xi.read_masks)
    if options.links == "none":
        recent, links, read_at = UNUSED, UNUSED, content
    else:
        recent = precedence(prev.precedence, written_at)
        links = _link(prev, written_at, options)
        forward, backward = directional_weights(links, prev.read_weights)
        if options.sharpness:
            forward = sharpen_directional(forward, xi.forward_sharpness, looked_at)
            backward = sharpen_directional(backward, xi.backward_sharpness, looked_at)
        read_at = read_weights(backward, content, forward, xi.read_modes)
    aged = age(prev.age, written_at, read_at) if options.overflow == "reclaim" else UNUSED
    state = MemoryState(memory, used, recent, links, written_at, read_at, ever_written, aged, prev.pinned, prev.slots)
    return read_words(memory, read_at), state


def searched(state: MemoryState) -> Weights | Unused:
    """The slots that a look-up looks at: [B, N], 1 for these, 0 for others; () for all."""
    return state.written if isinstance(state.written, Tensor) else exists(state.slots, state.usage)


def _link(prev: MemoryState, written_at: Weights, options: MemoryOptions) -> Link:
    if options.links == "detached":
        return link(prev.link.detach(), prev.precedence.detach(), written_at.detach())
    return link(prev.link, prev.precedence, written_at)
