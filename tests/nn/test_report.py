"""The report of the memory: what every step lost, wrote over and released."""

import re

import pytest
import torch

from tests.conftest import assert_close
from tests.ops.test_overflow import DOUBLE, busy, growing
from torchdnc import MemoryOptions


def test_a_filling_memory_loses_more_and_more():
    model = busy(0, MemoryOptions(), 6)
    report, _ = model.report(torch.randn(30, 2, 5, dtype=DOUBLE))
    assert report.occupancy.shape == (30, 2)
    assert_close(report.free_slots, 6 * (1 - report.occupancy))
    assert (report.lost[:5] < 0.05).all()
    assert (report.lost[20:] > 0.5).all()
    assert (report.evicted == 0).all()
    assert (report.slots == 6).all()
    summary = report.summary()
    assert_close(summary["lost"], report.lost.sum(0))
    assert_close(summary["occupancy"], report.occupancy.max(0).values)


def test_what_is_written_and_what_is_lost_is_what_the_gates_asked_for():
    """Allocation alone: nothing goes to slots that are found, so what was not lost is the write weighting."""
    model = busy(0, MemoryOptions(), 6)
    first = model.read_heads * model.word_size + model.read_heads + 3 * model.word_size + 1 + model.read_heads
    with torch.no_grad():
        model.interface.weight[first : first + 2] = 0
        model.interface.bias[first : first + 2] = torch.tensor([1e3, 0.5], dtype=DOUBLE)
    inputs = torch.randn(30, 2, 5, dtype=DOUBLE)
    report, _ = model.report(inputs)
    written = torch.stack([state.memory.write_weights.sum(-1) for state in model.trace(inputs)[1]])
    assert_close(written + report.lost, torch.sigmoid(torch.tensor(0.5, dtype=DOUBLE)).expand_as(written))


def test_reclaiming_is_seen():
    model = busy(0, MemoryOptions(overflow="reclaim"), 6)
    report, end = model.report(torch.randn(30, 2, 5, dtype=DOUBLE))
    assert report.lost.max() <= 0.5
    assert (report.evicted.sum(0) > 5).all()
    assert end.memory.age.shape == (2, 6)


def test_growth_is_seen_and_an_end_too():
    model = busy(3, growing(32), 2)
    inputs = torch.randn(20, 2, 5, dtype=DOUBLE)
    report, end = model.report(inputs, lengths=torch.tensor([20, 4]))
    alone, alone_end = model.report(inputs[:4, 1])
    assert report.slots[:, 0].tolist() == sorted(report.slots[:, 0].tolist())
    assert report.slots[-1, 0] == end.memory.slots[0] > 8
    for mine, its in zip(report, alone, strict=True):
        assert_close(mine[:4, 1], its)
        assert not mine[4:, 1].any()
    for name, value in report.summary().items():
        assert_close(value[1], alone.summary()[name])
    assert alone_end.memory.slots == end.memory.slots[1]


def test_a_report_is_made_of_a_state_that_is_given():
    model = busy(0, MemoryOptions(), 6)
    inputs = torch.randn(12, 2, 5, dtype=DOUBLE)
    whole, _ = model.report(inputs)
    _, state = model(inputs[:7])
    assert_close(model.report(inputs[7:], state)[0].lost, whole.lost[7:])


def test_a_report_refuses_what_a_call_does():
    with pytest.raises(ValueError, match=re.escape("input must have shape [any, 5], got [3, 4]")):
        busy(0, MemoryOptions(), 6).report(torch.zeros(3, 4, dtype=DOUBLE))
