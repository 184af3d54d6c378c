"""Products of a few rows with a weight: what a step of a recurrent network is made of.

A BLAS is at its best with large products; here there are T small ones, each waiting for the one before, and calling it
from Python would cost as much as the product. The weight [outputs, columns] is used as it lies, there and back:
forward its rows are multiplied into sums, backward they are added up.
"""

from numba import njit

from torchdnc.engines.fused.kernels.options import BODY, EXACT
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
    block = 4 * lanes(out)
    for column in range(0, columns, block):
        # A whole block of columns says so, for the compiler to do without masks.
        for row in range(0, rows - rows % 4, 4):
            o, i = row * out_step + column, row * d_step
            if column + block <= columns:
                _four_back(out, o, out_step, d, i, d_step, outputs, weight, column, step, block)
            else:
                _four_back(out, o, out_step, d, i, d_step, outputs, weight, column, step, columns - column)
        for row in range(rows - rows % 4, rows):
            o, i = row * out_step + column, row * d_step
            if column + block <= columns:
                _one_back(out, o, d, i, outputs, weight, column, step, block)
            else:
                _one_back(out, o, d, i, outputs, weight, column, step, columns - column)


@njit(**BODY)
def _four_by_four_at(k, n, x, i, i_step, weight, w, w_step, a, b, c, d):
    """A vector of each of the four rows and of the four of the weight, into the sums of four rows with each."""
    x0, x1 = load(x, i + k, n), load(x, i + i_step + k, n)
    x2, x3 = load(x, i + 2 * i_step + k, n), load(x, i + 3 * i_step + k, n)
    y0, y1 = load(weight, w + k, n), load(weight, w + w_step + k, n)
    y2, y3 = load(weight, w + 2 * w_step + k, n), load(weight, w + 3 * w_step + k, n)
    return (
        (fma(x0, y0, a[0]), fma(x0, y1, a[1]), fma(x0, y2, a[2]), fma(x0, y3, a[3])),
        (fma(x1, y0, b[0]), fma(x1, y1, b[1]), fma(x1, y2, b[2]), fma(x1, y3, b[3])),
        (fma(x2, y0, c[0]), fma(x2, y1, c[1]), fma(x2, y2, c[2]), fma(x2, y3, c[3])),
        (fma(x3, y0, d[0]), fma(x3, y1, d[1]), fma(x3, y2, d[2]), fma(x3, y3, d[3])),
    )


@njit(**EXACT)
def _four_by_four(out, o, o_step, x, i, i_step, weight, w, w_step, columns):
    """Four rows of x with four of the weight."""
    none, L = like(x, 0), lanes(x)
    whole = columns - columns % L
    a = b = c = d = (none, none, none, none)
    for k in range(0, whole, L):
        a, b, c, d = _four_by_four_at(k, L, x, i, i_step, weight, w, w_step, a, b, c, d)
    if whole < columns:
        a, b, c, d = _four_by_four_at(whole, columns - whole, x, i, i_step, weight, w, w_step, a, b, c, d)
    _add_sums(out, o, a)
    _add_sums(out, o + o_step, b)
    _add_sums(out, o + 2 * o_step, c)
    _add_sums(out, o + 3 * o_step, d)


@njit(**BODY)
def _one_by_four_at(k, n, x, i, weight, w, w_step, a):
    x0 = load(x, i + k, n)
    return (
        fma(x0, load(weight, w + k, n), a[0]),
        fma(x0, load(weight, w + w_step + k, n), a[1]),
        fma(x0, load(weight, w + 2 * w_step + k, n), a[2]),
        fma(x0, load(weight, w + 3 * w_step + k, n), a[3]),
    )


@njit(**EXACT)
def _one_by_four(out, o, x, i, weight, w, w_step, columns):
    """One row of x with four of the weight."""
    none, L = like(x, 0), lanes(x)
    whole, a = columns - columns % L, (none, none, none, none)
    for k in range(0, whole, L):
        a = _one_by_four_at(k, L, x, i, weight, w, w_step, a)
    if whole < columns:
        a = _one_by_four_at(whole, columns - whole, x, i, weight, w, w_step, a)
    _add_sums(out, o, a)


@njit(**EXACT)
def _one_by_one(out, o, x, i, weight, w, columns):
    """One row of x with one of the weight."""
    a = like(x, 0)
    for k in range(0, columns, lanes(x)):
        a = fma(load(x, i + k, columns - k), load(weight, w + k, columns - k), a)
    # In the order of the others: two equal rows of the weight have equal products, and ties stay ties.
    out[o] += sum_lanes_of_four(a, a, a, a)[0]


@njit(**EXACT)
def _add_sums(out, o, sums):
    for k, each in enumerate(sum_lanes_of_four(sums[0], sums[1], sums[2], sums[3])):
        out[o + k] += each


@njit(**BODY)
def _load_four(array, at, n):
    """Four vectors that follow each other."""
    L = lanes(array)
    return (
        load(array, at, n),
        load(array, at + L, n - L),
        load(array, at + 2 * L, n - 2 * L),
        load(array, at + 3 * L, n - 3 * L),
    )


@njit(**BODY)
def _store_four(array, at, x, n):
    L = lanes(array)
    store(array, at, x[0], n)
    store(array, at + L, x[1], n - L)
    store(array, at + 2 * L, x[2], n - 2 * L)
    store(array, at + 3 * L, x[3], n - 3 * L)


@njit(**BODY)
def _fma_four(number, x, sums):
    each = spread(number)
    return fma(each, x[0], sums[0]), fma(each, x[1], sums[1]), fma(each, x[2], sums[2]), fma(each, x[3], sums[3])


@njit(**BODY)
def _four_back(out, o, o_step, d, i, i_step, outputs, weight, w, w_step, n):
    """Four vectors of columns, of which n exist, for four rows of d."""
    a, b = _load_four(out, o, n), _load_four(out, o + o_step, n)
    c, e = _load_four(out, o + 2 * o_step, n), _load_four(out, o + 3 * o_step, n)
    for k in range(outputs):
        x = _load_four(weight, w + k * w_step, n)
        a, b = _fma_four(d[i + k], x, a), _fma_four(d[i + i_step + k], x, b)
        c, e = _fma_four(d[i + 2 * i_step + k], x, c), _fma_four(d[i + 3 * i_step + k], x, e)
    _store_four(out, o, a, n)
    _store_four(out, o + o_step, b, n)
    _store_four(out, o + 2 * o_step, c, n)
    _store_four(out, o + 3 * o_step, e, n)


@njit(**BODY)
def _one_back(out, o, d, i, outputs, weight, w, w_step, n):
    """The same for one row of d."""
    a = _load_four(out, o, n)
    for k in range(outputs):
        a = _fma_four(d[i + k], _load_four(weight, w + k * w_step, n), a)
    _store_four(out, o, a, n)
