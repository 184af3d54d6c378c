"""Every part, at sizes that take no time: what it calls, what it computes of the times, what it tells."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from torchdnc.bench import Plan, describe, figure, limit, links, products, run, save, scaling, sizes, steps
from torchdnc.bench.sizes import Size
from torchdnc.bench.timing import Rounds

TINY = Size(B=2, T=3, I=3, H=4, N=6, W=5, R=2)


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (steps, limit, scaling):
        monkeypatch.setattr(module, "SIZES", dict.fromkeys(sizes.SIZES, TINY), raising=False)
    monkeypatch.setattr(scaling, "BASE", TINY)
    monkeypatch.setattr(scaling, "SWEEPS", {"N": (2, 4, 8), "T": (2, 6)})
    monkeypatch.setattr("torchdnc.bench.timing.MOST", 1)


def measured(name: str) -> dict[str, Any]:
    told: list[str] = []
    record = run(name, Plan(rounds=2, threads=1), told.append)
    assert told
    assert record["rounds"] == 2
    return record


def cells(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|") and "--" not in line]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_steps() -> None:
    record = measured("steps")
    rows = record["found"]["rows"]
    assert [(row["size"], row["call"]) for row in rows] == [(s, c) for s in sizes.SIZES for c in ("train", "forward")]
    assert all(set(row["milliseconds"]) == set(steps.MODELS) for row in rows)
    head, first, *_ = cells(describe(record))
    told = dict(zip(head, first, strict=True))
    gain = rows[0]["ratios"]["reference / fused"]["median"]
    assert float(told["reference / fused"].split()[0]) == pytest.approx(gain, rel=6e-3)
    assert told["goal / bound"] == "15 / 10"
    assert told["reached"] == ("goal" if gain >= 15 else "bound" if gain >= 10 else "missed")


def test_milliseconds_are_per_time_step(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = {"eager": 9.0, "reference": 6.0, "fused": 3.0, "nn.LSTM": 0.3}
    monkeypatch.setattr(steps, "interleaved", lambda calls, rounds: Rounds([{name: taken[name] for name in calls}]))
    row = measured("steps")["found"]["rows"][0]
    assert row["milliseconds"] == {name: pytest.approx(1e3 * value / TINY.T) for name, value in taken.items()}
    assert row["ratios"]["reference / fused"]["median"] == 2
    assert row["ratios"]["eager / reference"]["median"] == 1.5
    assert row["ratios"]["fused / nn.LSTM"]["median"] == pytest.approx(10)


def test_the_models_that_are_timed_are_one_network() -> None:
    models = steps.models(TINY)
    inputs = sizes.sequence(TINY)
    outputs = [models[name](inputs)[0] for name in ("eager", "reference", "fused")]
    assert outputs[0].shape == (TINY.T, TINY.B, TINY.H + TINY.R * TINY.W)
    for other in outputs[1:]:
        assert torch.allclose(outputs[0], other, atol=1e-5)
    lstm = models["nn.LSTM"](inputs)[0]
    assert lstm.shape == (TINY.T, TINY.B, TINY.H)
    assert {models[name].engine for name in ("reference", "fused")} == {"reference", "fused"}


class Watched(nn.Module):
    """Notes whether a graph is built."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.graphs = nn.Parameter(torch.ones(())), list[bool]()

    def forward(self, inputs: Tensor) -> tuple[Tensor, None]:
        output = self.weight * inputs
        self.graphs.append(output.requires_grad)
        return output, None


def test_training_takes_gradients_and_forward_does_not() -> None:
    model, inputs = Watched(), torch.full((2, 2), 3.0)
    sizes.CALLS["forward"](model, inputs)
    gradients = [model.weight.grad]
    for _ in range(2):
        sizes.CALLS["train"](model, inputs)
        gradients.append(model.weight.grad)
    # d mean((w x)²) = 2 x² at w = 1, of one call only.
    assert gradients == [None, 18, 18]
    assert model.graphs == [False, True, True]


def test_scaling() -> None:
    record = measured("scaling")
    sweep = record["found"]["sweeps"]["N"]
    assert sweep["values"] == (2, 4, 8)
    assert all(time > 0 for engine in ("fused", "reference") for time in sweep[engine])
    assert cells(describe(record))[0] == ["N", "2", "4", "8", "slope"]


