"""Blocks of vectors, p rows of q, as tuples: what products, and the gradients of links and slots, have at hand.

p and q are constants where a kernel is compiled.

    load_block(a, at, step, n, p, q)      p rows, `step` apart, each of q vectors, of which n numbers exist
    store_block(a, at, step, x, n, p, q)  the same to an array
    spread_rows(a, at, step, p)           the numbers a[at], a[at + step], ..., each in every lane
    add_outer(sums, xs, ys)               sums[p, q] + xs[p] ys[q]
    add_sums(out, at, step, sums)         out[at + p step + q] += the sum over the lanes of sums[p, q], for q < 4
    repeat(x, count)                      the same vector `count` times
"""

import itertools
from collections.abc import Iterator
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import extending, types
from numba.core import cgutils

from torchdnc.engines.fused.kernels.simd import (
    Vector,
    call_llvm,
    intrinsic,
    load_lanes,
    pointer_to,
    spread_lanes,
    store_lanes,
    sum_four,
)

literal_intrinsic: Any = extending.intrinsic(prefer_literal=True)
"""With constants known as such."""


def _block(builder: Any, kind: Vector, at: Any, step: Any, n: Any, rows: int, vectors: int) -> Iterator[Any]:
    """Where the vectors of a block lie, and how many of the numbers from there on exist."""
    for _ in range(rows):
        for q in range(vectors):
            behind = ir.Constant(at.type, q * kind.lanes)
            yield builder.add(at, behind), builder.sub(n, behind)
        at = builder.add(at, step)


@literal_intrinsic
def load_block(typing: Any, a: Any, at: Any, step: Any, n: Any, p: Any, q: Any) -> Any:
    """p rows, `step` apart, each of q vectors that follow each other, of which the first n numbers are read."""
    kind = Vector(a.dtype)
    rows, vectors = p.literal_value, q.literal_value

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        array, at, step, n = values[:4]
        block = [
            load_lanes(context, builder, kind, pointer_to(context, builder, signature.args[0], array, place), exist)
            for place, exist in _block(builder, kind, at, step, n, rows, vectors)
        ]
        return context.make_tuple(builder, signature.return_type, block)

    return types.UniTuple(kind, rows * vectors)(a, types.intp, types.intp, types.intp, p, q), generate


@literal_intrinsic
def store_block(typing: Any, a: Any, at: Any, step: Any, x: Any, n: Any, p: Any, q: Any) -> Any:
    """The inverse of `load_block`."""
    rows, vectors = p.literal_value, q.literal_value

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        array, at, step, block, n = values[:5]
        places = _block(builder, x.dtype, at, step, n, rows, vectors)
        for vector, (place, exist) in zip(cgutils.unpack_tuple(builder, block), places, strict=True):
            store_lanes(builder, x.dtype, pointer_to(context, builder, signature.args[0], array, place), vector, exist)
        return context.get_dummy_value()

    return types.void(a, types.intp, types.intp, x, types.intp, p, q), generate


@literal_intrinsic
def spread_rows(typing: Any, a: Any, at: Any, step: Any, p: Any) -> Any:
    """The numbers a[at], a[at + step], ..., each in every lane of one of p vectors."""
    kind, rows = Vector(a.dtype), p.literal_value

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        array, at, step = values[:3]
        spreads = []
        for _ in range(rows):
            number = builder.load(pointer_to(context, builder, signature.args[0], array, at))
            spreads.append(spread_lanes(builder, number, kind.lanes))
            at = builder.add(at, step)
        return context.make_tuple(builder, signature.return_type, spreads)

    return types.UniTuple(kind, rows)(a, types.intp, types.intp, p), generate


@literal_intrinsic
def repeat(typing: Any, x: Any, count: Any) -> Any:
    """The same vector `count` times."""
    times = count.literal_value

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return context.make_tuple(builder, signature.return_type, values[:1] * times)

    return types.UniTuple(x, times)(x, count), generate


@intrinsic
def add_outer(typing: Any, sums: Any, xs: Any, ys: Any) -> Any:
    """sums[p, q] + xs[p] ys[q], each rounded once."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        before, left, right = (cgutils.unpack_tuple(builder, value) for value in values)
        pairs = zip(itertools.product(left, right), before, strict=True)
        after = [call_llvm(builder, f"llvm.fma.{xs.dtype.suffix}", x.type, [x, y, each]) for (x, y), each in pairs]
        return context.make_tuple(builder, sums, after)

    return sums(sums, xs, ys), generate


@intrinsic
def add_sums(typing: Any, out: Any, at: Any, step: Any, sums: Any) -> Any:
    """out[at + p step + q] += the sum over the lanes of sums[p, q], for q < 4."""
    kind = sums.dtype

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        array, at, step, packed = values
        vectors = cgutils.unpack_tuple(builder, packed)
        four, size = ir.VectorType(context.get_value_type(kind.dtype), 4), kind.dtype.bitwidth // 8
        for first in range(0, len(vectors), 4):
            pointer = pointer_to(context, builder, signature.args[0], array, at)
            place = builder.bitcast(pointer, four.as_pointer())
            added = builder.fadd(
                builder.load(place, align=size), sum_four(builder, vectors[first : first + 4], kind.lanes)
            )
            builder.store(added, place, align=size)
            at = builder.add(at, step)
        return context.get_dummy_value()

    return types.void(out, types.intp, types.intp, sums), generate
