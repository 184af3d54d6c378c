"""The memory of Graves et al. 2016 once more, in NumPy loops: what `torchdnc.ops` is held against.

Written from the equations of the paper's Methods, one function each, under the names of `torchdnc.ops`. An
equation is written for one row of the batch; `rowwise` repeats it for every row. Slots count from 0.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

from torchdnc.types import PAPER, MemoryOptions

Array = Any
"""An array or a scalar of float64."""

EPSILON = 1e-6
"""Added to squared lengths: the paper's cosine has no value for an empty row."""


def rowwise(equation: Callable[..., Any]) -> Callable[..., Any]:
    """The equation applied to each row of a batch in turn."""

    @wraps(equation)
    def over_batch(*arguments: Array) -> Any:
        rows = [equation(*row) for row in zip(*arguments, strict=True)]
        return tuple(map(np.stack, zip(*rows, strict=True))) if isinstance(rows[0], tuple) else np.stack(rows)

    return over_batch


def oneplus(x: Array) -> Array:
    return 1 + np.logaddexp(0, x)


def sigmoid(x: Array) -> Array:
    return np.exp(-np.logaddexp(0, -x))


def softmax(x: Array) -> Array:
    powers = np.exp(x - np.max(x))
    return powers / np.sum(powers)


def interface_size(word_size: int, read_heads: int, options: MemoryOptions = PAPER) -> int:
    keys, strengths, modes = read_heads * word_size, read_heads, 3 * read_heads
    if options.links == "none":
        modes = 0
    masks = (read_heads + 1) * word_size if options.masking else 0
    sharpness = 2 * read_heads if options.sharpness else 0
    write_key, write_strength, erase, write_vector = word_size, 1, word_size, word_size
    free_gates, alloc_gate, write_gate = read_heads, 1, 1
    reading = keys + strengths + free_gates + modes
    return reading + write_key + write_strength + erase + write_vector + alloc_gate + write_gate + masks + sharpness


def split_interface(
    interface: Array, word_size: int, read_heads: int, options: MemoryOptions = PAPER
) -> dict[str, Array]:
    W, R = word_size, read_heads
    layout = {
        "read_keys": (R, W),
        "read_strengths": (R,),
        "write_key": (W,),
        "write_strength": (),
        "erase": (W,),
        "write_vector": (W,),
        "free_gates": (R,),
        "alloc_gate": (),
        "write_gate": (),
        "read_modes": (R, 3),
    }
    if options.links == "none":
        del layout["read_modes"]
    if options.masking:
        layout |= {"read_masks": (R, W), "write_mask": (W,)}
    if options.sharpness:
        layout |= {"forward_sharpness": (R,), "backward_sharpness": (R,)}
    parts, start = {}, 0
    for name, shape in layout.items():
        end = start + int(np.prod(shape))
        parts[name] = interface[:, start:end].reshape(-1, *shape)
        start = end
    assert start == interface.shape[1]

    for name in ("read_strengths", "write_strength"):
        parts[name] = oneplus(parts[name])
    for name in ("erase", "free_gates", "alloc_gate", "write_gate"):
        parts[name] = sigmoid(parts[name])
    if options.links != "none":
        parts["read_modes"] = np.array([[softmax(head) for head in row] for row in parts["read_modes"]])
    for name in ("forward_sharpness", "backward_sharpness") if options.sharpness else ():
        parts[name] = oneplus(parts[name])
    for name in ("read_masks", "write_mask") if options.masking else ():
        parts[name] = sigmoid(parts[name]) * (1 - options.mask_floor) + options.mask_floor
    return parts


def cosine(u: Array, v: Array) -> Array:
    return np.sum(u * v) / (np.sqrt(np.sum(u * u) + EPSILON) * np.sqrt(np.sum(v * v) + EPSILON))


def content_weights(
    memory: Array, keys: Array, strengths: Array, written: Array | None = None, masks: Array | None = None
) -> Array:
    written = np.ones(memory.shape[:2]) if written is None else written
    masks = np.ones_like(keys) if masks is None else masks
    return _content_weights(memory, keys, strengths, written, masks)


