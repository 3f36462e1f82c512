"""Timing whole commands, and what a measured figure is judged by."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
CACHE = HERE / ".cache" / "bench"
INGOT = str(Path(sys.executable).parent / "ingot")


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One figure. `limit` is what it must not exceed; None reports it without judging."""

    name: str
    value: float
    limit: float | None
    unit: str = "s"
    peer: str = ""
    excused: bool = False
    """An absolute limit was missed, but not as a multiple of the reference of the same run."""

    @property
    def missed(self) -> bool:
        """Whether the figure is over its limit with no excuse."""
        return self.limit is not None and self.value > self.limit and not self.excused


REFERENCE = 0.35
"""Seconds that `reference` took on the computer on which the absolute limits were set."""


def absolute(name: str, value: float, *, limit: float, rule: float) -> Row:
    """A figure in seconds with a limit: missed only where it is missed as a multiple of the reference `rule` too."""
    peer = f"importing pydantic and sqlalchemy: {rule:.2f} s"
    return Row(name=name, value=value, limit=limit, peer=peer, excused=value / rule <= limit / REFERENCE)


def beside(
    name: str,
    ours: Sequence[float],
    theirs: Sequence[float],
    *,
    limit: float,
    tool: str,
    reason: str = "",
) -> Row:
    """Our median as a multiple of another tool's; with a `reason` why that one was not measured, ours in seconds."""
    middle = statistics.median(ours)
    if reason:
        return Row(name=name, value=middle, limit=None, peer=f"not measured: {reason}")
    other = statistics.median(theirs)
    peer = f"Ingot: {middle:.1f} s, {tool}: {other:.1f} s"
    return Row(name=name, value=middle / other, limit=limit, unit="×", peer=peer)


def surroundings(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of what is measured: this one, but with Python's bytecode kept, as users have it."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, **(extra or {})}


def command(
    argv: Sequence[str], *, environment: Mapping[str, str] | None = None, cwd: Path | None = None
) -> float:
    """Seconds that a command takes; it must succeed, and a failure shows what it printed."""
    started = time.monotonic()
    done = subprocess.run(
        list(argv),
        env=surroundings(environment),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    seconds = time.monotonic() - started
    if done.returncode:
        sys.stderr.write(done.stdout.decode(errors="replace")[-4000:])
        raise SystemExit(f"bench: {' '.join(argv)} exited with {done.returncode}")
    return seconds


def median(rounds: int, measure: Callable[[], float]) -> float:
    """The median of so many measurements."""
    return statistics.median(measure() for _ in range(rounds))


def reference(rounds: int) -> float:
    """Seconds to import pydantic and sqlalchemy: how quick this computer is right now."""
    return median(rounds, lambda: command([sys.executable, "-c", "import pydantic, sqlalchemy"]))
