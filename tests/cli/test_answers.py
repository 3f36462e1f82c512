"""What verbs answer: each has its golden file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from ingot.api.outcomes import Built
from ingot.cli.render import answers
from ingot.cli.render.line import Line, draw, width
from ingot.model.image import CheckResult, CheckRun, LayerRecord, Outcome, Package
from ingot.model.plan import ContentId, LayerKey
from ingot.model.units import Bytes, Seconds
from ingot.model.views import (
    Begun,
    Dropped,
    Exported,
    Garbage,
    Inspected,
    Listed,
    Locked,
    Planned,
    PlannedLayer,
    SeenRun,
    Valid,
)

from .golden import DATA, compare

KEY = LayerKey("sha256:" + "0123456789abcdef" * 4)
CONTENT = ContentId("sha256:" + "fedcba9876543210" * 4)
GIB = 2**30

LISTED = Listed(
    project="acme",
    image="slurm-node",
    target="local",
    backend="local",
    location="local",
    version=12,
    ref="/srv/ingot/local/images/slurm-node-fedcba987654.qcow2",
    digest=CONTENT,
    size=Bytes(8 * GIB),
    arch="x86_64",
    created="2026-01-31T12:34:56+00:00",
    run="20260131-123000-ab12",
    checks="passed",
)
LAYERS = (
    LayerRecord(name="debian-12", key=KEY, status="reused", seconds=Seconds(0.0), bytes=Bytes(450 * 2**20)),
    LayerRecord(name="slurm", key=KEY, status="built", seconds=Seconds(41.0), bytes=Bytes(210 * 2**20)),
    LayerRecord(name="seal", key=KEY, status="built", seconds=Seconds(2.4), bytes=Bytes(3 * 2**20)),
)
CHECKS = CheckRun(
    digest=CONTENT,
    run="20260131-123000-ab12",
    created="2026-01-31T12:40:00+00:00",
    machine="qemu tcg",
    boot_seconds=Seconds(21.0),
    results=(
        CheckResult(name="boots", outcome="passed", seconds=Seconds(21.0)),
        CheckResult(
            name="test_sinfo", outcome="failed", seconds=Seconds(1.0), message="'idle' not in 'down'"
        ),
        CheckResult(name="test_gpu", outcome="skipped", seconds=Seconds(0.0)),
    ),
)
INSPECTED = Inspected(
    listed=LISTED,
    layers=LAYERS,
    packages=(Package(name="slurmd", version="22.05.8-4", arch="amd64"),),
    os_release={"PRETTY_NAME": "Debian GNU/Linux 12 (bookworm)"},
    kernel="6.1.0-40-amd64",
    ingot="0.1.0",
    checks=(CHECKS,),
)
OUTCOME = Outcome(
    image="slurm-node",
    target="local",
    backend="local",
    location="local",
    status="built",
    seconds=Seconds(72.0),
    version=12,
    ref=LISTED.ref,
    digest=CONTENT,
    layers=LAYERS,
    checks=CHECKS,
)
FAILED = Outcome(
    image="big-node",
    target="local",
    backend="local",
    location="local",
    status="failed",
    seconds=Seconds(3.0),
    error={"message": "it broke", "hint": "mend it", "code": 5, "facts": {"layer": "hwloc"}},
)
PLANNED = Planned(
    image="slurm-node",
    target="local",
    backend="local",
    location="local",
    arch="x86_64",
    disk=Bytes(8 * GIB),
    key=KEY,
    to_build=2,
    layers=(
        PlannedLayer(name="debian-12", key=KEY, status="hit"),
        PlannedLayer(name="slurm", key=KEY, status="miss", reason="vars.slurm_partition: debug → long"),
        PlannedLayer(name="seal", key=KEY, status="miss", reason="parent changed (slurm)"),
    ),
)
DROPPED = Dropped(
    name="slurm", key=KEY, bytes=Bytes(210 * 2**20), created="2026-01-31", reason="unused for 31d", image=""
)
RUN = SeenRun(
    id="20260131-123000-ab12",
    folder=Path("/srv/runs/r"),
    events=Path("/srv/runs/r/events.jsonl"),
    state="failed",
    verb="build",
    plans=("slurm-node/local",),
    seconds=Seconds(72.0),
    exit_code=5,
)

SCREENS: dict[str, Sequence[Line]] = {
    "begun": answers.begun(
        Begun(folder=Path("demo"), files=("ingot.yaml", "checks/test_node.py")), dry_run=False
    ),
    "valid": answers.valid(
        Valid(
            name="acme",
            files=("ingot.yaml",),
            images={"slurm-node": ("local",), "big-node": ("local", "aws")},
            variables={"partition": "command line", "quiet": "default"},
            warnings=("ingot.yaml:9:7: `slurm_partion` is no variable of the role",),
        )
    ),
    "planned": answers.planned([PLANNED], verbose=0),
    "planned-nothing": answers.planned([], verbose=0),
    "locked": answers.locked(
        Locked(path=Path("/p/ingot.lock"), pins=3, changes=("debian-12 bookworm: new → 12ab",)), dry_run=False
    ),
    "locked-still": answers.locked(Locked(path=Path("/p/ingot.lock"), pins=3), dry_run=False),
    "outcomes": answers.outcomes(Built(run="r", outcomes=(OUTCOME, FAILED), saved=Seconds(95.0))),
    "failures": answers.failures([OUTCOME, FAILED]),
    "listed": answers.listed([LISTED]),
    "listed-nothing": answers.listed([]),
    "inspected": answers.inspected(INSPECTED, verbose=1),
    "history": answers.history(INSPECTED, columns=0),
    "run": answers.run(RUN),
    "runs": answers.runs([RUN], columns=0),
    "garbage": answers.garbage(Garbage(drops=(DROPPED,), runs=("r",), kept=Bytes(GIB)), done=True, columns=0),
    "garbage-nothing": answers.garbage(Garbage(kept=Bytes(GIB)), done=True, columns=0),
    "swept": answers.swept(["r: local.machine m1"], ["r: local.machine m2"], dry_run=False),
    "swept-nothing": answers.swept([], [], dry_run=False),
    "exported": answers.exported(
        Exported(
            image="slurm-node",
            target="local",
            format="qcow2",
            path=Path("node.qcow2"),
            bytes=Bytes(900 * 2**20),
            seconds=Seconds(8.0),
        ),
        dry_run=False,
    ),
}


@pytest.mark.parametrize("name", SCREENS)
def test_answers(name: str) -> None:
    compare(draw(SCREENS[name], colour=False), DATA / "answers" / f"{name}.txt")


def test_tables_fit_a_narrow_terminal() -> None:
    assert all(width(line) <= 60 for line in answers.listed([LISTED] * 3, columns=60))
