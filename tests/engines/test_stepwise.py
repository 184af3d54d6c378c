"""The fused engine step by step, with controllers and layers that it does not know, against the reference."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils import _pytree as pytree

from tests.engines import pairs
from tests.engines.nudges import Nudges
from tests.engines.pairs import Case, asymmetric_state, everything, leaf_state, masks, worst
from tests.engines.poison import dirty_memory
from torchdnc import DNC, MemoryOptions
from torchdnc.engines.fused.sequence import fields_of, kernel_options
from torchdnc.nn import LSTMController
from torchdnc.ops import access, interface_size, split_interface

DOUBLE = torch.float64


class Gated(nn.Module):
    """A GRU that also keeps a trace of its inputs; the state is nested."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.feature_size = case.H * case.layers
        self.cell = nn.GRUCell(case.I + case.R * case.W, self.feature_size, dtype=DOUBLE)
        self.of_trace = nn.Linear(case.I + case.R * case.W, self.feature_size, dtype=DOUBLE)

    def initial_state(self, batch_size: int) -> dict[str, Any]:
        zeros = self.cell.weight_ih.new_zeros
        return {"hidden": zeros(batch_size, self.feature_size), "past": (zeros(batch_size, self.cell.input_size),)}

    def forward(self, input: Tensor, state: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        trace = 0.5 * (state["past"][0] + input)
        hidden = self.cell(input, state["hidden"])
        return hidden * torch.tanh(self.of_trace(trace)), {"hidden": hidden, "past": (trace,)}


class Stateless(nn.Module):
    def __init__(self, case: Case) -> None:
        super().__init__()
        self.feature_size = case.H * case.layers
        self.linear = nn.Linear(case.I + case.R * case.W, self.feature_size, dtype=DOUBLE)

    def initial_state(self, batch_size: int) -> tuple[()]:
        return ()

    def forward(self, input: Tensor, state: tuple[()]) -> tuple[Tensor, tuple[()]]:
        return torch.sin(self.linear(input)), ()


class Doubled(LSTMController):
    """A subclass that computes something else."""

    def forward(self, input: Tensor, state: Any) -> Any:
        hidden, state = super().forward(input, state)
        return 2 * hidden, state


def with_own_controller(made: DNC, case: Case, controller: nn.Module) -> None:
    made.controller = controller


def with_subclass(made: DNC, case: Case) -> None:
    made.controller.__class__ = Doubled


def with_hooks(made: DNC, case: Case) -> None:
    made.controller.register_forward_hook(lambda module, arguments, output: (2 * output[0], output[1]))
    made.interface.register_full_backward_hook(lambda module, d_hidden, d_interface: (3 * d_hidden[0],))


def with_replaced_interface(made: DNC, case: Case) -> None:
    made.interface = nn.Sequential(made.interface, nn.Hardtanh(-0.5, 0.5))


def with_replaced_layer(made: DNC, case: Case) -> None:
    made.controller.layers[0] = nn.Sequential(made.controller.layers[0], nn.Softsign())


def with_own_forward(made: DNC, case: Case) -> None:
    plain = made.interface.forward
    made.interface.forward = lambda input: plain(2 * input)


def without_bias(made: DNC, case: Case) -> None:
    made.interface = nn.Linear(made.interface.in_features, made.interface.out_features, bias=False, dtype=DOUBLE)


CHANGES: dict[str, Callable[[DNC, Case], None]] = {
    "own controller": lambda made, case: with_own_controller(made, case, Gated(case)),
    "stateless controller": lambda made, case: with_own_controller(made, case, Stateless(case)),
    "subclass": with_subclass,
    "hooks": with_hooks,
    "replaced interface": with_replaced_interface,
    "replaced layer": with_replaced_layer,
    "own forward": with_own_forward,
    "no bias": without_bias,
}
"""What the kernels of a whole sequence do not know, each of which changes what is computed."""

PLAIN = Case(T=6, H=5, R=2)
EVERYTHING = MemoryOptions(skip_unwritten=True, deallocation=True, masking=True, mask_floor=0.2)
CASES = {
    "ones": Case(T=1, B=1, I=1, H=1, N=1, W=1, R=1),
    "two slots": Case(N=2, W=1, R=3),
    "17 slots": Case(T=7, B=3, H=5, N=17, W=4, R=3, layers=2),
    "63 slots": Case(T=4, B=1, H=17, N=63, W=17, R=2),
    "masks": Case(T=9, B=5, N=7, R=2, masks=True),
    "stopped usage": Case(T=6, R=2, options=MemoryOptions(usage_gradient=False)),
    "saturated": Case(T=3, N=6, R=2, scale=40),
    "skipping": Case(T=7, B=4, N=9, R=2, masks=True, options=MemoryOptions(skip_unwritten=True)),
    "wiping": Case(T=6, N=7, W=9, R=2, masks=True, options=MemoryOptions(deallocation=True)),
    "no links, skipping": Case(T=6, N=17, W=9, R=2, options=MemoryOptions(links="none", skip_unwritten=True)),
    "masking": Case(T=6, N=17, W=9, R=3, options=MemoryOptions(masking=True)),
    "masking, wiping, skipping": Case(T=7, B=4, N=9, W=1, R=2, masks=True, options=EVERYTHING),
    "reclaiming": Case(
        T=7,
        B=4,
        N=9,
        R=2,
        options=MemoryOptions(overflow="reclaim", high_watermark=0.3, low_watermark=0.2),
    ),
    "growing": Case(
        T=9,
        B=4,
        N=2,
        R=2,
        masks=True,
        scale=3,
        options=MemoryOptions(overflow="grow", grow_above=0.2, max_memory_size=9),
    ),
    "all but links": Case(T=6, N=7, W=18, R=1, masks=True, options=replace(EVERYTHING, links="none")),
}


def model(change: str, case: Case, engine: str, dtype: torch.dtype = DOUBLE) -> DNC:
    made = pairs.model(replace(case, scale=1), engine)
    CHANGES[change](made, case)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(case.scale)
    return made.to(dtype)


def inputs(case: Case, dtype: torch.dtype = DOUBLE, seed: int = 2) -> Tensor:
    torch.manual_seed(seed)
    return torch.randn(case.T, case.B, case.I, dtype=DOUBLE).to(dtype)


def run(
    change: str, case: Case, engine: str, dtype: torch.dtype = DOUBLE, nudges: Nudges | None = None
) -> list[Tensor]:
    """`everything` of a case on an engine, as float64 numbers; see `pairs.run`."""
    made, sequence = model(change, case, engine), inputs(case, dtype).requires_grad_()
    state, call = asymmetric_state(made, case.B), masks(case)
    made = made.to(dtype)
    if nudges:
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.copy_(nudges.nudge(parameter))
    with nudges or contextlib.nullcontext():
        found = everything(made, sequence, leaf_state(state.to(dtype)), **call)
    return [result.double() for result in found]


def grads(of: Tensor, *wanted: Any) -> list[Tensor]:
    found: list[Tensor] = list(torch.autograd.grad(of.square().sum(), pytree.tree_leaves(wanted), allow_unused=True))
    return found


@pytest.mark.parametrize("change", CHANGES)
def test_what_the_sequence_does_not_know_goes_step_by_step(change: str) -> None:
    state = model(change, PLAIN, "fused")(inputs(PLAIN))[1]
    steps = {type(leaf.grad_fn).__name__ for leaf in pytree.tree_leaves(state.memory)}
    assert steps == {"FusedAccessBackward"}
    assert type(pairs.model(PLAIN, "fused")(inputs(PLAIN))[1].memory.link.grad_fn).__name__ == "FusedSequenceBackward"


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_equals_reference(change: str) -> None:
    assert worst(run(change, PLAIN, "fused"), run(change, PLAIN, "reference")) < 1e-9


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_shows(change: str) -> None:
    """Were it overlooked, outputs or gradients would tell."""
    made, plain = run(change, PLAIN, "reference"), pairs.run(PLAIN, "reference")
    assert len(made) != len(plain) or worst(made, plain) > 1e-3


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_float64_equals_reference(case: Case) -> None:
    assert worst(run("own controller", case, "fused"), run("own controller", case, "reference")) < 1e-9


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_float32_is_as_exact_as_the_reference(case: Case) -> None:
    """At most twice the reference's own error against float64: see the test of this name in `test_fused`."""
    exact = run("own controller", case, "reference")
    runs = [run("own controller", case, "reference", torch.float32, Nudges(seed)) for seed in range(8)]
    own = max(worst(other, exact) for other in runs)
    assert worst(run("own controller", case, "fused", torch.float32), exact) <= min(max(2 * own, 5e-6), 1e-3)


def test_nothing_is_read_before_it_is_written() -> None:
    """Fresh memory that holds NaN changes no bit."""
    clean = run("own controller", CASES["masks"], "fused")
    with dirty_memory():
        assert all(
            torch.equal(*pair) for pair in zip(run("own controller", CASES["masks"], "fused"), clean, strict=True)
        )


def test_layouts_reach_the_engine() -> None:
    """PackedSequence, a single sequence, a step, an empty batch."""
    packed = pack_padded_sequence(inputs(PLAIN), torch.tensor([3, 6]), enforce_sorted=False)
    named, plain = (model("own controller", PLAIN, engine) for engine in ("fused", "reference"))
    for call in (packed, inputs(PLAIN)[:, 0], inputs(PLAIN)[:, :0]):
        results = [made(call)[0] for made in (named, plain)]
        data = [result if isinstance(result, Tensor) else result.data for result in results]
        torch.testing.assert_close(*data, rtol=0, atol=1e-9)
    one = inputs(PLAIN)[0]
    torch.testing.assert_close(named.step(one)[0], plain.step(one)[0], rtol=0, atol=1e-9)


def test_without_gradients_nothing_changes() -> None:
    made = model("own controller", PLAIN, "fused")
    outputs, state = made(inputs(PLAIN))
    with torch.no_grad():
        again, end = made(inputs(PLAIN))
    assert torch.equal(outputs, again)
    assert all(torch.equal(*pair) for pair in zip(*map(pytree.tree_leaves, (state.memory, end.memory)), strict=True))


def test_a_call_leaves_its_arguments_alone() -> None:
    made = model("own controller", PLAIN, "fused")
    state = asymmetric_state(made, PLAIN.B)
    before = [leaf.detach().clone() for leaf in pytree.tree_leaves(state)]
    everything(made, inputs(PLAIN).requires_grad_(), state)
    assert all(torch.equal(*pair) for pair in zip(before, pytree.tree_leaves(state), strict=True))


def test_two_live_graphs_and_a_second_backward() -> None:
    made = model("own controller", PLAIN, "fused")
    state = asymmetric_state(made, PLAIN.B)
    calls = [inputs(PLAIN, seed=seed).requires_grad_() for seed in (3, 4)]
    alone = [grads(made(call, state)[0], call)[0] for call in calls]
    losses = [made(call, state)[0].square().sum() for call in calls]
    for _ in range(2):
        for loss, call, expected in zip(losses, calls, alone, strict=True):
            assert torch.equal(torch.autograd.grad(loss, call, retain_graph=True)[0], expected)


def test_a_graph_is_freed_by_its_backward_pass() -> None:
    loss = model("own controller", PLAIN, "fused")(inputs(PLAIN))[0].sum()
    loss.backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        loss.backward()


def branched(engine: str) -> list[Tensor]:
    """One state, continued twice."""
    made = model("own controller", PLAIN, engine)
    start = asymmetric_state(made, PLAIN.B)
    first, state = made(inputs(PLAIN), start)
    left, _ = made(inputs(PLAIN, seed=3), state)
    right, end = made(inputs(PLAIN, seed=4), state)
    loss = first.sum() + left.square().sum() + (left * right).sum() + end.memory.link.square().sum()
    return [left, right, *torch.autograd.grad(loss, [*pytree.tree_leaves(start), *made.parameters()])]


def truncated(engine: str) -> list[Tensor]:
    """Three calls, each from the detached state of the one before."""
    made = model("own controller", PLAIN, engine)
    state, outputs = asymmetric_state(made, PLAIN.B).detach(), []
    for seed in (2, 3, 4):
        output, state = made(inputs(PLAIN, seed=seed), state)
        output.square().sum().backward()
        state = state.detach()
        outputs.append(output)
    return [*outputs, *[parameter.grad for parameter in made.parameters() if parameter.grad is not None]]


@pytest.mark.parametrize("of", [branched, truncated])
def test_graphs_of_several_calls_equal_reference(of: Callable[[str], list[Tensor]]) -> None:
    assert worst(of("fused"), of("reference")) < 1e-9


def test_a_state_changed_in_place_is_noticed() -> None:
    made = model("own controller", PLAIN, "fused")
    for name in fields_of(kernel_options(PLAIN.options)):
        outputs, state = made(inputs(PLAIN))
        outputs, _ = made(inputs(PLAIN), state)
        with torch.no_grad():
            getattr(state.memory, name).add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            outputs.sum().backward()


def of_the_memory_alone(engine: str) -> list[Tensor]:
    """Nothing else asks for a gradient, so that the usage after the first step depends on none that does."""
    made = model("own controller", PLAIN, engine).requires_grad_(False)
    state = asymmetric_state(made, PLAIN.B).detach()
    memory = state.memory.memory.requires_grad_()
    outputs, _ = made(inputs(PLAIN), state)
    (first,) = torch.autograd.grad(outputs.square().sum(), memory, create_graph=True)
    return [first, *torch.autograd.grad(first.square().sum(), memory)]


def second(engine: str) -> list[Tensor]:
    """Gradients of gradients, over two calls, the second of which starts from what depends on all the first did."""
    made, sequence = model("own controller", PLAIN, engine), inputs(PLAIN).requires_grad_()
    start = asymmetric_state(made, PLAIN.B)
    _, state = made(sequence, start)
    outputs, _ = made(inputs(PLAIN, seed=3), state)
    wanted = [sequence, *pytree.tree_leaves(start), *made.parameters()]
    first = torch.autograd.grad(outputs.square().sum(), wanted, create_graph=True)
    return [*first, *torch.autograd.grad(torch.stack([each.square().sum() for each in first]).sum(), wanted)]


@pytest.mark.parametrize("of", [second, of_the_memory_alone])
def test_second_derivatives(of: Callable[[str], list[Tensor]]) -> None:
    assert worst(of("auto"), of("reference")) < 1e-9
    with pytest.raises(RuntimeError, match="no second derivatives"):
        of("fused")


def jacobian(engine: str) -> Tensor:
    made, sequence = model("own controller", PLAIN, engine), inputs(PLAIN).requires_grad_()
    outputs = made(sequence)[0].sum((0, 1))
    return torch.autograd.grad(outputs, sequence, torch.eye(len(outputs)).to(outputs), is_grads_batched=True)[0]


def test_batches_of_gradients() -> None:
    torch.testing.assert_close(jacobian("auto"), jacobian("reference"), rtol=0, atol=1e-9)
    with pytest.raises(RuntimeError, match="no batches of gradients"):
        jacobian("fused")


def test_an_interface_of_another_width_is_refused() -> None:
    """Kernels would read behind its end."""
    for controller in ("own controller", "no bias"):
        made = model(controller, PLAIN, "fused")
        made.interface = nn.Linear(PLAIN.H, 7, dtype=DOUBLE)
        with pytest.raises(ValueError, match=r"interface must have shape \[2, 28\], got \[2, 7\]"):
            made(inputs(PLAIN))


def test_hooks_are_called_at_every_step() -> None:
    made, seen = model("own controller", PLAIN, "fused"), []
    made.controller.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0].shape))
    made(inputs(PLAIN))
    assert seen == [(PLAIN.B, PLAIN.I + PLAIN.R * PLAIN.W)] * PLAIN.T


