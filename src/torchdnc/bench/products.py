"""The matrix products of a training step, by themselves."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from torchdnc.bench.sizes import Size
from torchdnc.ops.interface import interface_size


class Product(NamedTuple):
    """[m, k] by [k, n], so many times in a row.

    stage: products of one stage take turns; turned: the operand that lies in memory the other way round, as a layer's
    weight [outputs, inputs] does for its forward product.
    """

    name: str
    stage: Literal["before", "forward", "backward", "after"]
    m: int
    k: int
    n: int
    times: int
    turned: Literal["left", "right", "neither"]

    @property
    def operations(self) -> int:
        """Floating point operations of all of them."""
        return 2 * self.m * self.k * self.n * self.times


def products_of(size: Size) -> list[Product]:
    """Those that training a DNC with one LSTM layer cannot do without, over a whole sequence.

    The inputs' share of the gates is one product before the loop, the gradients of the weights are one each after it;
    in the loop there are two forward and two back. The inputs ask for no gradient.
    """
    T, B, I, H = size.T, size.B, size.I, size.H
    recurrent, interface = size.R * size.W + H, interface_size(size.W, size.R)
    return [
        Product("gates of inputs", "before", T * B, I, 4 * H, 1, "right"),
        Product("gates of reads and h", "forward", B, recurrent, 4 * H, T, "right"),
        Product("interface", "forward", B, H, interface, T, "right"),
        Product("gradient of h", "backward", B, interface, H, T, "neither"),
        Product("gradient of reads and h before", "backward", B, 4 * H, recurrent, T, "neither"),
        Product("gradient of the controller", "after", 4 * H, T * B, I + recurrent, 1, "left"),
        Product("gradient of the interface", "after", interface, T * B, H, 1, "left"),
    ]


class Products:
    """Products over matrices of their own: calling it does all of them once, in the order of a training step.

    Args:
        products: what is multiplied.
        threads: of PyTorch meanwhile.
    """

    def __init__(self, products: Sequence[Product], threads: int) -> None:
        self.threads = threads
        stages = itertools.groupby(products, key=lambda product: product.stage)
        self.stages = [[(_operands(product), product.times) for product in stage] for _, stage in stages]

    def __call__(self) -> None:
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        self._multiply()
        torch.set_num_threads(before)

    def _multiply(self) -> None:
        for stage in self.stages:
            (_, times), *_ = stage
            for _ in range(times):
                for (left, right, out), _ in stage:
                    torch.mm(left, right, out=out)


def _operands(product: Product) -> tuple[Tensor, Tensor, Tensor]:
    m, k, n = product.m, product.k, product.n
    left = torch.randn(k, m).t() if product.turned == "left" else torch.randn(m, k)
    right = torch.randn(n, k).t() if product.turned == "right" else torch.randn(k, n)
    return left, right, torch.empty(m, n)
