"""Every operation with its oracle, and the numbers both are tried on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils import _pytree as pytree

from tests import oracle
from torchdnc import ops
from torchdnc.types import PAPER, UNUSED, Interface, MemoryOptions, MemoryState

Values = dict[str, Any]


class Sizes(NamedTuple):
    B: int
    N: int
    W: int
    R: int


AWKWARD = (1, 2, 3, 17)
# Of any two letters every pair of awkward sizes comes up once: i, j, i + j and i + 2j in the field of four.
DOUBLE = (0, 2, 3, 1)
SIZES = [Sizes(AWKWARD[i], AWKWARD[j], AWKWARD[i ^ j], AWKWARD[i ^ DOUBLE[j]]) for i in range(4) for j in range(4)]


class Case(NamedTuple):
    """An operation, the same by the oracle, and the values that both take."""

    name: str
    op: Callable[..., Any]
    oracle: Callable[..., Any]
    arguments: tuple[str, ...]


def interface_fields(options: MemoryOptions = PAPER) -> tuple[str, ...]:
    """The parts of the interface that there are under these options."""
    unused = {"read_modes"} if options.links == "none" else set()
    unused |= set() if options.masking else {"read_masks", "write_mask"}
    unused |= set() if options.sharpness else {"forward_sharpness", "backward_sharpness"}
    return tuple(name for name in Interface._fields if name not in unused)


def state_fields(options: MemoryOptions = PAPER) -> tuple[str, ...]:
    """The fields of a state that hold a tensor under these options."""
    unused = {"precedence", "link"} if options.links == "none" else set()
    unused |= set() if options.skip_unwritten else {"written"}
    unused |= set() if options.overflow == "reclaim" else {"age", "pinned"}
    unused |= set() if options.overflow == "grow" else {"slots"}
    return tuple(name for name in MemoryState._fields if name not in unused)


def interface_of(values: Values, options: MemoryOptions = PAPER) -> Interface:
    return Interface(
        **dict.fromkeys(Interface._fields, UNUSED) | {name: values[name] for name in interface_fields(options)}
    )


def state_of(values: Values, options: MemoryOptions = PAPER) -> MemoryState:
    fields = {name: values[name] for name in state_fields(options)}
    return MemoryState(**dict.fromkeys(MemoryState._fields, UNUSED) | fields)


def access_case(options: MemoryOptions = PAPER, note: str = "") -> Case:
    """A step under these options."""
    of_interface, of_state = interface_fields(options), state_fields(options)

    def access(*tensors: Any) -> Any:
        values = dict(zip(of_interface + of_state, tensors, strict=True))
        return (*pytree.tree_leaves(ops.access(interface_of(values, options), state_of(values, options), options)),)

    def by_oracle(*arrays: Any) -> Any:
        values = dict(zip(of_interface + of_state, arrays, strict=True))
        xi, state = ({name: values[name] for name in names} for names in (of_interface, of_state))
        words, new = oracle.access(xi, state, options)
        return words, *new.values()

    return Case("access" + note, access, by_oracle, of_interface + of_state)


def _case(name: str, *arguments: str, note: str = "") -> Case:
    return Case(name + note, getattr(ops, name), getattr(oracle, name), arguments)


CASES = [
    _case("oneplus", "interface"),
    Case(
        "split_interface",
        lambda *arguments: tuple(pytree.tree_leaves(ops.split_interface(*arguments))),
        lambda *arguments: tuple(oracle.split_interface(*arguments).values()),
        ("interface", "W", "R"),
    ),
    _case("content_weights", "memory", "read_keys", "read_strengths"),
    _case("content_weights", "memory", "write_key", "write_strength", note=" of one head"),
    _case("retention", "free_gates", "read_weights"),
    _case("usage", "usage", "write_weights", "retention"),
    _case("allocation_weights", "usage"),
    _case("write_weights", "content", "allocation", "alloc_gate", "write_gate"),
    _case("erase_and_write", "memory", "write_weights", "erase", "write_vector"),
    _case("precedence", "precedence", "write_weights"),
    _case("link", "link", "precedence", "write_weights"),
    _case("directional_weights", "link", "read_weights"),
    _case("read_weights", "backward", "read_content", "forward", "read_modes"),
    _case("read_words", "memory", "read_weights"),
    access_case(),
]
"""The paper's equations and their step."""

