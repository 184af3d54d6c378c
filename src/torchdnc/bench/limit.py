"""Where a training step spends its time, and how far it is from what this machine could do.

The parts come from what can be seen from outside, differences of the step's time t(N, W) between sizes, with p(W) the
time of its matrix products alone (`products`):

    products   p(W)
    overhead   t(1, 1) − p(1)                what is left with one slot of one number: calls, the LSTM's squashing
    memory     (t(N, W) − p(W)) − (t(N, 1) − p(1))  + b N        slots' words, and what is done once for every slot
    link       c N²,    t(N, 1) − t(1, 1) = b N + c N², solved at N and N/2

They sum to t(N, W).

The machine's own limit is the time of the products alone plus that of moving the link's bytes (`links`).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

from torchdnc.bench import links
from torchdnc.bench.plan import Found, Plan, Tell, told
from torchdnc.bench.products import Products, products_of
from torchdnc.bench.sizes import SIZES, Size, dnc, sequence, train
from torchdnc.bench.text import number, prose, table
from torchdnc.bench.timing import Call, Rounds, interleaved

NAMES = ("S", "M")
QUICK_STEPS = 25
PARTS = ("products", "link", "memory", "overhead")

ABOUT = """Milliseconds per time step of training, fused engine. *products* are its matrix products, timed alone in
PyTorch on one thread or all, whichever is faster. The other parts are differences of its time between sizes: *link*
is what grows with the square of the slots, *memory* what grows with slots and word size, *overhead* what is left
with one slot of one number. The machine's limit is the time of the products alone plus that of moving as many bytes
as the link must move, both as fast as measured here. Per step all links of the batch are moved so often (a read and
a write are two): {in_place} at the speed of scaling them in place, {around} at that of copying them around among √T."""


class Times(NamedTuple):
    """Milliseconds per time step: of training at (N, W), (N, 1), (N/2, 1), (1, 1); of the products at W and at 1."""

    full: float
    narrow: float
    half: float
    bare: float
    products: float
    bare_products: float


def measure(plan: Plan, rounds: int, tell: Tell) -> Found:
    """Every size."""
    sizes = {name: SIZES[name]._replace(T=QUICK_STEPS) if plan.quick else SIZES[name] for name in NAMES}
    rows = [_row(name, sizes[name], rounds, plan.threads) for name in told(NAMES, tell)]
    passes = {"in place": links.IN_PLACE, "around": links.AROUND}
    return {"sizes": {name: size._asdict() for name, size in sizes.items()}, "passes": passes, "rows": rows}


def _row(name: str, size: Size, rounds: int, threads: int) -> Found:
    counts = sorted({1, threads})
    timed = interleaved(_calls(size, counts), rounds)
    times = _times(size, timed, counts)
    moved = {"in place": links.moved(size, links.IN_PLACE), "around": links.moved(size, links.AROUND)}
    speed = links.bandwidths(size, timed)
    limit = {"products": times.products, "link": 1e3 * sum(moved[way] / speed[way] for way in moved)}
    return {
        "size": name,
        "milliseconds": times.full,
        "parts": parts(times),
        "limit": limit,
        "times_limit": times.full / sum(limit.values()),
        "times": times._asdict(),
        "link_bytes": moved,
        "link_bandwidth": speed,
        "operations": sum(product.operations for product in products_of(size)) / size.T,
        "products": [product._asdict() for product in products_of(size)],
    }


def _calls(size: Size, counts: list[int]) -> dict[str, Call]:
    """What is timed: training at several sizes, the products on so many threads, the moving of links."""
    bare, narrow = size._replace(N=1, W=1), size._replace(W=1)
    trained = {"full": size, "narrow": narrow, "half": narrow._replace(N=size.N // 2), "bare": bare}
    calls: dict[str, Call] = {
        name: partial(train, dnc(each, "fused"), sequence(each)) for name, each in trained.items()
    }
    for count in counts:
        calls[f"products {count}"] = Products(products_of(size), count)
        calls[f"bare_products {count}"] = Products(products_of(bare), count)
    return calls | links.calls(size)


def _times(size: Size, timed: Rounds, counts: list[int]) -> Times:
    """Medians; of the products on as many threads as serve them best, since small ones are faster on one."""
    seconds = {name: timed.median(name) for name in ("full", "narrow", "half", "bare")}
    for name in ("products", "bare_products"):
        seconds[name] = min(timed.median(f"{name} {count}") for count in counts)
    return Times(**{name: 1e3 * value / size.T for name, value in seconds.items()})


def parts(times: Times) -> dict[str, float]:
    """Milliseconds per step of every part; they are differences, so a small one may come out below 0."""
    both, at_half = times.narrow - times.bare, times.half - times.bare
    # b N + c N² is `both`, and b N/2 + c N²/4 is `at_half`.
    link = 2 * (both - 2 * at_half)
    words = (times.full - times.products) - (times.narrow - times.bare_products)
    return {
        "products": times.products,
        "link": link,
        "memory": words + both - link,
        "overhead": times.bare - times.bare_products,
    }


def lines(found: Found) -> Iterator[str]:
    """What was found, for a reader."""
    passes = found["passes"]
    yield f"{prose(ABOUT.format(in_place=_listed(passes['in place']), around=_listed(passes['around'])))}\n"
    head = ["size", "step", *PARTS, "limit", "of that products", "link", "step / limit"]
    yield table(head, (_cells(row) for row in found["rows"]))
    yield ""
    for row in found["rows"]:
        yield prose(f"- {bound(row)}")


def _listed(passes: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in passes.items())


def _cells(row: Found) -> list[str]:
    limit = row["limit"]
    parts = [row["parts"][part] for part in PARTS]
    ends = [sum(limit.values()), limit["products"], limit["link"], row["times_limit"]]
    return [row["size"], *map(number, [row["milliseconds"], *parts, *ends])]


def bound(row: Found) -> str:
    """What bounds the step, in a sentence or two."""
    largest = max(PARTS, key=lambda part: row["parts"][part])
    share = 100 * row["parts"][largest] / row["milliseconds"]
    speed = number(1e-6 * row["operations"] / row["limit"]["products"])
    moved, bandwidth = row["link_bytes"], row["link_bandwidth"]
    links = (f"{number(1e-6 * moved[way])} MB {way} at {number(1e-9 * bandwidth[way])} GB/s" for way in moved)
    return (
        f"{row['size']}: {largest} is the largest part, {share:.0f} % of the step. "
        f"The products run at {speed} GFLOP/s; the link moves {' and '.join(links)}."
    )