@rowwise
def _content_weights(memory: Array, keys: Array, strengths: Array, written: Array, masks: Array) -> Array:
    slots = [i for i in range(len(memory)) if written[i] == 1]

    def look_up(key: Array, strength: Array, mask: Array) -> Array:
        weights = np.zeros(len(memory))
        if slots:
            scores = [strength * cosine(key * mask, memory[i] * mask) for i in slots]
            weights[slots] = softmax(np.array(scores))
        return weights

    if keys.ndim == 1:
        return look_up(keys, strengths, masks)
    return np.array([look_up(keys[r], strengths[r], masks[r]) for r in range(len(keys))])


@rowwise
def retention(free_gates: Array, read_weights_prev: Array) -> Array:
    R, N = read_weights_prev.shape
    psi = np.ones(N)
    for i in range(N):
        for r in range(R):
            psi[i] *= 1 - free_gates[r] * read_weights_prev[r, i]
    return psi


@rowwise
def usage(usage_prev: Array, write_weights_prev: Array, retention: Array) -> Array:
    u, w, psi = usage_prev, write_weights_prev, retention
    return np.array([(u[i] + w[i] - u[i] * w[i]) * psi[i] for i in range(len(u))])


@rowwise
def age(age_prev: Array, write_weights: Array, read_weights: Array) -> Array:
    aged = np.zeros(len(age_prev))
    for i in range(len(aged)):
        missed = 1 - write_weights[i]
        for head in read_weights:
            missed *= 1 - head[i]
        aged[i] = (age_prev[i] + 1) * missed
    return aged


def released(usage: Array, age_prev: Array, pinned: Array, high: float, low: float) -> Array:
    rows = zip(usage, age_prev, pinned, strict=True)
    return np.stack([_released(*row, high * len(row[0]), low * len(row[0])) for row in rows])


def _released(usage: Array, age_prev: Array, pinned: Array, above: float, until: float) -> Array:
    left, gone = sum(usage > 0.5), np.zeros(len(usage))
    if left > above:
        for slot in sorted(range(len(usage)), key=lambda i: (-age_prev[i], i)):
            if left > until and usage[slot] > 0.5 and not pinned[slot]:
                left, gone[slot] = left - 1, 1
    return gone


@rowwise
def exists(slots: Array, memory: Array) -> Array:
    return np.array([i < slots for i in range(len(memory))])


def allocation_weights(usage: Array, exists: Array | None = None) -> Array:
    return _allocation_weights(usage, np.ones(usage.shape, bool) if exists is None else exists)


@rowwise
def _allocation_weights(usage: Array, exists: Array) -> Array:
    a = np.zeros(len(usage))
    product = 1.0
    for slot in sorted(np.flatnonzero(exists), key=lambda i: (usage[i], i)):
        a[slot] = (1 - usage[slot]) * product
        product *= usage[slot]
    return a


@rowwise
def write_weights(content: Array, allocation: Array, alloc_gate: Array, write_gate: Array) -> Array:
    return write_gate * (alloc_gate * allocation + (1 - alloc_gate) * content)


@rowwise
def deallocate(memory_prev: Array, retention: Array) -> Array:
    return np.array([[psi * number for number in word] for word, psi in zip(memory_prev, retention, strict=True)])


@rowwise
def written(written_prev: Array, write_weights: Array) -> Array:
    return np.array([1.0 if w > 0 else z for z, w in zip(written_prev, write_weights, strict=True)])


@rowwise
def erase_and_write(memory_prev: Array, write_weights: Array, erase: Array, write_vector: Array) -> Array:
    memory = np.empty_like(memory_prev)
    for i, w in enumerate(write_weights):
        for j in range(len(erase)):
            memory[i, j] = memory_prev[i, j] * (1 - w * erase[j]) + w * write_vector[j]
    return memory


@rowwise
def precedence(precedence_prev: Array, write_weights: Array) -> Array:
    return (1 - sum(write_weights)) * precedence_prev + write_weights


@rowwise
def link(link_prev: Array, precedence_prev: Array, write_weights: Array) -> Array:
    w, p = write_weights, precedence_prev
    L = np.zeros_like(link_prev)
    for i in range(len(w)):
        for j in range(len(w)):
            if i != j:
                L[i, j] = (1 - w[i] - w[j]) * link_prev[i, j] + w[i] * p[j]
    return L


