"""How the processes of a run come together: torchrun has started them, or this one starts the others here."""

import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import connection, parent_process, resource_tracker
from multiprocessing.context import SpawnProcess
from pathlib import Path

import torch.distributed as dist
from torch import multiprocessing

from torchdnc.training.config import RunConfig
from torchdnc.training.parallel import Group, Processes
from torchdnc.training.report import LostError, RunError

TORCHRUN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""The environment variables that torchrun sets."""
END = 10.0
"""Seconds in which a process ends by itself once the run is over."""
Follow = Callable[[Group], object]
"""What all processes but the first do."""


def by_torchrun() -> bool:
    """Whether torchrun, or whatever sets its environment variables, has started this process."""
    return all(name in os.environ for name in TORCHRUN)


def follows() -> bool:
    """Whether torchrun has started this process to follow another one's lead."""
    return by_torchrun() and os.environ["RANK"] != "0"


def launched(config: RunConfig) -> RunConfig:
    """The run with as many processes as torchrun has started.

    Raises:
        ValueError: this process is not to lead, or the batch has fewer rows than there are processes.
    """
    if not by_torchrun():
        return config
    if follows():
        raise ValueError(f"process 0 of torchrun leads the run, the others follow(), got RANK {os.environ['RANK']}")
    return replace(config, processes=int(os.environ["WORLD_SIZE"]))


@contextmanager
def led(processes: int, follow: Follow) -> Iterator[Group]:
    """The group that this process leads: torchrun's, or of as many fresh processes on this machine."""
    if processes == 1:
        yield Group()
    elif by_torchrun():
        with joined() as group:
            yield group
    else:
        with _started(processes, follow) as group:
            yield group


@contextmanager
def joined() -> Iterator[Group]:
    """The group of the processes that torchrun has started."""
    if os.environ["WORLD_SIZE"] == "1":
        yield Group()
        return
    with _met("env://") as group:
        yield group


@contextmanager
def _met(where: str, rank: int = -1, size: int = -1) -> Iterator[Group]:
    try:
        dist.init_process_group("gloo", init_method=where, rank=rank, world_size=size)
    except RuntimeError as error:
        raise LostError(f"the processes of the run did not meet ({error})") from error
    try:
        yield Processes()
    finally:
        dist.destroy_process_group()


@contextmanager
def _started(size: int, follow: Follow) -> Iterator[Group]:
    """The group of this process and those that it starts and ends."""
    with tempfile.TemporaryDirectory() as name, _loopback():
        folder = Path(name)
        others = _start(folder, size, follow)
        try:
            _await(folder, others)
            with _met(_store(folder), 0, size) as group:
                yield group
                for process in others:
                    process.join(END)
        finally:
            for process in others:
                process.kill()
                process.join()


def _store(folder: Path) -> str:
    return f"file://{folder / 'store'}"


@contextmanager
def _loopback() -> Iterator[None]:
    """Processes on one machine meet where no other machine can reach them."""
    name = "GLOO_SOCKET_IFNAME"
    before = os.environ.get(name)
    interfaces = [interface for _, interface in socket.if_nameindex() if interface.startswith("lo")]
    if not interfaces:
        raise LostError("the processes of the run have no loopback interface to meet on")
    os.environ[name] = interfaces[0]
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def _start(folder: Path, size: int, follow: Follow) -> list[SpawnProcess]:
    """Start all processes but this one, deaf to Ctrl-C, which reaches them too, and to SIGTERM: this one hears them."""
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=_work, args=(folder, rank, size, follow), daemon=True) for rank in range(1, size)]
    # It is started with the first process otherwise, and then takes the mask away.
    resource_tracker.ensure_running()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        for process in others:
            process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return others


def _await(folder: Path, others: list[SpawnProcess]) -> None:
    """Return when all have started; raises LostError if one ends instead."""
    while not all(_mark(folder, rank).exists() for rank in range(1, len(others) + 1)):
        if connection.wait([process.sentinel for process in others], timeout=0.05):
            raise LostError("another process of the run has ended")


def _mark(folder: Path, rank: int) -> Path:
    """The file that says that a process has started."""
    return folder / f"started-{rank}"


def _work(folder: Path, rank: int, size: int, follow: Follow) -> None:
    """What a process that was started here does; it never outlives the one that leads."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _mark(folder, rank).touch()
    try:
        with _met(_store(folder), rank, size) as group:
            follow(group)
    except RunError:
        # The leading process tells why.
        raise SystemExit(1) from None


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
