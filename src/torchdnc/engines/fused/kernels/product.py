"""Products of a few rows with a weight: what a step of a recurrent network is made of.

A BLAS is at its best with large products; here there are T small ones, each waiting for the one before, and calling it
from Python would cost as much as the product. The weight [outputs, columns] is used as it lies, there and back:
forward its rows are multiplied into sums, backward they are added up.
"""

from numba import njit

from torchdnc.engines.fused.kernels.options import EXACT
from torchdnc.engines.fused.kernels.simd import fma, lanes, like, load, spread, store, sum_lanes_of_four


@njit(**EXACT)
def add_product(out, out_step, x, x_step, weight, step, rows, columns, outputs):
    """out += x · weightᵀ, [rows, outputs] += [rows, columns] · [outputs, columns]ᵀ.

    out_step, x_step, step: numbers from one row to the next of out, x and weight, which need to be given from their
    first row on only: rows are reached by their distance, never by slicing, which would stop at the array's end.
    """
    for c in range(0, outputs - outputs % 4, 4):
        w = c * step
        for row in range(0, rows - rows % 4, 4):
            _four_by_four(out, row * out_step + c, out_step, x, row * x_step, x_step, weight, w, step, columns)
        for row in range(rows - rows % 4, rows):
            _one_by_four(out, row * out_step + c, x, row * x_step, weight, w, step, columns)
    for c in range(outputs - outputs % 4, outputs):
        for row in range(rows):
            _one_by_one(out, row * out_step + c, x, row * x_step, weight, c * step, columns)


@njit(**EXACT)
def add_product_back(out, out_step, d, d_step, weight, step, rows, outputs, columns):
    """out += d · weight, [rows, columns] += [rows, outputs] · [outputs, columns]; as `add_product`."""
    for column in range(0, columns, 2 * lanes(out)):
        n = columns - column
        for row in range(0, rows - rows % 4, 4):
            o, i = row * out_step + column, row * d_step
            _four_back(out, o, out_step, d, i, d_step, outputs, weight, column, step, n)
        for row in range(rows - rows % 4, rows):
            _one_back(out, row * out_step + column, d, row * d_step, outputs, weight, column, step, n)


@njit(**EXACT)
def _four_by_four(out, o, o_step, x, i, i_step, weight, w, w_step, columns):
    """Four rows of x with four of the weight."""
    i1, i2, i3 = i + i_step, i + 2 * i_step, i + 3 * i_step
    w1, w2, w3 = w + w_step, w + 2 * w_step, w + 3 * w_step
    a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = c0 = c1 = c2 = c3 = d0 = d1 = d2 = d3 = like(x, 0)
    for k in range(0, columns, lanes(x)):
        n = columns - k
        x0, x1, x2, x3 = load(x, i + k, n), load(x, i1 + k, n), load(x, i2 + k, n), load(x, i3 + k, n)
        y = load(weight, w + k, n)
        a0, b0, c0, d0 = fma(x0, y, a0), fma(x1, y, b0), fma(x2, y, c0), fma(x3, y, d0)
        y = load(weight, w1 + k, n)
        a1, b1, c1, d1 = fma(x0, y, a1), fma(x1, y, b1), fma(x2, y, c1), fma(x3, y, d1)
        y = load(weight, w2 + k, n)
        a2, b2, c2, d2 = fma(x0, y, a2), fma(x1, y, b2), fma(x2, y, c2), fma(x3, y, d2)
        y = load(weight, w3 + k, n)
        a3, b3, c3, d3 = fma(x0, y, a3), fma(x1, y, b3), fma(x2, y, c3), fma(x3, y, d3)
    _add_sums(out, o, a0, a1, a2, a3)
    _add_sums(out, o + o_step, b0, b1, b2, b3)
    _add_sums(out, o + 2 * o_step, c0, c1, c2, c3)
    _add_sums(out, o + 3 * o_step, d0, d1, d2, d3)


@njit(**EXACT)
def _one_by_four(out, o, x, i, weight, w, w_step, columns):
    """One row of x with four of the weight."""
    a0 = a1 = a2 = a3 = like(x, 0)
    for k in range(0, columns, lanes(x)):
        n = columns - k
        x0 = load(x, i + k, n)
        a0, a1 = fma(x0, load(weight, w + k, n), a0), fma(x0, load(weight, w + w_step + k, n), a1)
        a2 = fma(x0, load(weight, w + 2 * w_step + k, n), a2)
        a3 = fma(x0, load(weight, w + 3 * w_step + k, n), a3)
    _add_sums(out, o, a0, a1, a2, a3)


@njit(**EXACT)
def _one_by_one(out, o, x, i, weight, w, columns):
    """One row of x with one of the weight."""
    a = like(x, 0)
    for k in range(0, columns, lanes(x)):
        a = fma(load(x, i + k, columns - k), load(weight, w + k, columns - k), a)
    # In the order of the others: two equal rows of the weight have equal products, and ties stay ties.
    out[o] += sum_lanes_of_four(a, a, a, a)[0]


@njit(**EXACT)
def _add_sums(out, o, a, b, c, d):
    for k, each in enumerate(sum_lanes_of_four(a, b, c, d)):
        out[o + k] += each


@njit(**EXACT)
def _four_back(out, o, o_step, d, i, i_step, outputs, weight, w, w_step, n):
    """Two vectors of columns, of which n exist, for four rows of d."""
    L = lanes(out)
    m = n - L
    o1, o2, o3 = o + o_step, o + 2 * o_step, o + 3 * o_step
    i1, i2, i3 = i + i_step, i + 2 * i_step, i + 3 * i_step
    a0, a1, a2, a3 = load(out, o, n), load(out, o1, n), load(out, o2, n), load(out, o3, n)
    b0, b1, b2, b3 = load(out, o + L, m), load(out, o1 + L, m), load(out, o2 + L, m), load(out, o3 + L, m)
    for k in range(outputs):
        left, right = load(weight, w + k * w_step, n), load(weight, w + k * w_step + L, m)
        d0, d1, d2, d3 = spread(d[i + k]), spread(d[i1 + k]), spread(d[i2 + k]), spread(d[i3 + k])
        a0, a1, a2, a3 = fma(d0, left, a0), fma(d1, left, a1), fma(d2, left, a2), fma(d3, left, a3)
        b0, b1, b2, b3 = fma(d0, right, b0), fma(d1, right, b1), fma(d2, right, b2), fma(d3, right, b3)
    for at, a, b in ((o, a0, b0), (o1, a1, b1), (o2, a2, b2), (o3, a3, b3)):
        store(out, at, a, n)
        store(out, at + L, b, m)


@njit(**EXACT)
def _one_back(out, o, d, i, outputs, weight, w, w_step, n):
    """The same for one row of d."""
    L = lanes(out)
    m = n - L
    a, b = load(out, o, n), load(out, o + L, m)
    for k in range(outputs):
        at, each = w + k * w_step, spread(d[i + k])
        a, b = fma(each, load(weight, at, n), a), fma(each, load(weight, at + L, m), b)
    store(out, o, a, n)
    store(out, o + L, b, m)
