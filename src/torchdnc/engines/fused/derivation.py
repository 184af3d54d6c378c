"""The gradients of the memory's equations by hand, in plain PyTorch: the derivation of README.md, to read and check.

For every equation x of a step of the fused engine there is `x_backward(arguments of x, gradient of what x returns)`,
which gives the gradients of these arguments, in their order. d_x is the gradient of x; shapes are those of `ops`. The
compiled kernels do the same row by row. Nothing is differentiated by autograd, and no product is undone by a
division: its factors reach exactly 0.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torchdnc import ops
from torchdnc.engines.fused import lacking
from torchdnc.ops.content import COSINE_EPSILON
from torchdnc.types import (
    BACKWARD,
    CONTENT,
    FORWARD,
    PAPER,
    UNUSED,
    HeadScalars,
    HeadWeights,
    HeadWords,
    Interface,
    Link,
    Memory,
    MemoryOptions,
    ReadModes,
    Scalars,
    Unused,
    Weights,
    Word,
)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """a · b along the last dimension."""
    return (a * b).sum(-1)


def _softmax_backward(weights: Tensor, d_weights: Tensor) -> Tensor:
    """c = softmax(z): d z = c ∘ (d c − c · d c)."""
    return weights * (d_weights - _dot(weights, d_weights).unsqueeze(-1))


def _zeros_like(x: Tensor | Unused) -> Any:
    """The gradient of what has none, of the same kind."""
    return torch.zeros_like(x) if isinstance(x, Tensor) else UNUSED


def read_words_backward(
    memory: Memory, read_weights: HeadWeights, d_read_words: HeadWords
) -> tuple[Memory, HeadWeights]:
    """r = w^r M: d M[i] = Σ_heads w^r[i] d r, d w^r[i] = M[i] · d r."""
    return read_weights.mT @ d_read_words, d_read_words @ memory.mT


def read_weights_backward(
    backward: HeadWeights,
    content: HeadWeights,
    forward: HeadWeights,
    read_modes: ReadModes,
    d_read_weights: HeadWeights,
) -> tuple[HeadWeights, HeadWeights, HeadWeights, ReadModes]:
    """w^r = π_b b + π_c c + π_f f: d b = π_b d w^r, d π_b = b · d w^r, and so on."""
    d_read_modes = torch.zeros_like(read_modes)
    d_read_modes[..., BACKWARD] = _dot(backward, d_read_weights)
    d_read_modes[..., CONTENT] = _dot(content, d_read_weights)
    d_read_modes[..., FORWARD] = _dot(forward, d_read_weights)
    modes = read_modes.unsqueeze(-1).unbind(-2)
    return (
        modes[BACKWARD] * d_read_weights,
        modes[CONTENT] * d_read_weights,
        modes[FORWARD] * d_read_weights,
        d_read_modes,
    )


def content_weights_backward(
    memory: Memory,
    keys: Tensor,
    strengths: Tensor,
    written: Weights | Unused,
    masks: Tensor | Unused,
    d_content: Tensor,
) -> tuple[Memory, Tensor, Tensor, Any, Any]:
    """c = softmax(z), z[i] = β y[i] / (|k ∘ m| |M[i] ∘ m|), y[i] = (k ∘ m) · (M[i] ∘ m), |x| = sqrt(x · x + ε).

    With d y[i] = β d z[i] / (|k ∘ m| |M[i] ∘ m|), l[i] = d y[i] y[i] / |M[i] ∘ m|², q = Σ_i d y[i] y[i] / |k ∘ m|²,
    and |x| having the gradient x / |x|:
    d M[i] = Σ_heads m² ∘ (d y[i] k − l[i] M[i]), d k = m² ∘ (Σ_i d y[i] M[i] − q k),
    d m = m ∘ (2 k ∘ Σ_i d y[i] M[i] − q k² − Σ_i l[i] M[i]²), d β = Σ_i d z[i] y[i] / (|k ∘ m| |M[i] ∘ m|).
    Without masks m is 1 everywhere. A slot that is passed over has the weight 0, and so d z[i] = 0: nothing comes from
    it, and what was written has a gradient of zeros.
    """
    if keys.dim() == memory.dim() - 1:
        one_mask = masks.unsqueeze(-2) if isinstance(masks, Tensor) else masks
        one_head = keys.unsqueeze(-2), strengths.unsqueeze(-1), written, one_mask, d_content.unsqueeze(-2)
        d_memory, d_keys, d_strengths, d_written, d_masks = content_weights_backward(memory, *one_head)
        d_mask = d_masks.squeeze(-2) if isinstance(d_masks, Tensor) else d_masks
        return d_memory, d_keys.squeeze(-2), d_strengths.squeeze(-1), d_written, d_mask
    d_z = _softmax_backward(ops.content_weights(memory, keys, strengths, written, masks), d_content)
    m = masks if isinstance(masks, Tensor) else torch.ones_like(keys)
    squares = m * m
    y = (keys * squares) @ memory.mT
    of_key = ((keys * m).square().sum(-1, keepdim=True) + COSINE_EPSILON).sqrt()
    of_slot = (squares @ memory.square().mT + COSINE_EPSILON).sqrt()
    d_y = strengths.unsqueeze(-1) * d_z / (of_key * of_slot)
    along, l, q = d_y @ memory, d_y * y / of_slot.square(), _dot(d_y, y).unsqueeze(-1) / of_key.square()
    d_keys = squares * (along - q * keys)
    d_memory = d_y.mT @ (keys * squares) - memory * (l.mT @ squares)
    d_masks = m * (keys * (2 * along - q * keys) - l @ memory.square())
    d_strengths = _dot(d_z, y / (of_key * of_slot))
    return d_memory, d_keys, d_strengths, _zeros_like(written), d_masks if isinstance(masks, Tensor) else UNUSED


def directional_weights_backward(
    link: Link, read_weights_prev: HeadWeights, d_forward: HeadWeights, d_backward: HeadWeights
) -> tuple[Link, HeadWeights]:
    """f = L w^r_{t−1}, b = Lᵀ w^r_{t−1}.

    d L[i, j] = Σ_heads (d f[i] w^r_{t−1}[j] + w^r_{t−1}[i] d b[j]), d w^r_{t−1} = Lᵀ d f + L d b.
    With d f = π_f d w^r and d b = π_b d w^r this is π_f A + π_b B of README.md.
    """
    d_link = d_forward.mT @ read_weights_prev + read_weights_prev.mT @ d_backward
    return d_link, d_forward @ link + d_backward @ link.mT


def link_backward(
    link_prev: Link, precedence_prev: Weights, write_weights: Weights, d_link: Link
) -> tuple[Link, Weights, Weights]:
    """L[i, j] = (1 − w[i] − w[j]) L_{t−1}[i, j] + w[i] p_{t−1}[j], L[i, i] = 0.

    On the diagonal d L counts as 0. Then d L_{t−1}[i, j] = (1 − w[i] − w[j]) d L[i, j],
    d p_{t−1}[j] = Σ_i d L[i, j] w[i], and w has its part as w[i] and its part as w[j]:
    d w[i] = Σ_j d L[i, j] (p_{t−1}[j] − L_{t−1}[i, j]) − Σ_j d L[j, i] L_{t−1}[j, i].
    """
    d_link = d_link * (1 - torch.eye(d_link.shape[-1], dtype=d_link.dtype, device=d_link.device))
    after, before = write_weights.unsqueeze(-1), write_weights.unsqueeze(-2)
    d_after = _dot(d_link, precedence_prev.unsqueeze(-2) - link_prev)
    d_before = -(d_link * link_prev).sum(-2)
    return (1 - after - before) * d_link, (d_link * after).sum(-2), d_after + d_before


def precedence_backward(
    precedence_prev: Weights, write_weights: Weights, d_precedence: Weights
) -> tuple[Weights, Weights]:
    """p = (1 − Σ w) p_{t−1} + w: d p_{t−1} = (1 − Σ w) d p, d w = d p − d p · p_{t−1}."""
    d_precedence_prev = (1 - write_weights.sum(-1, keepdim=True)) * d_precedence
    return d_precedence_prev, d_precedence - _dot(d_precedence, precedence_prev).unsqueeze(-1)


def deallocate_backward(memory_prev: Memory, retention: Weights, d_held: Memory) -> tuple[Memory, Weights]:
    """M_{t−1} ∘ ψ 1ᵀ: d M_{t−1} = d_held ∘ ψ 1ᵀ, d ψ[i] = d_held[i] · M_{t−1}[i]."""
    return d_held * retention.unsqueeze(-1), _dot(d_held, memory_prev)


def erase_and_write_backward(
    memory_prev: Memory, write_weights: Weights, erase: Word, write_vector: Word, d_memory: Memory
) -> tuple[Memory, Weights, Word, Word]:
    """M = M_{t−1} ∘ (1 − w eᵀ) + w vᵀ.

    d M_{t−1} = d M ∘ (1 − w eᵀ), d w[i] = Σ_k d M[i, k] (v[k] − M_{t−1}[i, k] e[k]),
    d e[k] = −Σ_i d M[i, k] M_{t−1}[i, k] w[i], d v = Σ_i w[i] d M[i].
    """
    where, erase, write_vector = write_weights.unsqueeze(-1), erase.unsqueeze(-2), write_vector.unsqueeze(-2)
    d_memory_prev = d_memory * (1 - where * erase)
    d_write_weights = _dot(d_memory, write_vector - memory_prev * erase)
    return d_memory_prev, d_write_weights, -(d_memory * memory_prev * where).sum(-2), (where * d_memory).sum(-2)


def write_weights_backward(
    content: Weights, allocation: Weights, alloc_gate: Scalars, write_gate: Scalars, d_write_weights: Weights
) -> tuple[Weights, Weights, Scalars, Scalars]:
    """w = g^w (g^a a + (1 − g^a) c).

    d c = g^w (1 − g^a) d w, d a = g^w g^a d w,
    d g^a = g^w (d w · a − d w · c), d g^w = g^a d w · a + (1 − g^a) d w · c.
    """
    along_allocation, along_content = _dot(d_write_weights, allocation), _dot(d_write_weights, content)
    return (
        (write_gate * (1 - alloc_gate)).unsqueeze(-1) * d_write_weights,
        (write_gate * alloc_gate).unsqueeze(-1) * d_write_weights,
        write_gate * (along_allocation - along_content),
        alloc_gate * along_allocation + (1 - alloc_gate) * along_content,
    )


def allocation_weights_backward(usage: Weights, exists: Weights | Unused, d_allocation: Weights) -> Weights:
    """a_j = (1 − u_j) P_j along the free list, P_j = Π_{i<j} u_i: u_j has its part in a_j and in all that follow.

    d u_j = P_j (S_j − d a_j), S_j = Σ_{k>j} d a_k (1 − u_k) Π_{j<i<k} u_i, which is a recurrence from the last slot,
    where it is 0: S_j = d a_{j+1} (1 − u_{j+1}) + u_{j+1} S_{j+1}. The order itself has no gradient.
    """
    if isinstance(exists, Tensor):
        # Of no slot that is not there does anything depend: as if it were used, its gradient thrown away.
        d_usage = allocation_weights_backward(usage.masked_fill(exists == 0, 1), UNUSED, d_allocation)
        return d_usage.masked_fill(exists == 0, 0)
    ascending, free_list = torch.sort(usage, dim=-1, stable=True)
    d_allocation = d_allocation.gather(-1, free_list)
    used_before = torch.cat([torch.ones_like(ascending[..., :1]), ascending.cumprod(-1)[..., :-1]], -1)
    later = [torch.zeros_like(ascending[..., 0])]
    for j in range(usage.shape[-1] - 1, 0, -1):
        u, d_a = ascending[..., j], d_allocation[..., j]
        later.append(d_a * (1 - u) + u * later[-1])
    d_ascending = used_before * (torch.stack(later[::-1], -1) - d_allocation)
    return torch.zeros_like(usage).scatter(-1, free_list, d_ascending)


def usage_backward(
    usage_prev: Weights, write_weights_prev: Weights, retention: Weights, d_usage: Weights
) -> tuple[Weights, Weights, Weights]:
    """u = (1 − (1 − u_{t−1})(1 − w_{t−1})) ψ.

    d u_{t−1} = ψ d u (1 − w_{t−1}), d w_{t−1} = ψ d u (1 − u_{t−1}), d ψ = d u (1 − (1 − u_{t−1})(1 − w_{t−1})).
    """
    unused, unwritten = 1 - usage_prev, 1 - write_weights_prev
    through = retention * d_usage
    return through * unwritten, through * unused, d_usage * (1 - unused * unwritten)


def retention_backward(
    free_gates: HeadScalars, read_weights_prev: HeadWeights, d_retention: Weights
) -> tuple[HeadScalars, HeadWeights]:
    """ψ = Π_r (1 − f^r w^r_{t−1}).

    With O^r = Π_{q≠r} (1 − f^q w^q_{t−1}), the product of the other heads' factors:
    d f^r = −Σ_i d ψ[i] O^r[i] w^r_{t−1}[i], d w^r_{t−1} = −f^r d ψ ∘ O^r.
    """
    gates = free_gates.unsqueeze(-1)
    kept = 1 - gates * read_weights_prev
    own = torch.eye(kept.shape[-2], dtype=torch.bool, device=kept.device).unsqueeze(-1)
    others = kept.unsqueeze(-3).masked_fill(own, 1).prod(-2)
    through = d_retention.unsqueeze(-2) * others
    return -_dot(through, read_weights_prev), -gates * through


def _sigmoid_backward(gate: Tensor, d_gate: Tensor) -> Tensor:
    """g = 1 / (1 + e^−x): d x = d g g (1 − g)."""
    return d_gate * gate * (1 - gate)


def _oneplus_backward(strength: Tensor, d_strength: Tensor) -> Tensor:
    """s = 1 + log(1 + eˣ): d x = d s eˣ / (1 + eˣ) = d s (1 − e^{1−s})."""
    return d_strength * -torch.expm1(1 - strength)


def _mask_backward(mask: Tensor, d_mask: Tensor, floor: float) -> Tensor:
    """m = floor + (1 − floor) g, g = 1 / (1 + e^−x): d x = d m (1 − floor) g (1 − g)."""
    return (1 - floor) * _sigmoid_backward((mask - floor) / (1 - floor), d_mask)


def refuse_underived(options: MemoryOptions) -> None:
    """Raises ValueError for options whose gradient is not derived here."""
    if lacked := lacking(options):
        raise ValueError(f"there is no derivation for these options, as of the fused engine {lacked}")


def split_interface_backward(interface: Interface, d_interface: Interface, options: MemoryOptions = PAPER) -> Tensor:
    """The gradient of the interface vector, from the squashed parts alone and the gradients of these."""
    refuse_underived(options)
    xi, d_xi = interface, d_interface
    parts = [
        d_xi.read_keys.flatten(-2),
        _oneplus_backward(xi.read_strengths, d_xi.read_strengths),
        d_xi.write_key,
        _oneplus_backward(xi.write_strength, d_xi.write_strength).unsqueeze(-1),
        _sigmoid_backward(xi.erase, d_xi.erase),
        d_xi.write_vector,
        _sigmoid_backward(xi.free_gates, d_xi.free_gates),
        _sigmoid_backward(xi.alloc_gate, d_xi.alloc_gate).unsqueeze(-1),
        _sigmoid_backward(xi.write_gate, d_xi.write_gate).unsqueeze(-1),
    ]
    if options.links != "none":
        parts.append(_softmax_backward(xi.read_modes, d_xi.read_modes).flatten(-2))
    if options.masking:
        parts.append(_mask_backward(xi.read_masks, d_xi.read_masks, options.mask_floor).flatten(-2))
        parts.append(_mask_backward(xi.write_mask, d_xi.write_mask, options.mask_floor))
    return torch.cat(parts, -1)