DERIVED = {
    "paper": MemoryOptions(),
    "stopped": MemoryOptions(usage_gradient=False),
    "everything": EVERYTHING,
    "everything but links": replace(EVERYTHING, links="none"),
}


@pytest.mark.parametrize("options", DERIVED.values(), ids=DERIVED)
@pytest.mark.parametrize(("N", "W", "R"), [(1, 1, 1), (7, 3, 2), (35, 17, 3)])
def test_compiled_gradients_are_the_derived_ones(N: int, W: int, R: int, options: MemoryOptions) -> None:
    """One access: the kernels against the same derivation in plain PyTorch, apart from autograd."""
    from torchdnc.engines.fused import derivation, derived, stepwise

    made = pairs.model(Case(N=N, W=W, R=R, options=options), "fused")
    before = asymmetric_state(made, 3).memory
    given, structure = pytree.tree_flatten(before)
    raw = torch.randn(3, interface_size(W, R, options), dtype=DOUBLE, requires_grad=True)
    found = stepwise.FusedAccess.apply(stepwise.Call(W, R, options, True), raw, *given)
    d_words, *d_leaves = seeds = [torch.randn_like(each) for each in found]
    # What was written, the last of either, has no gradient.
    traced = slice(-1 if options.skip_unwritten else None)
    d_raw, *d_before = torch.autograd.grad(found[traced], [raw, *given[traced]], seeds[traced])

    interface = split_interface(raw, W, R, options)
    words, after = access(interface, before, options)
    torch.testing.assert_close(found, (words, *pytree.tree_leaves(after)), rtol=1e-12, atol=1e-12)
    d_after = pytree.tree_unflatten(d_leaves, structure)
    d_interface, expected = derived.access_backward(interface, before, after, d_words, d_after, options)
    torch.testing.assert_close(d_before, pytree.tree_leaves(expected)[traced], rtol=1e-11, atol=1e-11)
    d_vector = derivation.split_interface_backward(interface, d_interface, options)
    torch.testing.assert_close(d_raw, d_vector, rtol=1e-11, atol=1e-11)
