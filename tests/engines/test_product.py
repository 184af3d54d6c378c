"""Products with a weight, in the shapes for machines of many and of few registers, against NumPy's."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from numba import njit

from torchdnc.engines.fused.kernels.options import ENTRY
from torchdnc.engines.fused.kernels.product import Products, products

DTYPES = [np.float32, np.float64]
REGISTERS = [16, 32]
# Rows, columns of x and outputs; the last has more outputs than backward has at hand.
SIZES = [(1, 1, 1), (2, 7, 3), (3, 16, 4), (4, 33, 5), (5, 64, 17), (6, 100, 31), (9, 20, 66), (2, 3, 700)]


def callable_from_python(kernel: Any) -> Any:
    @njit(**ENTRY)
    def call(out, out_step, x, x_step, weight, step, rows, columns, outputs):
        kernel(out, out_step, x, x_step, weight, step, rows, columns, outputs)

    return call


MADE = {registers: Products(*map(callable_from_python, products(registers))) for registers in REGISTERS}


class Drawn(NamedTuple):
    """x [rows, columns], weight [outputs, columns] and what is added to, behind each of whose rows numbers follow."""

    x: Any
    weight: Any
    out: Any


def draw(rows: int, columns: int, outputs: int, dtype: Any) -> Drawn:
    rng = np.random.default_rng(rows + columns + outputs)
    shapes = (rows, columns + 2), (outputs, columns + 3), (rows, outputs + 1)
    return Drawn(*(rng.uniform(-1, 1, shape).astype(dtype) for shape in shapes))


def multiply(call: Any, drawn: Drawn, columns: int, outputs: int) -> Any:
    """What a product leaves of `out`."""
    steps = (array.shape[1] for array in drawn)
    x_step, step, out_step = steps
    out = drawn.out.copy()
    call(out.ravel(), out_step, drawn.x.ravel(), x_step, drawn.weight.ravel(), step, len(out), columns, outputs)
    return out


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("registers", REGISTERS)
def test_products_are_exact_to_rounding_and_leave_the_rest_alone(
    registers: int, dtype: Any, size: tuple[int, int, int]
) -> None:
    rows, columns, outputs = size
    eps = np.finfo(dtype).eps
    forth = draw(rows, columns, outputs, dtype)
    back = draw(rows, outputs, columns, dtype)._replace(weight=forth.weight)
    x, weight, d = (each.astype(np.longdouble) for each in (forth.x[:, :columns], forth.weight[:, :columns], back.x))
    for call, drawn, product, inner in (
        (MADE[registers].add_product, forth, x @ weight.T, columns),
        (MADE[registers].add_product_back, back, d[:, :outputs] @ weight, outputs),
    ):
        expected = drawn.out.astype(np.longdouble)
        expected[:, :-1] += product
        sizes = (columns, outputs) if drawn is forth else (outputs, columns)
        np.testing.assert_allclose(multiply(call, drawn, *sizes), expected, rtol=0, atol=(2 + inner) * eps)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", Products._fields)
def test_neither_registers_nor_other_rows_change_a_bit(name: str, dtype: Any, size: tuple[int, int, int]) -> None:
    rows, columns, outputs = size
    drawn = draw(rows, columns, outputs, dtype)
    if name == "add_product_back":
        drawn = draw(rows, outputs, columns, dtype)._replace(weight=drawn.weight)
        columns, outputs = outputs, columns
    few, many = (multiply(getattr(MADE[registers], name), drawn, columns, outputs) for registers in REGISTERS)
    assert few.tobytes() == many.tobytes()
    for row in range(rows):
        alone = drawn._replace(x=drawn.x[row : row + 1], out=drawn.out[row : row + 1])
        assert multiply(getattr(MADE[16], name), alone, columns, outputs).tobytes() == few[row].tobytes()
