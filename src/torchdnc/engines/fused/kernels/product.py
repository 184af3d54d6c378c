"""Products of a few rows with a weight: what a step of a recurrent network is made of.

A BLAS is at its best with large products; here there are T small ones, each waiting for the one before, and calling it
from Python would cost as much as the product. The weight [outputs, columns] is used as it lies, there and back:
forward its rows are multiplied into sums, backward they are added up.

As many sums are formed at a time as there are registers for, with what they are formed of. In what shape changes no
bit: every sum is formed in the same order.
"""

from typing import Any, NamedTuple

from numba import njit

from torchdnc.engines.fused.kernels.blocks import (
    add_outer,
    add_sums,
    load_block,
    repeat,
    spread_rows,
    store_block,
)
from torchdnc.engines.fused.kernels.options import BODY, EXACT
from torchdnc.engines.fused.kernels.simd import REGISTERS, VECTOR_BYTES, fma, lanes, like, load, sum_lanes_of_four

# Bytes of a weight that backward uses for all rows before it goes on: they stay in the cache next to the core.
AT_HAND = 16384


class Products(NamedTuple):
    """The two products."""

    add_product: Any
    add_product_back: Any


def products(registers: int) -> Products:
    """The products for so many vector registers, 16 or 32."""
    # Forward rows × 4 sums, rows of x and 4 rows of the weight; backward 4 × vectors sums and a row of each.
    rows_at_once, vectors = (4, 4) if registers >= 32 else (2, 2)
    some_by_four, one_by_four = _by_four(rows_at_once), _by_four(1)
    four_back, one_back = _back(4, vectors), _back(1, 4)
    outputs_at_hand = AT_HAND // (vectors * VECTOR_BYTES)

    @njit(**EXACT)
    def add_product(out, out_step, x, x_step, weight, step, rows, columns, outputs):
        """out += x · weightᵀ, [rows, outputs] += [rows, columns] · [outputs, columns]ᵀ.

        out_step, x_step, step: numbers from one row to the next of out, x and weight, which need to be given from
        their first row on only: rows are reached by their distance, never by slicing, which would stop at the array's
        end.
        """
        whole = rows - rows % rows_at_once
        for c in range(0, outputs - outputs % 4, 4):
            w = c * step
            for row in range(0, whole, rows_at_once):
                some_by_four(out, row * out_step + c, out_step, x, row * x_step, x_step, weight, w, step, columns)
            for row in range(whole, rows):
                one_by_four(out, row * out_step + c, out_step, x, row * x_step, x_step, weight, w, step, columns)
        for c in range(outputs - outputs % 4, outputs):
            for row in range(rows):
                _one_by_one(out, row * out_step + c, x, row * x_step, weight, c * step, columns)

    @njit(**EXACT)
    def add_product_back(out, out_step, d, d_step, weight, step, rows, outputs, columns):
        """out += d · weight, [rows, columns] += [rows, outputs] · [outputs, columns]; as `add_product`."""
        whole = rows - rows % 4
        for first in range(0, outputs, outputs_at_hand):
            count = min(outputs_at_hand, outputs - first)
            w = first * step
            if whole > 0:
                four_back(out, 0, out_step, d, first, d_step, weight, w, step, whole, count, columns)
            if whole < rows:
                one_back(
                    out, whole * out_step, out_step, d, whole * d_step + first, d_step, weight, w, step, rows - whole,
                    count, columns,
                )  # fmt: skip

    return Products(add_product, add_product_back)


def _by_four(rows: int) -> Any:
    """So many rows of x with four of the weight."""
    sums_at_once = 4 * rows

    @njit(**EXACT)
    def by_four(out, o, o_step, x, i, i_step, weight, w, w_step, columns):
        sums, L = repeat(like(x, 0), sums_at_once), lanes(x)
        whole = columns - columns % L
        for k in range(0, whole, L):
            xs, ys = load_block(x, i + k, i_step, L, rows, 1), load_block(weight, w + k, w_step, L, 4, 1)
            sums = add_outer(sums, xs, ys)
        if whole < columns:
            n = columns - whole
            xs, ys = load_block(x, i + whole, i_step, n, rows, 1), load_block(weight, w + whole, w_step, n, 4, 1)
            sums = add_outer(sums, xs, ys)
        add_sums(out, o, o_step, sums)

    return by_four


@njit(**EXACT)
def _one_by_one(out, o, x, i, weight, w, columns):
    """One row of x with one of the weight."""
    a = like(x, 0)
    for k in range(0, columns, lanes(x)):
        a = fma(load(x, i + k, columns - k), load(weight, w + k, columns - k), a)
    # In the order of the others: two equal rows of the weight have equal products, and ties stay ties.
    out[o] += sum_lanes_of_four(a, a, a, a)[0]


def _back(rows_at_once: int, vectors: int) -> Any:
    """So many rows of d, and so many vectors of columns, at a time: for rows of which there is a whole number."""

    @njit(**BODY)
    def back_at(out, o, o_step, d, i, i_step, weight, w, w_step, outputs, n):
        sums = load_block(out, o, o_step, n, rows_at_once, vectors)
        for k in range(outputs):
            xs, ys = spread_rows(d, i + k, i_step, rows_at_once), load_block(weight, w + k * w_step, 0, n, 1, vectors)
            sums = add_outer(sums, xs, ys)
        store_block(out, o, o_step, sums, n, rows_at_once, vectors)

    @njit(**EXACT)
    def back(out, o, o_step, d, i, i_step, weight, w, w_step, rows, outputs, columns):
        block = vectors * lanes(out)
        for column in range(0, columns, block):
            for row in range(0, rows, rows_at_once):
                at, of = o + row * o_step + column, i + row * i_step
                # A whole block of columns says so, for the compiler to do without masks.
                if column + block <= columns:
                    back_at(out, at, o_step, d, of, i_step, weight, w + column, w_step, outputs, block)
                else:
                    back_at(out, at, o_step, d, of, i_step, weight, w + column, w_step, outputs, columns - column)

    return back


add_product, add_product_back = products(REGISTERS)
