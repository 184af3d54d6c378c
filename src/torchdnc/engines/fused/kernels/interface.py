"""Squashing of the interface, and its gradient."""

import math

from numba import njit

from torchdnc.engines.fused.kernels.layout import interface_parts, part
from torchdnc.engines.fused.kernels.options import EXACT
from torchdnc.engines.fused.kernels.vectors import oneplus, sigmoid


@njit(**EXACT)
def squash(xi, W, R):
    """Squashes every part of an interface row into its range, in place."""
    _, read_strengths, _, write_strength, erase, _, free_gates, alloc_gate, write_gate, modes = interface_parts(
        xi, W, R
    )
    for strengths in (read_strengths, write_strength):
        for i in range(strengths.shape[0]):
            strengths[i] = oneplus(strengths[i])
    for gates in (erase, free_gates, alloc_gate, write_gate):
        for i in range(gates.shape[0]):
            gates[i] = sigmoid(gates[i])
    for r in range(R):
        mode = part(modes, r, 3)
        top = max(mode[0], max(mode[1], mode[2]))
        backward, content, forward = math.exp(mode[0] - top), math.exp(mode[1] - top), math.exp(mode[2] - top)
        scale = 1.0 / (backward + content + forward)
        mode[0], mode[1], mode[2] = backward * scale, content * scale, forward * scale


@njit(**EXACT)
def unsquash(xi, dxi, W, R):
    """dxi: gradient of the squashed parts -> of the raw interface, in place; needs the squashed values only."""
    one = xi.dtype.type(1)
    _, read_strengths, _, write_strength, erase, _, free_gates, alloc_gate, write_gate, modes = interface_parts(
        xi, W, R
    )
    _, d_read_strengths, _, d_write_strength, d_erase, _, d_free, d_alloc, d_write, d_modes = interface_parts(dxi, W, R)
    for strengths, d_strengths in ((read_strengths, d_read_strengths), (write_strength, d_write_strength)):
        for i in range(strengths.shape[0]):
            # With s = 1 + log(1 + e^x), the derivative e^x / (1 + e^x) is 1 - e^(1 - s).
            d_strengths[i] *= -math.expm1(one - strengths[i])
    for gates, d_gates in (
        (erase, d_erase),
        (free_gates, d_free),
        (alloc_gate, d_alloc),
        (write_gate, d_write),
    ):
        for i in range(gates.shape[0]):
            d_gates[i] *= gates[i] * (one - gates[i])
    for r in range(R):
        mode, d_mode = part(modes, r, 3), part(d_modes, r, 3)
        mean = mode[0] * d_mode[0] + mode[1] * d_mode[1] + mode[2] * d_mode[2]
        for k in range(3):
            d_mode[k] = mode[k] * (d_mode[k] - mean)