OPTIONS = {
    "unwritten slots skipped": MemoryOptions(skip_unwritten=True),
    "no links": MemoryOptions(links="none"),
    "deallocation": MemoryOptions(deallocation=True),
    "masking": MemoryOptions(masking=True),
    "sharpness": MemoryOptions(sharpness=True),
    "all options": MemoryOptions(skip_unwritten=True, deallocation=True, masking=True, mask_floor=0.1, sharpness=True),
    "floored masks, no links, unwritten slots skipped": MemoryOptions(
        masking=True, mask_floor=0.1, links="none", skip_unwritten=True
    ),
    "no links, unwritten slots skipped": MemoryOptions(links="none", skip_unwritten=True),
    "reclaiming": MemoryOptions(overflow="reclaim", high_watermark=0.6, low_watermark=0.3),
    "reclaiming, deallocation, unwritten slots skipped": MemoryOptions(
        overflow="reclaim", high_watermark=0.6, low_watermark=0.3, skip_unwritten=True, deallocation=True
    ),
    # At its largest size whatever it is; `test_overflow.py` has how it grows.
    "rows of sizes of their own": MemoryOptions(overflow="grow", max_memory_size=1),
    "rows of sizes of their own, sharpness": MemoryOptions(overflow="grow", max_memory_size=1, sharpness=True),
    "rows of sizes of their own, unwritten slots skipped": MemoryOptions(
        overflow="grow", max_memory_size=1, skip_unwritten=True
    ),
}
"""Each option alone, and some together."""


def split_case(options: MemoryOptions, note: str) -> Case:
    """The interface vector under these options, which is shorter or longer than the paper's."""
    size = oracle.interface_size

    def vector(interface: Any, W: int, R: int) -> Any:
        return interface[..., : size(W, R, options)]

    return Case(
        "split_interface" + note,
        lambda interface, W, R: tuple(pytree.tree_leaves(ops.split_interface(vector(interface, W, R), W, R, options))),
        lambda interface, W, R: tuple(oracle.split_interface(vector(interface, W, R), W, R, options).values()),
        ("longest_interface", "W", "R"),
    )


def _masked_case(keys: str, strengths: str, masks: str, note: str = "") -> Case:
    """A look-up of the parts of a word that a mask lets through, in all slots."""

    def with_masks(equation: Callable[..., Any], everything: Any) -> Callable[..., Any]:
        return lambda memory, keys, strengths, masks: equation(memory, keys, strengths, everything, masks)

    op, by_oracle = with_masks(ops.content_weights, UNUSED), with_masks(oracle.content_weights, None)
    return Case("masked content_weights" + note, op, by_oracle, ("memory", keys, strengths, masks))


