"""metrics.jsonl, one row per line; and TensorBoard."""

import errno
import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torchdnc.training.config import RunConfig
from torchdnc.training.report import DiskError, Progress, Reporter, Result, RunError

METRICS = "metrics.jsonl"


class MetricsFile:
    """A run's rows of metrics, locked while it is open: whoever holds it trains the run.

    Raises:
        RunError: another process holds it.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / METRICS
        # Unbuffered: a full disk shows at the row that does not fit.
        self._file = open(self.path, "a+b", buffering=0)  # noqa: SIM115
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise RunError(f"{folder} is being trained by another process") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def cut_after(self, step: int) -> None:
        """Drop the rows of later steps, and a last one that was torn off."""
        kept = 0
        for line in self.path.read_bytes().splitlines(keepends=True):
            if not line.endswith(b"\n") or json.loads(line)["step"] > step:
                break
            kept += len(line)
        self._file.truncate(kept)

    def append(self, row: Mapping[str, Any]) -> None:
        """Write a row; raises DiskError if it does not fit on the disk."""
        line = json.dumps(row).encode() + b"\n"
        try:
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise self._disk_error(error) from error

    def sync(self) -> None:
        """Return when all rows are on disk."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._disk_error(error) from error

    def _disk_error(self, error: OSError) -> DiskError:
        return DiskError(f"{self.path} could not be written: {error.strerror}; earlier files are intact")


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run's metrics; a last one that is still being written is left out."""
    lines = (folder / METRICS).read_bytes().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


class TensorBoard(Reporter):
    """Writes every row as scalars for TensorBoard, into the run's folder.

    Raises:
        ValueError: the package tensorboard is not installed.
    """

    def __init__(self) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ValueError(
                "tensorboard must be installed to write for it: pip install 'torchdnc[tensorboard]'"
            ) from error
        self._open = SummaryWriter

    def started(self, config: RunConfig, run_dir: Path, progress: Progress) -> None:
        self._writer = self._open(str(run_dir / "tensorboard"), purge_step=progress.step + 1)

    def logged(self, row: Mapping[str, Any]) -> None:
        values = {f"valid/{name}": value for name, value in row.get("valid", {}).items()}
        values |= {f"train/{name}": row[name] for name in ("loss", "grad_norm") if name in row}
        for name, value in values.items():
            self._writer.add_scalar(name, value, row["step"])

    def ended(self, result: Result | None) -> None:
        self._writer.close()
