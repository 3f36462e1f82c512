"""How long the program itself takes: its help, and a build with nothing to do."""

from __future__ import annotations

import statistics

from bench.measure import INGOT, Row, absolute, command, reference
from bench.project import IMAGE, slurm_node

HELP, NOTHING = 0.2, 0.7


def measure(rounds: int) -> list[Row]:
    """`ingot --help` and a build in which every layer is there."""
    project = slurm_node("startup")
    project.ingot("build", IMAGE)
    # In turn, so that a busy moment hits all three.
    rules, shown, idle = [], [], []
    for _ in range(rounds):
        rules.append(reference(1))
        shown.append(command([INGOT, "--help"]))
        idle.append(project.ingot("build", IMAGE))
    rule = statistics.median(rules)
    return [
        absolute("ingot --help", statistics.median(shown), limit=HELP, rule=rule),
        absolute("build, nothing changed", statistics.median(idle), limit=NOTHING, rule=rule),
    ]