def test_figure_of_scaling(tmp_path: Any) -> None:
    pytest.importorskip("matplotlib")
    record = measured("scaling")
    assert [path.name for path in save(record, tmp_path)] == ["scaling.json", "scaling.png"]
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_no_old_figure_stays(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scaling.png").write_bytes(b"of other numbers")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "matplotlib is not installed" in (figure.missing() or "")
    save({"part": "scaling", "found": {}}, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["scaling.json"]


def test_what_the_reference_cannot_afford_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    # 4 bytes of 5 arrays of T·B·N·(N + W), with T 3, B 2, W 5: 4 · 5 · 6 · 4 · 9 = 4320 at N = 4.
    monkeypatch.setattr(scaling, "AFFORDABLE", 4320)
    record = measured("scaling")
    sweep = record["found"]["sweeps"]["N"]
    assert [time is None for time in sweep["reference"]] == [False, False, True]
    assert None not in sweep["fused"]
    assert next(row for row in cells(describe(record)) if row[0] == "reference")[3] == "–"


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([3 * value**2 for value in (1, 2, 4, 8)], 2),
        ([5, 5, 4**1.5, 8**1.5], 1.5),
        ([7, 7 * 2**0.5, None, None], 0.5),
        ([7, None, None, None], None),
    ],
)
def test_slope_of_the_upper_half(times: list[float | None], expected: float | None) -> None:
    found = scaling.slope((1, 2, 4, 8), times)
    assert found == (expected if expected is None else pytest.approx(expected))


def test_limit() -> None:
    record = measured("limit")
    for row in record["found"]["rows"]:
        assert sum(row["parts"].values()) == pytest.approx(row["milliseconds"])
        assert row["times_limit"] == pytest.approx(row["milliseconds"] / sum(row["limit"].values()))
    assert cells(describe(record))[0][:6] == ["size", "step", "products", "link", "memory", "overhead"]


def test_parts_of_a_step_whose_cost_is_known() -> None:
    """A step of 3 + p(W) + 0.2 N + 0.05 N² + 0.01 N (W − 1) ms, where the products take p = W/4."""

    def step(N: int, W: int) -> float:
        return 3 + W / 4 + 0.2 * N + 0.05 * N**2 + 0.01 * N * (W - 1)

    N, W = 64, 20
    found = limit.parts(limit.Times(step(N, W), step(N, 1), step(N // 2, 1), step(1, 1), W / 4, 1 / 4))
    # What one slot costs is overhead; the solution through it takes b N + c N² as 0 there.
    assert found == {
        "products": 5,
        "link": pytest.approx(0.05 * N**2, rel=0.01),
        "memory": pytest.approx(0.2 * N + 0.01 * N * (W - 1), rel=0.05),
        "overhead": pytest.approx(3 + 0.25),
    }


def test_products_are_those_of_the_network() -> None:
    """Their operations, against those that PyTorch counts in a training step of the reference; none depends on N."""
    from torch.utils.flop_counter import FlopCounterMode

    size = TINY._replace(N=1)
    model, inputs = sizes.dnc(size, "reference"), sizes.sequence(size)
    with FlopCounterMode(display=False) as counter:
        sizes.train(model, inputs)
    counted: Mapping[Any, int] = counter.get_flop_counts()["Global"]
    layers = sum(count for operation, count in counted.items() if "bmm" not in str(operation))
    own = products.products_of(size)
    # The reference needs no gradient of the blank state, and takes that of the inputs beside that of the reads.
    gates = 2 * size.B * 4 * size.H
    blank, of_inputs = gates * (size.R * size.W + size.H), (size.T - 1) * gates * size.I
    assert layers == sum(product.operations for product in own) - blank + of_inputs


def test_products_are_done_as_often_as_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, int, int]] = []
    threads: list[int] = []
    real = torch.mm

    def mm(left: Tensor, right: Tensor, *, out: Tensor) -> Tensor:
        threads.append(torch.get_num_threads())
        shapes.append((left.shape[0], left.shape[1], right.shape[1]))
        return real(left, right, out=out)

    monkeypatch.setattr(torch, "mm", mm)
    own = products.products_of(TINY)
    before = torch.get_num_threads()
    products.Products(own, before + 1)()
    assert torch.get_num_threads() == before
    assert set(threads) == {before + 1}
    for product in own:
        assert shapes.count((product.m, product.k, product.n)) == product.times
    one, other = [(product.m, product.k, product.n) for product in own if product.stage == "forward"]
    assert [shape for shape in shapes if shape in (one, other)] == [one, other] * TINY.T


def test_products_count_on_the_threads_that_serve_them_best() -> None:
    seconds = {"full": 9.0, "narrow": 6.0, "half": 3.0, "bare": 2.0}
    seconds |= {"products 1": 3.0, "products 2": 4.0, "bare_products 1": 2.0, "bare_products 2": 1.0}
    found = limit._times(TINY, Rounds([seconds]), [1, 2])
    assert found == pytest.approx((3000, 2000, 1000, 2000 / 3, 1000, 1000 / 3))


def test_bytes_of_the_link() -> None:
    # 2 rows of 6 · 6 float32, four times in place and once around.
    assert links.moved(TINY, links.IN_PLACE) == 4 * 288
    assert links.moved(TINY, links.AROUND) == 288
    # A second for all steps: 3 steps, read and written.
    found = links.bandwidths(TINY, Rounds([{"in place": 1.0, "around": 2.0}]))
    assert found == {"in place": 3 * 2 * 288, "around": 3 * 288}
