"""Calls drawn at random, on the fused engine and on the reference: python benchmarks/soak.py --minutes 30 --seed 0.

Cases are numbered from the seed on; `--case NUMBER` runs one again, alone. What a case is: tests/engines/draws.py (each
is of one dtype; controllers of one's own are not among them, tests/engines/test_stepwise.py, nor bidirectional ones,
whose calls cannot be cut, tests/engines/test_fused.py); what counts as a mismatch: tests/engines/verdict.py. Writes
results/soak.json, also when it is interrupted; ends with 1 if there was a mismatch, or if more than a fiftieth of the
steps were undecided.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
# Threads that wait must not keep the cores from those that work; OpenMP reads this once, when it is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# The measure and the cases are those of the tests.
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from tests.engines.draws import Draw, draw  # noqa: E402
from tests.engines.verdict import CEILING, FLOOR, MULTIPLE, Findings, judge  # noqa: E402

from torchdnc.bench.record import environment, write  # noqa: E402

UNDECIDED = 50
"""One step in so many may be undecided."""
EVERY = 10
"""Seconds between lines of progress."""
KINDS = (
    "dtype",
    "start",
    "way",
    "layout",
    "controller",
    "lengths",
    "reset",
    "usage_gradient",
    "skip_unwritten",
    "links",
    "deallocation",
    "masking",
    "normed",
    "clip",
    "scale",
    "threads",
)


@dataclass
class Soak:
    """The cases so far."""

    first: int
    cases: int = 0
    findings: Findings = field(default_factory=Findings)
    kinds: dict[str, Counter[str]] = field(default_factory=lambda: {kind: Counter() for kind in KINDS})

    def run(self, number: int) -> None:
        """One case; what it raises is a mismatch too."""
        drawn, known = draw(number), len(self.findings.mismatches)
        try:
            judge(drawn, self.findings)
        except Exception as error:
            traceback.print_exc()
            self.findings.mismatches.append({"case": number, "raised": repr(error), "settings": drawn.about()})
        for mismatch in self.findings.mismatches[known:]:
            print(_sentence(mismatch), file=sys.stderr, flush=True)
        self._count(drawn)

    def _count(self, drawn: Draw) -> None:
        self.cases += 1
        about = drawn.about()
        for kind, counter in self.kinds.items():
            counter[str(about[kind])] += 1

    @property
    def failed(self) -> bool:
        """Whether there was a mismatch, or too much that could not be compared."""
        counts = self.findings.counts
        return bool(self.findings.mismatches) or UNDECIDED * counts["undecided"] > counts["steps"]

    def record(self) -> dict[str, Any]:
        """What was found."""
        findings = self.findings
        return {
            "cases": self.cases,
            "first": self.first,
            "mismatches": findings.mismatches,
            "worst error": findings.errors,
            "multiples of the reference's own error in float32": _spread(findings.multiples),
            "allowed": {
                "float64": FLOOR[torch.float64],
                "float32": f"{MULTIPLE} times the reference's own error, from {FLOOR[torch.float32]} to "
                f"{CEILING[torch.float32]}",
            },
            **{name: findings.counts[name] for name in ("steps", "compared", "cut", "undecided", "rough")},
        }


def _spread(values: list[float]) -> dict[str, float]:
    """The median, what all but one of a hundred are at most, and the largest."""
    ordered = sorted(values)
    shares = {"median": 0.5, "99 of 100": 0.99, "most": 1.0} if ordered else {}
    return {name: ordered[round(share * (len(ordered) - 1))] for name, share in shares.items()}


def _sentence(mismatch: dict[str, Any]) -> str:
    again = f"python benchmarks/soak.py --case {mismatch['case']}"
    if "raised" in mismatch:
        return f"mismatch: it raised {mismatch['raised']}: {again}"
    first, last = mismatch["steps"]
    name, error = max(mismatch["errors"].items(), key=lambda item: item[1])
    where = f"steps {first} to before {last}, {name} is off by {error:.3g}, allowed {mismatch['allowed']:.3g}"
    return f"mismatch: {where}: {again}"


def soak(first: int, minutes: float) -> tuple[Soak, float, bool]:
    """Cases from the first on for so many minutes; the seconds it took, and whether it was interrupted."""
    made, began = Soak(first), time.monotonic()
    told = began
    try:
        while (now := time.monotonic()) - began < 60 * minutes:
            if now - told > EVERY:
                print(_progress(made, now - began), file=sys.stderr, flush=True)
                told = now
            made.run(first + made.cases)
    except KeyboardInterrupt:
        return made, time.monotonic() - began, True
    return made, time.monotonic() - began, False


def _progress(made: Soak, seconds: float) -> str:
    upcoming, mismatches = made.first + made.cases, len(made.findings.mismatches)
    return f"{seconds / 60:.1f} min: {made.cases} cases, {mismatches} mismatches; next: {upcoming}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long (30)")
    parser.add_argument("--seed", type=int, default=0, help="number of the first case (0)")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "results" / "soak.json", help="where to write (results/soak.json)"
    )
    parser.add_argument("--case", type=int, help="run this case alone, and write nothing")
    given = parser.parse_args()
    if not 0 < given.minutes < float("inf"):
        parser.error(f"--minutes must be a finite number above 0, got {given.minutes}")
    for name in ("seed", "case"):
        if (getattr(given, name) or 0) < 0:
            parser.error(f"--{name} must be at least 0, got {getattr(given, name)}")
    if not given.out.parent.is_dir():
        parser.error(f"--out must be in a folder that exists, got {given.out}")
    return given


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """One case alone, or a soak and its record."""
    given = _arguments()
    if given.case is not None:
        alone = Soak(given.case)
        alone.run(given.case)
        print(json.dumps({"settings": draw(given.case).about(), **alone.record()}, indent=2))
        return int(bool(alone.findings.mismatches))
    signal.signal(signal.SIGTERM, _interrupt)
    # Before the result is written: a result in a checkout of a commit makes the rest of it no other.
    where = environment()
    made, seconds, interrupted = soak(given.seed, given.minutes)
    record = {
        "command": f"python benchmarks/soak.py --minutes {given.minutes:g} --seed {given.seed}",
        **where,
        "seconds": round(seconds, 1),
        "interrupted": interrupted,
        **made.record(),
        "drawn": {kind: dict(sorted(counter.items())) for kind, counter in made.kinds.items()},
    }
    write(given.out, record)
    print(f"{_progress(made, seconds)}; written to {given.out}", file=sys.stderr)
    return 130 if interrupted else int(made.failed)


if __name__ == "__main__":
    sys.exit(main())