@rowwise
def directional_weights(link: Array, read_weights_prev: Array) -> tuple[Array, Array]:
    forward, backward = np.zeros_like(read_weights_prev), np.zeros_like(read_weights_prev)
    R, N = read_weights_prev.shape
    for r in range(R):
        for i in range(N):
            forward[r, i] = sum(link[i, j] * read_weights_prev[r, j] for j in range(N))
            backward[r, i] = sum(link[j, i] * read_weights_prev[r, j] for j in range(N))
    return forward, backward


def sharpen_directional(weights: Array, sharpness: Array, written: Array | None = None) -> Array:
    written = np.ones((len(weights), weights.shape[-1])) if written is None else written
    return _sharpen_directional(weights, sharpness, written)


@rowwise
def _sharpen_directional(weights: Array, sharpness: Array, written: Array) -> Array:
    sharp = np.zeros_like(weights)
    slots = [i for i in range(len(written)) if written[i] == 1]
    for r, d in enumerate(weights):
        largest = max((d[i] + EPSILON for i in slots), default=1.0)
        powers = [((d[i] + EPSILON) / largest) ** sharpness[r] for i in slots]
        for i, power in zip(slots, powers, strict=True):
            sharp[r, i] = power / sum(powers)
    return sharp


@rowwise
def read_weights(backward: Array, content: Array, forward: Array, read_modes: Array) -> Array:
    return np.array([pi[0] * backward[r] + pi[1] * content[r] + pi[2] * forward[r] for r, pi in enumerate(read_modes)])


@rowwise
def read_words(memory: Array, read_weights: Array) -> Array:
    return np.array([sum(w * word for w, word in zip(head, memory, strict=True)) for head in read_weights])


def access(
    interface: dict[str, Array], state: dict[str, Array], options: MemoryOptions = PAPER
) -> tuple[Array, dict[str, Array]]:
    """One step in the paper's order: usage, write, link, read. Parts and fields that no option needs are not there.

    A memory that may grow is at its largest size already.
    """
    xi, prev, new = interface, state, dict[str, Array]()

    psi = retention(xi["free_gates"], prev["read_weights"])
    new["usage"] = usage(prev["usage"], prev["write_weights"], psi)
    if options.overflow == "reclaim":
        high, low = options.high_watermark, options.least_in_use
        stays = 1 - released(new["usage"], prev["age"], prev["pinned"], high, low)
        new["usage"] = new["usage"] * stays
    there = exists(prev["slots"], prev["memory"]) if options.overflow == "grow" else None

    found = content_weights(
        prev["memory"], xi["write_key"], xi["write_strength"], prev.get("written", there), xi.get("write_mask")
    )
    fresh = allocation_weights(new["usage"], there)
    new["write_weights"] = write_weights(found, fresh, xi["alloc_gate"], xi["write_gate"])
    held = deallocate(prev["memory"], psi) if options.deallocation else prev["memory"]
    if options.overflow == "reclaim":
        held = deallocate(held, stays)
    new["memory"] = erase_and_write(held, new["write_weights"], xi["erase"], xi["write_vector"])

    if options.skip_unwritten:
        before = prev["written"] * stays if options.overflow == "reclaim" else prev["written"]
        new["written"] = written(before, new["write_weights"])

    content = content_weights(
        new["memory"], xi["read_keys"], xi["read_strengths"], new.get("written", there), xi.get("read_masks")
    )
    if options.links == "none":
        new["read_weights"] = content
    else:
        new["link"] = link(prev["link"], prev["precedence"], new["write_weights"])
        new["precedence"] = precedence(prev["precedence"], new["write_weights"])
        forward, backward = directional_weights(new["link"], prev["read_weights"])
        if options.sharpness:
            forward = sharpen_directional(forward, xi["forward_sharpness"], new.get("written", there))
            backward = sharpen_directional(backward, xi["backward_sharpness"], new.get("written", there))
        new["read_weights"] = read_weights(backward, content, forward, xi["read_modes"])
    if options.overflow == "reclaim":
        new["age"] = age(prev["age"], new["write_weights"], new["read_weights"])
        new["pinned"] = prev["pinned"]
    if options.overflow == "grow":
        new["slots"] = prev["slots"]
    return read_words(new["memory"], new["read_weights"]), {name: new[name] for name in state}
