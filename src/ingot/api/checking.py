"""Checking built images: boot, look, record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ingot.api import adapters
from ingot.api.outcomes import Built, error_of, exit_code, first_of, with_error
from ingot.errors import CancelledError, CheckError, IngotError, NotFoundError
from ingot.model.events import Emit
from ingot.model.image import CheckRun, Image, Outcome
from ingot.model.units import Seconds

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ingot.api.workspace import Workspace
    from ingot.engine.run import Run
    from ingot.model.definition import CheckMachine
    from ingot.ports import Backend, Cancel
    from ingot.stores.catalog import Catalog, Entry


def check(
    workspace: Workspace,
    names: Sequence[str],
    *,
    targets: Sequence[str],
    kind: CheckMachine | None,
    emit: Emit,
    cancel: Cancel,
) -> Built:
    """Checks the newest version of each image that was built and is meant."""
    from ingot.engine.run import Run
    from ingot.engine.sweep import sweep
    from ingot.stores.catalog import Catalog

    with Catalog(workspace.state.catalog) as catalog:
        entries = _chosen(workspace, catalog, names, targets)
        sweep(workspace.state.runs, adapters.open_place(workspace), emit=emit)
        run = Run(
            workspace.state.runs,
            verb="check",
            plans=[f"{entry.image}/{entry.target}" for entry in entries],
            sinks=(emit,),
            secrets=workspace.loaded.secrets,
        )
        with run:
            started = run.clock.monotonic()
            checker = Checker(workspace=workspace, run=run, cancel=cancel, kind=kind)
            outcomes = tuple(_recorded(catalog, checker.check_entry(entry)) for entry in entries)
            error = error_of(outcomes)
            run.exit_code = exit_code(error) if error else 0
            seconds = Seconds(run.clock.monotonic() - started)
    return Built(run=run.id, outcomes=outcomes, seconds=seconds)


def _recorded(catalog: Catalog, outcome: Outcome) -> Outcome:
    if outcome.checks is not None:
        catalog.record_checks(outcome.checks)
    return outcome


@dataclass(frozen=True, kw_only=True, slots=True)
class Checker:
    """Checks images of one run; what it sees is for others to record."""

    workspace: Workspace
    run: Run
    cancel: Cancel
    kind: CheckMachine | None = None
    """What to check on; None for what each image says."""

    def check_entry(self, entry: Entry) -> Outcome:
        """The outcome of checking one image of the catalog."""
        from ingot.api.using import image_of

        started = self.run.clock.monotonic()
        options = self.workspace.definition.targets[entry.target].options
        backend = adapters.open_backend(
            self.workspace, entry.backend, options=options, directory=self.run.directory
        )
        outcome = Outcome(
            image=entry.image,
            target=entry.target,
            backend=entry.backend,
            location=entry.location,
            status="reused",
            seconds=Seconds(0.0),
            version=entry.version,
            ref=entry.ref,
            digest=entry.digest,
        )
        done = self.checked(outcome, image=image_of(entry), backend=backend, options=options)
        return replace(done, seconds=Seconds(self.run.clock.monotonic() - started))

    def checked(
        self, outcome: Outcome, *, image: Image, backend: Backend, options: Mapping[str, Any]
    ) -> Outcome:
        """The outcome with its checks; what fails here is told in its error, and the image stays."""
        try:
            checks = self._look(outcome, image, backend, options)
        except (IngotError, BaseExceptionGroup) as raised:
            error = first_of(raised)
            if isinstance(error, CancelledError) or not isinstance(error, IngotError):
                raise error from raised
            return with_error(outcome, error)
        told = replace(outcome, checks=checks)
        return told if checks.passed else with_error(told, self._failure(checks, outcome))

    def _look(self, outcome: Outcome, image: Image, backend: Backend, options: Mapping[str, Any]) -> CheckRun:
        from ingot.engine.journal import Place
        from ingot.engine.resources import Resources
        from ingot.lifecycle.check import check as look

        subject = f"{outcome.image}/{outcome.target}"
        paths, timeout = _checks_of(self.workspace, outcome.image)
        kind = self.kind or self.workspace.definition.images[outcome.image].check_machine
        run = self.run
        place = Place(backend=outcome.backend, location=outcome.location, options=options)
        with Resources(run.journal, place=place, emit=run.emit, subject=subject) as held:
            return look(
                image,
                paths=[self.workspace.root / path for path in paths],
                root=self.workspace.root,
                backend=backend,
                held=held,
                run=run.id,
                directory=run.directory,
                timeout=timeout,
                emit=run.emit,
                cancel=self.cancel,
                clock=run.clock,
                subject=subject,
                kind=kind,
                secrets=self.workspace.loaded.secrets,
            )

    def _failure(self, checks: CheckRun, outcome: Outcome) -> CheckError:
        failed = [result.name for result in checks.results if result.outcome == "failed"]
        seen = next((result for result in checks.results if result.bundle), None)
        named = ", ".join(failed[:5]) + (f" and {len(failed) - 5} more" if len(failed) > 5 else "")
        return CheckError(
            f"{len(failed)} of {len(checks.results)} checks failed: {named}",
            hint=seen.hint if seen else f"the image is kept; `ingot shell {outcome.image}` looks inside",
            failed=tuple(failed),
            log=str(self.run.directory),
            bundle=seen.bundle if seen else "",
        )


def _checks_of(workspace: Workspace, image: str) -> tuple[tuple[str, ...], Seconds]:
    """The paths of an image's checks, those of what it continues first, and the time for all of them."""
    images = workspace.definition.images
    lineage = [images[image]]
    while lineage[0].parent:
        lineage.insert(0, images[lineage[0].parent])
    paths = dict.fromkeys(path for one in lineage for path in one.checks)
    return tuple(paths), images[image].check_timeout


def _chosen(
    workspace: Workspace, catalog: Catalog, names: Sequence[str], targets: Sequence[str]
) -> list[Entry]:
    """The newest version of all that is meant; without names, of what was built at all."""
    from ingot.planning.planner import select

    project = workspace.definition.name
    found: list[Entry] = []
    missing: NotFoundError | None = None
    for image, target in select(workspace.definition, names, targets):
        try:
            found.append(catalog.find(project, image, target=target))
        except NotFoundError as error:
            missing = error
    if missing and (names or not found):
        raise missing
    return found
