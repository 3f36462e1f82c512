"""Cold builds and one-line changes of `examples/slurm-node`, beside mkosi with the same packages, interleaved."""

from __future__ import annotations

import json
import statistics
from itertools import count

from bench import mkosi
from bench.measure import Row, absolute, beside, reference
from bench.project import IMAGE, Project, change, forget_layers, last_role, slurm_node

COLD, REBUILD, BEYOND_TASKS = 0.6, 0.35, 5.0


def measure(rounds: int) -> list[Row]:
    """Both tools in turn, so that a busy moment hits both."""
    project = slurm_node("build")
    project.ingot("build", IMAGE)
    packages = [package["name"] for package in project.read("inspect", IMAGE)["packages"]]
    reason = mkosi.unavailable()
    numbers = count(1)
    if not reason:
        mkosi.prepare(packages)
        mkosi.build(cold=True)
    ours: dict[str, list[float]] = {"cold": [], "rebuild": [], "beyond": []}
    theirs: dict[str, list[float]] = {"cold": [], "rebuild": []}
    rules = []
    for _ in range(rounds):
        rules.append(reference(1))
        forget_layers(project)
        ours["cold"].append(project.ingot("build", IMAGE))
        if not reason:
            theirs["cold"].append(mkosi.build(cold=True))
        change(last_role(project), next(numbers))
        total, tasks = rebuild(project)
        ours["rebuild"].append(total)
        ours["beyond"].append(total - tasks)
        if not reason:
            mkosi.change(next(numbers))
            theirs["rebuild"].append(mkosi.build(cold=False))
    return rows(ours, theirs, reason=reason, packages=len(packages), rule=statistics.median(rules))


def rebuild(project: Project) -> tuple[float, float]:
    """Seconds of a build after a change, and how many of them the role's own tasks took."""
    events = project.folder / "events.jsonl"
    events.unlink(missing_ok=True)
    total = project.ingot("build", IMAGE, "--events", str(events))
    tasks = [json.loads(line) for line in events.read_text().splitlines()]
    return total, sum(event["seconds"] for event in tasks if event["event"] == "TaskFinished")


def rows(
    ours: dict[str, list[float]], theirs: dict[str, list[float]], *, reason: str, packages: int, rule: float
) -> list[Row]:
    """The figures as ratios to mkosi's, or as they are where mkosi could not run."""
    middle = {name: statistics.median(values) for name, values in ours.items()}
    found = [
        absolute(
            "one line changed, beyond its role's tasks", middle["beyond"], limit=BEYOND_TASKS, rule=rule
        ),
        Row(name="one line changed", value=middle["rebuild"], limit=None),
        Row(name="cold, downloads cached", value=middle["cold"], limit=None, peer=f"{packages} packages"),
    ]
    for name, limit in (("cold", COLD), ("rebuild", REBUILD)):
        row = beside(f"{name} / mkosi", ours[name], theirs[name], limit=limit, tool="mkosi", reason=reason)
        found.append(row)
    return found
