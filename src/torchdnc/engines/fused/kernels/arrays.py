"""What kernels work on, by name. Numba takes such tuples apart."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]


class Team(NamedTuple):
    """Threads that share a call, and the addresses of GOMP_parallel, GOMP_barrier, omp_get_thread_num and
    omp_get_num_threads, which one thread alone does not need. OpenMP may give fewer threads than asked for.
    """

    threads: int
    parallel: int
    barrier: int
    which: int
    members: int


class Options(NamedTuple):
    """What kernels ask of `MemoryOptions`.

    through_writes: gradients flow from the usage into the write weights before; linked: there are links; skips: slots
    that were never written take no part in look-ups; wipes: what is freed is forgotten; masked: look-ups have masks;
    floor: the least of these; reclaims: slots are released when more than the share `high` of them are in use, down to
    `low`; grows: rows have sizes of their own, doubled above the usage `above`, up to `most`.
    """

    through_writes: bool
    linked: bool
    skips: bool
    wipes: bool
    masked: bool
    floor: float
    reclaims: bool
    high: float
    low: float
    grows: bool
    above: float
    most: int


class Sizes(NamedTuple):
    """Numbers of a call.

    X: of the interface; layers: of the controller; recurrent: it is an LSTM; bound: of its activations' gradients;
    slots: of a row that starts afresh; normed: the raw interface is normalised; beside: it has a share of its own at
    every step; keep: the tape is for a backward pass; every: steps between two checkpoints; again: between links that
    backward makes again, from one checkpoint to the next.
    """

    T: int
    B: int
    I: int
    H: int
    N: int
    W: int
    R: int
    X: int
    layers: int
    recurrent: bool
    bound: float
    options: Options
    slots: int
    normed: bool
    beside: bool
    keep: bool
    every: int
    again: int


class Weights(NamedTuple):
    """controller: the weights of all layers, flat, one after another, each [gates·H, I + R·W + (H) + (H below)];
    interface: flat, of [X, layers·H]; interface_bias [X]; gain, norm_bias [X] and epsilon: of its normalisation; beside
    [T, B, X]: what else comes to the raw interface at every step. What a call does not have is of no size."""

    controller: Array
    interface: Array
    interface_bias: Array
    gain: Array
    norm_bias: Array
    epsilon: float
    beside: Array


class Tape(NamedTuple):
    """What forward leaves for backward; without `keep` there are two places, used in turn, and one step.

    gates [layers, T, B, gates·H]: their inputs' share, then squashed. hidden, cells [layers, places, B, H];
    squashed [layers, steps, B, H]: tanh of the cells. interfaces [steps, B, X]: squashed. normals [steps, B, X + 1]:
    see `interface.normalize`. rows [places, B, ·]: see `layout.tape_parts`. orders [steps, B, N]: the free lists. reads
    [places, B, R·W]. memory [B, N·W], link [B, N·N]: of the latest step. memories, links: the same before every
    `every`-th step. alive [T, B]: before a row's end; fresh [T, B]: rows that start afresh, from zeros, never past
    their end.
    """

    gates: Array
    hidden: Array
    cells: Array
    squashed: Array
    interfaces: Array
    normals: Array
    rows: Array
    orders: Array
    reads: Array
    memory: Array
    link: Array
    memories: Array
    links: Array
    alive: Array
    fresh: Array


class Carried(NamedTuple):
    """Gradients of the state after a step, turned into those of the state before it.

    hidden, cells [layers, B, H]; memory: a `MemoryState` of flat rows, whose weightings lie in `weightings` [B, ·]
    until the first step: usage, write_weights, precedence, read_weights; reads [B, R·W].
    """

    hidden: Array
    cells: Array
    memory: Any
    weightings: Array
    reads: Array


class Found(NamedTuple):
    """Gradients that every step leaves, of the raw gates, of the raw interface and of the normalised one [T, B, X]."""

    gates: Array
    interfaces: Array
    normals: Array


class Scratch(NamedTuple):
    """Room to work in.

    work [threads, ·]: for the memory of a row. chi [pieces, B, ·]: what a layer sees, for each thread that works on the
    same rows, and its gradient. hidden [B, ·]: the gradient of h.
    wanted [B]: the most slots that a row would have had, of no size unless rows grow; nothing: the tape's row of the
    state that a row starts afresh from; zeros: as many as a memory, the links or a layer have. memories
    [every + 1, B, N·W]: the steps between two checkpoints, replayed; links [·, B, N·N]: before every `again`-th of
    them, but for the checkpoint; both of no size forward.
    """

    work: Array
    chi: Array
    hidden: Array
    wanted: Array
    nothing: Array
    zeros: Array
    memories: Array
    links: Array
