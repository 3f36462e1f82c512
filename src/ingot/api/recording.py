"""Recording what a run made: the catalog, the last plans, and `packer-manifest.json`. Done by one process alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ingot.errors import UsageError
from ingot.model.events import Warned

if TYPE_CHECKING:
    from ingot.api.making import Made
    from ingot.engine.run import Run
    from ingot.model.image import Image, Outcome
    from ingot.model.plan import Plan
    from ingot.stores import packer_manifest
    from ingot.stores.catalog import Catalog
    from ingot.stores.state import State


@dataclass(frozen=True, kw_only=True, slots=True)
class Recorder:
    """Records what came of the plans of one run. For several threads."""

    state: State
    run: Run
    catalog: Catalog

    def keep(self, plan: Plan, made: Made) -> Made:
        """Records an image that is there now; returns it with the version that it has."""
        assert made.image is not None
        version = self.catalog.record(
            plan.project, made.image, target=plan.target, run=self.run.id, manifest=made.manifest
        )
        self.state.save_plan(plan)
        return replace(made, outcome=replace(made.outcome, version=version))

    def copies(self, plan: Plan, copies: Sequence[Image]) -> None:
        """Records the same image at further locations."""
        for copy in copies:
            self.catalog.record(plan.project, copy, target=plan.target, run=self.run.id)

    def outcome(self, plan: Plan, outcome: Outcome) -> Outcome:
        """Records what came of the plan in the end, its checks too."""
        if outcome.checks is not None:
            self.catalog.record_checks(outcome.checks)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self.catalog.record_outcome(outcome, project=plan.project, run=self.run.id, created=now)
        return outcome


def write_packer_manifest(outcomes: Sequence[Outcome], *, folder: Path, run: Run) -> None:
    """`packer-manifest.json` of the run, and the project's, which grows with each run that built something."""
    from ingot.stores import packer_manifest

    builds = [_packer_build(outcome) for outcome in outcomes if outcome.ref]
    if not builds:
        return
    packer_manifest.write(run.directory / packer_manifest.NAME, builds, run=run.id, force=True)
    ours = folder / packer_manifest.NAME
    if ours.exists() and all(outcome.status != "built" for outcome in outcomes):
        return
    try:
        packer_manifest.write(ours, builds, run=run.id)
    except (UsageError, OSError) as error:  # the images are there and recorded: no reason to fail
        hint = f"this run's own is {run.directory / packer_manifest.NAME}"
        run.emit(Warned(message=f"the project's manifest was not written: {error}", hint=hint))


def _packer_build(outcome: Outcome) -> packer_manifest.PackerBuild:
    from ingot.stores import packer_manifest

    path = Path(outcome.ref)
    files = ((outcome.ref, path.stat().st_size),) if path.is_file() else None
    return packer_manifest.PackerBuild(
        name=outcome.image,
        builder_type=outcome.backend,
        build_time=int(datetime.now(UTC).timestamp()),
        artifact_id=outcome.ref,
        files=files,
        custom_data={
            "target": outcome.target,
            "version": str(outcome.version),
            "digest": outcome.digest,
        },
    )
