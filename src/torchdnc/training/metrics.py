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
        """Drop the rows of later steps, and a last one that was torn off; raises ValueError for what is no row."""
        kept = 0
        for number, line in enumerate(self.path.read_bytes().splitlines(keepends=True), 1):
            if not line.endswith(b"\n") or self._step(number, line) > step:
                break
            kept += len(line)
        self._file.truncate(kept)

    def _step(self, number: int, line: bytes) -> int:
        try:
            return int(json.loads(line)["step"])
        except (ValueError, KeyError, TypeError) as error:
            text = line.decode(errors="replace").strip()
            raise ValueError(f"{self.path}, line {number}: must be a row with a step, got {text!r}") from error

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
