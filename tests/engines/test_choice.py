"""Which engine runs a call, and what a named one says when it cannot."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from tests.engines.pairs import Case, model, worst
from torchdnc import MemoryOptions, engines
from torchdnc.engines import reference, select

CASE = Case()


def inputs(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(CASE.T, CASE.B, CASE.I, dtype=dtype)


def test_auto_takes_the_fused_engine_on_a_cpu() -> None:
    assert select("auto", model(CASE, "auto"), inputs()) is not reference.run
    assert type(model(CASE, "auto")(inputs())[0].grad_fn).__name__ == "FusedSequenceBackward"
    assert type(model(CASE, "reference")(inputs())[0].grad_fn).__name__ != "FusedSequenceBackward"


def test_torch_func_goes_to_the_reference_and_is_refused_by_name() -> None:
    batch = inputs().unsqueeze(0)
    expected = model(CASE, "reference")(inputs())[0]
    made = model(CASE, "auto")
    torch.testing.assert_close(torch.func.vmap(lambda x: made(x)[0])(batch)[0], expected)
    named = model(CASE, "fused")
    with pytest.raises(ValueError, match=r'engine "fused" cannot run this call: a torch.func transform is active'):
        torch.func.vmap(named)(batch)


@pytest.mark.parametrize(
    ("options", "lacked"),
    [
        ({"links": "detached", "skip_unwritten": True}, "option links='detached'"),
        ({"links": "detached", "sharpness": True}, "options links='detached', sharpness=True"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_option_that_it_lacks_goes_to_the_reference_which_is_said_once(
    options: dict[str, Any], lacked: str, capsys: pytest.CaptureFixture[str]
) -> None:
    engines._say.cache_clear()
    case = replace(CASE, options=MemoryOptions(**options))
    expected = model(case, "reference")(inputs())[0]
    for told in (True, False):
        assert torch.equal(model(case, "auto")(inputs())[0], expected)
        sentence = f"does not have the {lacked}"
        assert capsys.readouterr().err.count(sentence) == told
    with pytest.raises(ValueError, match=f'engine "fused" cannot run this call: it {sentence}; use engine='):
        model(case, "fused")(inputs())


def test_nothing_is_said_where_it_is_no_options_fault(capsys: pytest.CaptureFixture[str]) -> None:
    engines._say.cache_clear()
    made = model(replace(CASE, options=MemoryOptions(links="detached")), "auto")
    torch.func.vmap(lambda x: made(x)[0])(inputs().unsqueeze(0))
    assert capsys.readouterr().err == ""


def test_autocast_goes_to_the_reference_and_is_refused_by_name() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert select("auto", model(CASE, "auto"), inputs()) is reference.run
        with pytest.raises(ValueError, match="autocast is active"):
            model(CASE, "fused", torch.float32)(inputs(torch.float32))


def test_second_derivatives() -> None:
    def second(engine: str) -> torch.Tensor:
        x = inputs().requires_grad_()
        (first,) = torch.autograd.grad(model(CASE, engine)(x)[0].square().sum(), x, create_graph=True)
        return torch.autograd.grad(first.square().sum(), x)[0]

    torch.testing.assert_close(second("auto"), second("reference"), rtol=0, atol=1e-9)
    with pytest.raises(RuntimeError, match="no second derivatives"):
        second("fused")


def test_second_derivatives_over_two_calls() -> None:
    """The second starts from a state that depends on all that the first did: on the same parameters, too."""

    def second(engine: str) -> list[torch.Tensor]:
        made, x = model(CASE, engine), inputs().requires_grad_()
        outputs, _ = made(inputs(), made(x)[1])
        wanted = [x, *made.parameters()]
        first = torch.autograd.grad(outputs.square().sum(), wanted, create_graph=True)
        return [*first, *torch.autograd.grad(torch.stack([each.square().sum() for each in first]).sum(), wanted)]

    assert worst(second("auto"), second("reference")) < 1e-9


def test_second_derivatives_by_parameters_put_in_for_a_call() -> None:
    """As where a learner is learned: steps of gradient descent are part of the graph."""

    def learned(engine: str) -> list[torch.Tensor]:
        made = model(CASE, engine)
        loss = lambda weights: torch.func.functional_call(made, weights, (inputs(),))[0].square().sum()  # noqa: E731
        start: dict[str, torch.Tensor] = dict(made.named_parameters())
        weights = start
        for _ in range(2):
            gradients = torch.autograd.grad(loss(weights), list(weights.values()), create_graph=True)
            weights = {name: old - 0.1 * each for (name, old), each in zip(weights.items(), gradients, strict=True)}
        return list(torch.autograd.grad(loss(weights), list(start.values())))

    assert worst(learned("auto"), learned("reference")) < 1e-9


def test_batches_of_gradients() -> None:
    def jacobian(engine: str) -> torch.Tensor:
        made = model(CASE, engine)
        x = inputs().requires_grad_()
        outputs = made(x)[0].sum((0, 1))
        return torch.autograd.grad(outputs, x, torch.eye(len(outputs)).to(outputs), is_grads_batched=True)[0]

    torch.testing.assert_close(jacobian("auto"), jacobian("reference"), rtol=0, atol=1e-9)
    with pytest.raises(RuntimeError, match="no batches of gradients"):
        jacobian("fused")


def test_backward_inside_autocast_is_not_rounded() -> None:
    """A block kept in full precision, while the loss around it is not."""
    found = []
    for autocast in (False, True):
        made, x = model(CASE, "fused", torch.float32), inputs(torch.float32).requires_grad_()
        outputs = made(x)[0]
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            outputs.sum().backward()
        found.append(x.grad)
    assert found[0] is not None
    torch.testing.assert_close(*found, rtol=0, atol=0)


def test_without_a_place_for_a_cache_it_compiles_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """A read-only install and home."""
    from numba.core import caching

    from torchdnc.engines.fused import compiled
    from torchdnc.engines.fused.kernels import sequence

    def double(numbers):
        for i in range(len(numbers)):
            numbers[i] *= 2

    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    monkeypatch.setattr(sequence, "double", double, raising=False)
    numbers = np.arange(3.0)
    compiled.kernel.__wrapped__("double")(numbers)
    assert numbers.tolist() == [0, 2, 4]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_computes_the_same() -> None:
    """As the worker of a DataLoader does."""
    made = model(CASE, "fused")
    with torch.no_grad():
        expected = made(inputs())[0]
        child = os.fork()
        if child == 0:
            os._exit(0 if torch.equal(made(inputs())[0], expected) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_goes_back_through_a_graph_that_was_made_before(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchdnc.engines.fused import compiled

    monkeypatch.setattr(compiled, "WORTH_SHARING", 0)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    outputs = model(CASE, "fused")(inputs())[0]
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        outputs.sum().backward()
        os._exit(0)
    torch.set_num_threads(threads)
    assert ended_well(child)


def ended_well(child: int) -> bool:
    """Whether a process ends by itself, in ten seconds, and without an error."""
    for _ in range(1000):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


@pytest.mark.parametrize("name", [".nbi", ".nbc"])
def test_a_damaged_cache_is_made_anew(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from torchdnc.engines.fused import compiled
    from torchdnc.engines.fused.kernels import sequence

    def double(numbers):
        for i in range(len(numbers)):
            numbers[i] *= 2

    monkeypatch.setattr(sequence, "double", double, raising=False)
    monkeypatch.setattr(numba.core.config, "CACHE_DIR", str(tmp_path))
    for told in (False, True, False):
        numbers = np.arange(3.0)
        compiled.kernel.__wrapped__("double")(numbers)
        assert numbers.tolist() == [0, 2, 4]
        assert ("damaged" in capsys.readouterr().err) == told
        for path in tmp_path.rglob(f"*{name}") if not told else ():
            path.write_bytes(path.read_bytes()[:10])
        if told:
            assert all(path.stat().st_size > 10 for path in tmp_path.rglob(f"*{name}"))
            break


def test_a_full_disk_is_no_reason_to_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from numba.core import caching

    from torchdnc.engines.fused import compiled
    from torchdnc.engines.fused.kernels import sequence

    def double(numbers):
        for i in range(len(numbers)):
            numbers[i] *= 2

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sequence, "double", double, raising=False)
    monkeypatch.setattr(numba.core.config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(caching.IndexDataCacheFile, "save", full)
    numbers = np.arange(3.0)
    compiled.kernel.__wrapped__("double")(numbers)
    assert numbers.tolist() == [0, 2, 4]


def test_what_keeps_numba_from_loading_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchdnc.engines.fused import compiled

    monkeypatch.setitem(sys.modules, "numba", None)
    compiled.refusal.cache_clear()
    try:
        with pytest.raises(ValueError, match=r"numba cannot be loaded|numba is not installed"):
            model(CASE, "fused")(inputs())
        model(CASE, "auto")(inputs())
    finally:
        monkeypatch.undo()
        compiled.refusal.cache_clear()


@pytest.mark.filterwarnings("ignore")
def test_what_watches_every_operation_sees_the_reference() -> None:
    made = model(CASE, "auto").requires_grad_(False)
    traced = torch.jit.trace(lambda x: made(x)[0], inputs(), check_trace=False)
    other = torch.randn_like(inputs())
    torch.testing.assert_close(traced(other), made(other)[0], rtol=0, atol=1e-9)
    with FlopCounterMode(display=False) as counter:
        made(other)
    assert counter.get_total_flops() > 0
    named, given = model(CASE, "fused"), inputs()
    with FakeTensorMode(allow_non_fake_inputs=True), pytest.raises(ValueError, match=r"dispatch mode|plain tensors"):
        named(given)


def test_gradients_that_are_marked_as_negative() -> None:
    found = []
    for engine in ("fused", "reference"):
        x = inputs().requires_grad_()
        outputs = model(CASE, engine)(x)[0]
        outputs.backward(torch._neg_view(torch.ones_like(outputs)))
        found.append(x.grad)
    torch.testing.assert_close(*found, rtol=0, atol=1e-9)


def test_a_step_runs_on_the_named_engine() -> None:
    step_input = inputs()[0]
    named, plain = model(CASE, "fused"), model(CASE, "reference")
    torch.testing.assert_close(named.step(step_input)[0], plain.step(step_input)[0], rtol=0, atol=1e-9)
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(ValueError, match="autocast is active"):
        named.step(step_input)
