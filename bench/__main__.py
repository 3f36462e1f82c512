"""`python -m bench [PART…] [--rounds N] [--list]`: prints the table; exit code 1 when a figure is missed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from rich.console import Console
from rich.table import Table

from bench import ansible, build, machines, memory, startup, upload
from bench.measure import Row

PARTS: dict[str, tuple[Callable[[int], list[Row]], int]] = {
    "startup": (startup.measure, 5),
    "ansible": (ansible.measure, 5),
    "build": (build.measure, 5),
    "machines": (machines.measure, 3),
    "memory": (memory.measure, 1),
    "upload": (upload.measure, 3),
}
"""Each part, and how many measurements a figure has where nothing else is asked for."""


def main() -> int:
    """Measures the parts asked for, all by default."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument(
        "--rounds",
        type=int,
        help="measurements a figure, of which the median counts; what is right for each part",
    )
    parser.add_argument("--list", action="store_true", help="name the parts and stop")
    options = parser.parse_args()
    if options.list:
        sys.stdout.write("\n".join(PARTS) + "\n")
        return 0
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    rows = []
    for part in options.parts or PARTS:
        measure, usual = PARTS[part]
        rows += measure(options.rounds or usual)
    show(rows)
    return int(any(row.missed for row in rows))


def show(rows: list[Row]) -> None:
    """Prints the table."""
    table = Table(title="Ingot's figures on this computer")
    for title in ("figure", "measured", "limit", "beside", ""):
        table.add_column(title, justify="right" if title in ("measured", "limit") else "left")
    for row in rows:
        verdict = "missed" if row.missed else ("ok" if row.limit is not None else "reported")
        limit = "" if row.limit is None else f"{row.limit:.3g} {row.unit}"
        table.add_row(row.name, f"{row.value:.3g} {row.unit}", limit, row.peer, verdict)
    Console(width=120).print(table)


if __name__ == "__main__":
    sys.exit(main())
