"""Squashing of the interface, and its gradient."""

import math

from numba import njit

from torchdnc.engines.fused.kernels.layout import interface_parts, mask_parts
from torchdnc.engines.fused.kernels.masking import squash_masks, unsquash_masks
from torchdnc.engines.fused.kernels.options import EXACT
from torchdnc.engines.fused.kernels.simd import first_lanes, fma, lanes, like, load, spread, store, sum_lanes
from torchdnc.engines.fused.kernels.vectors import oneplus, sigmoid_in_place, total


@njit(**EXACT)
def normalize(xi, normal, gain, bias, epsilon, size):
    """x := (ξ − mean ξ) / s, which is kept in `normal`, and s behind it; ξ := gain ∘ x + bias; s = sqrt(var ξ + ε)."""
    share = xi.dtype.type(1) / xi.dtype.type(size)
    mean, acc = spread(total(xi, size) * share), like(xi, 0)
    for k in range(0, size, lanes(xi)):
        n = size - k
        x = first_lanes(load(xi, k, n) - mean, like(xi, 0), n)
        acc = fma(x, x, acc)
    deviation = xi.dtype.type(math.sqrt(sum_lanes(acc) * share + xi.dtype.type(epsilon)))
    normal[size] = deviation
    scale = spread(xi.dtype.type(1) / deviation)
    for k in range(0, size, lanes(xi)):
        n = size - k
        x = (load(xi, k, n) - mean) * scale
        store(normal, k, x, n)
        store(xi, k, fma(load(gain, k, n), x, load(bias, k, n)), n)


@njit(**EXACT)
def normalize_backward(normal, d_xi, gain, size):
    """d_xi: gradient of the normalised ξ -> of the raw one: (g − mean g − x mean(g ∘ x)) / s with g = gain ∘ d_xi."""
    share = d_xi.dtype.type(1) / d_xi.dtype.type(size)
    plain = along = like(d_xi, 0)
    for k in range(0, size, lanes(d_xi)):
        n = size - k
        g = load(gain, k, n) * load(d_xi, k, n)
        plain, along = plain + g, fma(g, load(normal, k, n), along)
    mean, slope = spread(sum_lanes(plain) * share), spread(sum_lanes(along) * share)
    scale = spread(d_xi.dtype.type(1) / normal[size])
    for k in range(0, size, lanes(d_xi)):
        n = size - k
        g = load(gain, k, n) * load(d_xi, k, n)
        store(d_xi, k, (g - mean - load(normal, k, n) * slope) * scale, n)


@njit(**EXACT)
def squash_modes(modes):
    """The three of every head := their softmax."""
    for r in range(modes.shape[0] // 3):
        back, found, ahead = modes[3 * r], modes[3 * r + 1], modes[3 * r + 2]
        top = max(back, max(found, ahead))
        back, found, ahead = math.exp(back - top), math.exp(found - top), math.exp(ahead - top)
        scale = 1.0 / (back + found + ahead)
        modes[3 * r], modes[3 * r + 1], modes[3 * r + 2] = back * scale, found * scale, ahead * scale


@njit(**EXACT)
def unsquash_modes(modes, d_modes):
    """d_modes: gradient of the softmax of every head -> of what it is of."""
    for r in range(modes.shape[0] // 3):
        mean = modes.dtype.type(0)
        for k in range(3 * r, 3 * r + 3):
            mean += modes[k] * d_modes[k]
        for k in range(3 * r, 3 * r + 3):
            d_modes[k] = modes[k] * (d_modes[k] - mean)


@njit(**EXACT)
def squash(xi, W, R, options):
    """Squashes every part of an interface row into its range, in place."""
    _, read_strengths, _, write_strength, erase, _, free_gates, alloc_gate, write_gate, modes = interface_parts(
        xi, W, R, options
    )
    for masks in mask_parts(xi, W, R, options):
        squash_masks(masks, options.floor)
    for strengths in (read_strengths, write_strength):
        for i in range(strengths.shape[0]):
            strengths[i] = oneplus(strengths[i])
    for gates in (erase, free_gates, alloc_gate, write_gate):
        sigmoid_in_place(gates, gates.shape[0])
    squash_modes(modes)


@njit(**EXACT)
def unsquash(xi, d_xi, W, R, options):
    """d_xi: gradient of the squashed parts -> of the raw interface, in place; needs the squashed values only."""
    one = xi.dtype.type(1)
    _, read_strengths, _, write_strength, erase, _, free_gates, alloc_gate, write_gate, modes = interface_parts(
        xi, W, R, options
    )
    _, d_read_strengths, _, d_write_strength, d_erase, _, d_free, d_alloc, d_write, d_modes = interface_parts(
        d_xi, W, R, options
    )
    read_masks, write_mask = mask_parts(xi, W, R, options)
    d_read_masks, d_write_mask = mask_parts(d_xi, W, R, options)
    for masks, d_masks in ((read_masks, d_read_masks), (write_mask, d_write_mask)):
        unsquash_masks(masks, d_masks, options.floor)
    for strengths, d_strengths in ((read_strengths, d_read_strengths), (write_strength, d_write_strength)):
        for i in range(strengths.shape[0]):
            # With s = 1 + log(1 + e^x), the derivative e^x / (1 + e^x) is 1 - e^(1 - s).
            d_strengths[i] *= -math.expm1(one - strengths[i])
    for gates, d_gates in ((erase, d_erase), (free_gates, d_free), (alloc_gate, d_alloc), (write_gate, d_write)):
        for i in range(gates.shape[0]):
            d_gates[i] *= gates[i] * (one - gates[i])
    unsquash_modes(modes, d_modes)
