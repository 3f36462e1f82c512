"""How long the program itself takes: its help, and a build with nothing to do."""

from __future__ import annotations

from bench.measure import INGOT, Row, command, median, reference
from bench.project import IMAGE, slurm_node

HELP, NOTHING = 0.2, 0.7
# The same limits as multiples of the reference, taken on the computer that the limits were set on (0.35 s).
HELP_RATIO, NOTHING_RATIO = HELP / 0.35, NOTHING / 0.35


def measure(rounds: int) -> list[Row]:
    """`ingot --help` and a build in which every layer is there."""
    project = slurm_node("startup")
    project.ingot("build", IMAGE)
    rule = reference(rounds)
    shown = median(rounds, lambda: command([INGOT, "--help"]))
    idle = median(rounds, lambda: project.ingot("build", IMAGE))
    peer = f"importing pydantic and sqlalchemy: {rule:.2f} s"
    return [
        Row(name="ingot --help", value=shown, limit=HELP, peer=peer, excused=shown <= HELP_RATIO * rule),
        Row(
            name="build, nothing changed",
            value=idle,
            limit=NOTHING,
            peer=peer,
            excused=idle <= NOTHING_RATIO * rule,
        ),
    ]
