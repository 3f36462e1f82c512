"""`python -m bench [PART…] [--rounds N] [--list]`: prints the table; exit code 1 when a figure is missed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from rich.console import Console
from rich.table import Table

from bench import ansible, build, memory, startup
from bench.measure import Row

PARTS: dict[str, Callable[[int], list[Row]]] = {
    "startup": startup.measure,
    "ansible": ansible.measure,
    "build": build.measure,
    "memory": memory.measure,
}


def main() -> int:
    """Measures the parts asked for, all by default."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--rounds", type=int, default=5, help="measurements a figure; the median counts (5)")
    parser.add_argument("--list", action="store_true", help="name the parts and stop")
    options = parser.parse_args()
    if options.list:
        sys.stdout.write("\n".join(PARTS) + "\n")
        return 0
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    rows = [row for part in options.parts or PARTS for row in PARTS[part](options.rounds)]
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