def _released_case() -> Case:
    def of_shares(released: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments: released(*arguments, 0.6, 0.3)

    return Case("released", of_shares(ops.released), of_shares(oracle.released), ("usage", "age", "pinned"))


VARIANTS = [
    _case("content_weights", "memory", "read_keys", "read_strengths", "looked_at", note=" of written slots"),
    _case("content_weights", "memory", "write_key", "write_strength", "looked_at", note=" of a head in written slots"),
    _masked_case("read_keys", "read_strengths", "read_masks"),
    _masked_case("write_key", "write_strength", "write_mask", note=" of one head"),
    _case("content_weights", "memory", "read_keys", "read_strengths", "looked_at", "read_masks", note=" of everything"),
    _case(
        "content_weights", "memory", "write_key", "write_strength", "looked_at", "write_mask", note=" of one head's all"
    ),
    _case("written", "written", "write_weights"),
    _case("deallocate", "memory", "retention"),
    _case("age", "age", "write_weights", "read_weights"),
    _released_case(),
    _case("sharpen_directional", "forward", "forward_sharpness"),
    _case("sharpen_directional", "forward", "forward_sharpness", "looked_at", note=" of written slots"),
    *(make(options, f", {name}") for name, options in OPTIONS.items() for make in (split_case, access_case)),
]
"""What an option changes."""

CONSTANTS = {"written", "looked_at", "age", "pinned", "slots"}
"""Arguments that have no gradient."""


def ordinary(sizes: Sizes, seed: int = 0) -> Values:
    """Values from inside their ranges, no two usages of a row closer than 0.5 / N."""
    B, N, W, R = sizes
    random = np.random.default_rng(seed)

    def weighting(*shape: int) -> np.ndarray:
        return random.dirichlet(np.ones(shape[-1]), shape[:-1]) * random.uniform(0.2, 1, (*shape[:-1], 1))

    longest = max(oracle.interface_size(W, R, options) for options in (PAPER, *OPTIONS.values()))
    slots = random.permuted(np.tile(np.arange(N), (B, 1)), axis=1)
    return {
        "W": W,
        "R": R,
        "interface": random.normal(0, 3, (B, oracle.interface_size(W, R))),
        "read_keys": random.normal(size=(B, R, W)),
        "read_strengths": 1 + random.exponential(2, (B, R)),
        "write_key": random.normal(size=(B, W)),
        "write_strength": 1 + random.exponential(2, B),
        "erase": random.uniform(size=(B, W)),
        "write_vector": random.normal(size=(B, W)),
        "free_gates": random.uniform(size=(B, R)),
        "alloc_gate": random.uniform(size=B),
        "write_gate": random.uniform(size=B),
        "read_modes": random.dirichlet(np.ones(3), (B, R)),
        "memory": random.normal(size=(B, N, W)),
        "usage": (slots + random.uniform(0.25, 0.75, (B, N))) / N,
        "precedence": weighting(B, N),
        "link": weighting(B, N, N) / N * (1 - np.eye(N)),
        "write_weights": weighting(B, N),
        "read_weights": weighting(B, R, N),
        "retention": random.uniform(size=(B, N)),
        "content": weighting(B, N),
        "allocation": weighting(B, N),
        "backward": weighting(B, R, N),
        "read_content": weighting(B, R, N),
        "forward": weighting(B, R, N),
        "forward_sharpness": 1 + random.exponential(1, (B, R)),
        "backward_sharpness": 1 + random.exponential(1, (B, R)),
        "read_masks": random.uniform(size=(B, R, W)),
        "write_mask": random.uniform(size=(B, W)),
        "longest_interface": random.normal(0, 3, (B, longest)),
        "looked_at": random.integers(0, 2, (B, N)).astype(float),
        "written": random.integers(0, 2, (B, N)).astype(float),
        "age": random.permuted(np.tile(np.arange(N), (B, 1)), axis=1) + random.uniform(0.25, 0.75, (B, N)),
        "pinned": random.integers(0, 2, (B, N)).astype(float),
        "slots": random.integers(1, N + 1, B).astype(float),
    }


def edges(sizes: Sizes, seed: int = 0) -> Values:
    """Zeros where a root or a product may trip: empty slot and keys, usage and retention exactly 0 and 1."""
    values = ordinary(sizes, seed)
    values["memory"][:, 0] = 0
    values["read_keys"][:, 0] = 0
    values["write_key"][:] = 0
    values["read_weights"][:, 0] = np.eye(sizes.N)[-1]
    values["free_gates"][:, 0] = 1
    values["read_weights"][:, 1:2] = 0
    values["usage"][values["usage"] == values["usage"].min(-1, keepdims=True)] = 0
    values["usage"][values["usage"] == values["usage"].max(-1, keepdims=True)] = 1
    values["retention"][:, -1] = 0
    values["looked_at"][0] = 0
    values["forward_sharpness"][:] = 1
    values["backward"][:, 0] = values["forward"][:, -1] = 0
    values["read_masks"][:, -1] = 0
    values["write_mask"][:, 0] = 1
    # The slot that is freed, and therefore written to: gradients do not jump there.
    values["written"][:] = np.arange(1, sizes.N + 1) < sizes.N
    return values


def first_step(sizes: Sizes, seed: int = 0) -> Values:
    """The all-zero state, and nothing to look for."""
    values = ordinary(sizes, seed)
    for name in (*MemoryState._fields, "read_keys", "write_key", "content", "allocation"):
        values[name][:] = 0
    values["slots"][:] = sizes.N
    return values


def full(sizes: Sizes, seed: int = 0) -> Values:
    """Every slot written to, every usage at 1 and nothing freed."""
    values = ordinary(sizes, seed)
    values["usage"][:] = values["retention"][:] = values["written"][:] = 1
    values["free_gates"][:] = 0
    return values


def tied(sizes: Sizes, seed: int = 0) -> Values:
    """Slots that nothing tells apart."""
    values = ordinary(sizes, seed)
    values["usage"][:] = 0.5
    values["age"][:] = 1
    for name in ("write_weights", "read_weights", "precedence"):
        values[name][:] = 1 / sizes.N
    values["memory"][:] = values["memory"][:, :1]
    return values


def saturated(sizes: Sizes, seed: int = 0) -> Values:
    """Strengths of 1e4, gates at their ends, weightings and read modes all in one place."""
    values = ordinary(sizes, seed)
    for name in ("read_strengths", "write_strength", "forward_sharpness", "backward_sharpness"):
        values[name][:] = 1e4
    for name in ("erase", "free_gates", "write_gate", "retention"):
        values[name][:] = 1
    values["alloc_gate"][:] = np.arange(sizes.B) % 2
    values["usage"][:] = np.arange(sizes.N) % 2
    for name in ("write_weights", "precedence", "read_weights"):
        values[name][:] = np.eye(sizes.N)[0]
    values["read_modes"][:] = np.eye(3)[np.arange(sizes.R) % 3]
    values["interface"] *= 1e4
    values["longest_interface"] *= 1e4
    return values


KINDS = [ordinary, edges, first_step, full, tied, saturated]


def double(values: Any) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def tensors(case: Case, values: Values, dtype: torch.dtype, requires_grad: bool = False) -> list[Any]:
    """The case's arguments as tensors; sizes stay numbers."""

    def convert(name: str) -> Any:
        if isinstance(values[name], int):
            return values[name]
        return torch.tensor(values[name], dtype=dtype, requires_grad=requires_grad and name not in CONSTANTS)

    return [convert(name) for name in case.arguments]


def arrays(arguments: list[Any]) -> list[Any]:
    """The numbers that the tensors hold, after rounding to their dtype, in float64."""
    return [value.detach().double().numpy() if isinstance(value, torch.Tensor) else value for value in arguments]
