"""The DNC in eager PyTorch, as one would write it from the paper alone.

It is here to be timed: a yardstick that shares no code with `torchdnc.ops`. Each line is a formula of the paper's
Methods.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchdnc.nn import DNC

EPSILON = 1e-6
"""Within the roots of the cosine, so that an empty slot has one."""


class State(NamedTuple):
    """Memory [B, N, W], usage [B, N], precedence [B, N], link [B, N, N], the weightings, r [B, R, W]; h, c [B, H]."""

    memory: Tensor
    usage: Tensor
    precedence: Tensor
    link: Tensor
    write_weights: Tensor
    read_weights: Tensor
    reads: Tensor
    hidden: Tensor
    cell: Tensor


class EagerDNC(nn.Module):
    """The paper's DNC with one LSTM layer; returns h and the read words, [T, B, H + R·W], and the last state."""

    def __init__(self, input_size: int, hidden_size: int, memory_size: int, word_size: int, read_heads: int) -> None:
        super().__init__()
        self.N, self.W, self.R, self.H = memory_size, word_size, read_heads, hidden_size
        self.cell = nn.LSTMCell(input_size + read_heads * word_size, hidden_size)
        self.interface = nn.Linear(hidden_size, word_size * read_heads + 3 * word_size + 5 * read_heads + 3)

    @classmethod
    def like(cls, model: DNC) -> EagerDNC:
        """The same network as one of this package, with copies of its weights; it must have one LSTM layer."""
        weight, bias = model.controller.layers[0].weight, model.controller.layers[0].bias
        made = cls(model.input_size, model.hidden_size, model.memory_size, model.word_size, model.read_heads)
        made = made.to(weight.dtype)
        width = model.input_size + model.read_heads * model.word_size
        values = {
            "cell.weight_ih": weight[:, :width],
            "cell.weight_hh": weight[:, width:],
            "cell.bias_ih": bias,
            "cell.bias_hh": torch.zeros_like(bias),
            "interface.weight": model.interface.weight,
            "interface.bias": model.interface.bias,
        }
        made.load_state_dict(values)
        return made

    def forward(self, inputs: Tensor) -> tuple[Tensor, State]:
        """Runs a sequence [T, B, I] from a blank state."""
        state = self.blank(inputs)
        outputs = []
        for x in inputs:
            output, state = self.step(x, state)
            outputs.append(output)
        return torch.stack(outputs), state

    def blank(self, inputs: Tensor) -> State:
        """All zeros."""
        B, N, W, R, H = inputs.shape[1], self.N, self.W, self.R, self.H
        shapes = [(N, W), (N,), (N,), (N, N), (N,), (R, N), (R, W), (H,), (H,)]
        return State(*(inputs.new_zeros(B, *shape) for shape in shapes))

    def step(self, x: Tensor, prev: State) -> tuple[Tensor, State]:
        """One time step."""
        W, R = self.W, self.R
        h, c = self.cell(torch.cat([x, prev.reads.flatten(1)], 1), (prev.hidden, prev.cell))
        sizes = [R * W, R, W, 1, W, W, R, 1, 1, 3 * R]
        k_r, beta_r, k_w, beta_w, e, v, f, g_a, g_w, pi = self.interface(h).split(sizes, 1)
        k_r, e, v = k_r.view(-1, R, W), torch.sigmoid(e).unsqueeze(1), v.unsqueeze(1)
        f, g_a, g_w = torch.sigmoid(f).unsqueeze(2), torch.sigmoid(g_a), torch.sigmoid(g_w)
        pi = torch.softmax(pi.view(-1, R, 3), 2).unsqueeze(3)

        psi = (1 - f * prev.read_weights).prod(1)
        usage = (prev.usage + prev.write_weights - prev.usage * prev.write_weights) * psi
        a = allocation(usage)
        c_w = content(prev.memory, k_w.unsqueeze(1), beta_w).squeeze(1)
        w_w = g_w * (g_a * a + (1 - g_a) * c_w)
        memory = prev.memory * (1 - w_w.unsqueeze(2) * e) + w_w.unsqueeze(2) * v

        w_i, w_j = w_w.unsqueeze(2), w_w.unsqueeze(1)
        link = (1 - w_i - w_j) * prev.link + w_i * prev.precedence.unsqueeze(1)
        link = link * (1 - torch.eye(self.N, dtype=link.dtype))
        precedence = (1 - w_w.sum(1, keepdim=True)) * prev.precedence + w_w

        ahead = prev.read_weights @ link.transpose(1, 2)
        back = prev.read_weights @ link
        w_r = pi[:, :, 0] * back + pi[:, :, 1] * content(memory, k_r, beta_r) + pi[:, :, 2] * ahead
        reads = w_r @ memory
        state = State(memory, usage, precedence, link, w_w, w_r, reads, h, c)
        return torch.cat([h, reads.flatten(1)], 1), state


def content(memory: Tensor, keys: Tensor, strengths: Tensor) -> Tensor:
    """C(M, k, β) = softmax(β cos(k, M[i])) over the slots, [B, R, N]; β = oneplus(strengths [B, R])."""
    of_keys = (keys.pow(2).sum(2, keepdim=True) + EPSILON).sqrt()
    of_slots = (memory.pow(2).sum(2) + EPSILON).sqrt().unsqueeze(1)
    cosine = keys @ memory.transpose(1, 2) / (of_keys * of_slots)
    return torch.softmax((1 + F.softplus(strengths)).unsqueeze(2) * cosine, 2)


def allocation(usage: Tensor) -> Tensor:
    """a[φ_j] = (1 − u[φ_j]) Π_{i<j} u[φ_i], φ sorting the usage in ascending order."""
    ascending, order = usage.sort(dim=1, stable=True)
    before = torch.cumprod(torch.cat([torch.ones_like(ascending[:, :1]), ascending[:, :-1]], 1), 1)
    return torch.zeros_like(usage).scatter(1, order, (1 - ascending) * before)
