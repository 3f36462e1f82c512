"""The workspace: one project, its state folder, and every verb as a method."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ingot.errors import UsageError
from ingot.model.events import Emit, ignore
from ingot.system.waits import WallClock

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from ingot.api.outcomes import Built
    from ingot.definition.load import Loaded
    from ingot.engine.sweep import Swept
    from ingot.engine.work import Decide
    from ingot.model.definition import CheckMachine, Definition
    from ingot.model.plan import Plan
    from ingot.model.units import Bytes, Seconds
    from ingot.model.views import (
        Begun,
        Examined,
        Exported,
        Garbage,
        Inspected,
        Listed,
        Locked,
        Planned,
        SeenRun,
        Usage,
        Valid,
    )
    from ingot.ports import Cancel, Clock
    from ingot.stores.state import State


def schema() -> dict[str, Any]:
    """The JSON Schema of `ingot.yaml`."""
    from ingot.definition.schema import json_schema

    return json_schema()


def begin(folder: Path, *, name: str = "", cloud_init: str | None = None, dry_run: bool = False) -> Begun:
    """Writes a project that builds as it is into a folder. Raises UsageError where there is a definition already.

    `cloud_init` is user-data that starts a container, such as `EC2Cluster.get_cloud_init()` of dask-cloudprovider
    returns: the project's image then has all that it asks for.
    """
    from ingot.definition.fields import as_name
    from ingot.definition.from_cloud_init import definition_from_cloud_init
    from ingot.definition.starter import starter
    from ingot.model.views import Begun
    from ingot.system.files import write_atomically

    if (folder / "ingot.yaml").exists():
        raise UsageError(
            f"{folder / 'ingot.yaml'} is there already", hint="begin in another folder: `ingot init NAME`"
        )
    name = name or as_name(folder.absolute().name) or "demo"
    files = starter(name) if cloud_init is None else definition_from_cloud_init(cloud_init, name=name)
    fresh = {path: text for path, text in files.items() if not (folder / path).exists()}
    if not dry_run:
        for path, text in fresh.items():
            write_atomically(folder / path, text)
    return Begun(folder=folder, files=tuple(fresh))


@dataclass(frozen=True)
class Workspace:
    """A project with everything that acts on it. Made by `open`; the definition is read when first needed.

    Names are globs, and none mean everything. Methods that take time tell what happens through `emit` and end early
    with CancelledError once `cancel` says so.
    """

    project: Path
    state: State
    variables: Mapping[str, str] = field(default_factory=dict)
    var_files: Sequence[Path] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    simulated: str | None = None
    """The habits of the pretend cloud that stands in for every backend; None for the real ones."""
    clock: Clock = field(default_factory=WallClock)
    """What tells whether the lock's epoch is over."""

    @classmethod
    def open(
        cls,
        project: Path = Path(),
        *,
        variables: Mapping[str, str] | None = None,
        var_files: Sequence[Path] = (),
        environment: Mapping[str, str] | None = None,
        state: Path | None = None,
    ) -> Workspace:
        """The project in a folder.

        `variables` and `var_files` are as on the command line; `environment` is where INGOT_VAR_* and INGOT_STATE
        are looked up, the process's own unless given.
        """
        from ingot.stores.state import State, default_root

        known = os.environ if environment is None else environment
        return cls(
            project=project,
            state=State(state or default_root(known)),
            variables=dict(variables or {}),
            var_files=tuple(var_files),
            environment=known,
        )

    @cached_property
    def loaded(self) -> Loaded:
        """The definition, its secrets and its warnings. Raises DefinitionError with every problem."""
        from ingot import backends
        from ingot.definition.load import load

        return load(
            self.project,
            variables=self.variables,
            var_files=self.var_files,
            environment=self.environment,
            shape_of=backends.find_shape,
        )

    @property
    def definition(self) -> Definition:
        """What the user wrote, complete."""
        return self.loaded.definition

    @property
    def root(self) -> Path:
        """The project's folder, absolute."""
        return Path(self.definition.root)

    def image_names(self) -> tuple[str, ...]:
        """The images of the definition, matrix multiplied out."""
        return tuple(self.definition.images)

    def validate(self) -> Valid:
        """That the definition has no mistakes: it loads, and every image can be planned but for its pins."""
        from ingot.api import planning

        return planning.validate(self)

    def lock(
        self,
        *,
        update: bool = False,
        dry_run: bool = False,
        emit: Emit = ignore,
        cancel: Cancel | None = None,
    ) -> Locked:
        """Pins what is not pinned yet; with `update`, everything anew. Raises BackendError where it can't be seen."""
        from ingot.api import planning

        return planning.lock(self, update=update, dry_run=dry_run, emit=emit, cancel=cancel or _never())

    def plans(
        self,
        names: Sequence[str] = (),
        *,
        targets: Sequence[str] = (),
        locked: bool = False,
        keep_pins: bool = False,
        emit: Emit = ignore,
    ) -> tuple[Plan, ...]:
        """The plans themselves, parents first. Missing pins are looked up, and written with `keep_pins`;
        PlanError instead with `locked`."""
        from ingot.api import planning

        return planning.plans(self, names, targets=targets, locked=locked, keep_pins=keep_pins, emit=emit)

    def plan(
        self,
        names: Sequence[str] = (),
        *,
        targets: Sequence[str] = (),
        locked: bool = False,
        no_cache: bool = False,
        emit: Emit = ignore,
    ) -> tuple[Planned, ...]:
        """What a build would do, layer by layer, and why. Nothing is made, and `ingot.lock` stays as it is."""
        from ingot.api import planning

        return planning.plan(self, names, targets=targets, locked=locked, no_cache=no_cache, emit=emit)

    def examine(self, names: Sequence[str] = (), *, targets: Sequence[str] = ()) -> tuple[Examined, ...]:
        """What a build would lack at the place of each target, found out in seconds with nothing made.

        Without a definition: what most builds on this computer need.
        """
        from ingot.api import examining

        return examining.examine(self, names, targets=targets)

    def policy(self, names: Sequence[str] = (), *, targets: Sequence[str] = ()) -> Mapping[str, Any]:
        """What the credentials for one target must allow, in the cloud's own words; no call is made.

        Raises UsageError where there is no such target, or several.
        """
        from ingot.api import examining

        return examining.policy(self, names, targets=targets)

    def build(
        self,
        names: Sequence[str] = (),
        *,
        targets: Sequence[str] = (),
        no_cache: bool = False,
        check: bool = False,
        locked: bool = False,
        jobs: int = 1,
        from_step: str = "",
        deadline: Seconds | None = None,
        simulate: str | None = None,
        on_error: Literal["cleanup", "keep", "ask"] = "cleanup",
        keep_for: Seconds | None = None,
        ask: Decide | None = None,
        executor: Executor | None = None,
        emit: Emit = ignore,
        cancel: Cancel | None = None,
    ) -> Built:
        """Builds images and records them, `jobs` of them at once; one that fails does not keep others from being
        tried (`Built.error`). With several jobs `emit` is called from several threads, by one at a time.

        `from_step` is applied anew with all after it, whatever layers are there. When the `deadline` is over, what runs
        is ended and its machine removed; finished layers are kept.

        `on_error` tells what becomes of a machine on which a step failed: `keep` leaves it for `ssh`, for 12 hours unless
        `keep_for` says else; `ask` has `ask` decide, which may also have the step tried again.

        With an `executor` that is not one of threads each image is a job of its own, in a process of its own, wherever
        the executor runs it; `dask` gives one with `client.get_executor(pure=False)`. `jobs` does not count then.

        With `simulate` all of it happens in a pretend cloud of these habits ("" for none), and leaves nothing.
        """
        from ingot.api import building
        from ingot.api.making import Wish

        wish = Wish(
            names=names,
            targets=targets,
            no_cache=no_cache,
            check=check,
            locked=locked,
            jobs=jobs,
            from_step=from_step,
            deadline=deadline,
            on_error=on_error,
            **({} if keep_for is None else {"keep_for": keep_for}),
        )
        if simulate is None:
            return building.build(
                self, wish, executor=executor, emit=emit, cancel=cancel or _never(), ask=ask
            )
        from ingot.api import simulating

        return simulating.build(
            self, wish, habits=simulate, executor=executor, emit=emit, cancel=cancel or _never()
        )

    def resume(self, run: str, *, emit: Emit = ignore, cancel: Cancel | None = None) -> Built:
        """Builds again what a run was asked for, from the last layers that it finished; what it kept is removed.

        Where that run was to ask about a failure, this one keeps the machine.

        Raises NotFoundError and UsageError for a run that cannot be resumed.
        """
        from ingot.api import resuming

        return resuming.resume(self, run, emit=emit, cancel=cancel or _never())

    def ssh(
        self, run: str, *, command: Sequence[str] = (), emit: Emit = ignore, cancel: Cancel | None = None
    ) -> int:
        """Runs a shell (or a command) on the machine of a run, on this terminal; returns its exit code.

        Of a run that goes on, or of one that failed and kept its machine, which is kept again afterwards. Raises
        NotFoundError where there is none.
        """
        from ingot.api import using

        return using.enter(self, run, command=command, emit=emit, cancel=cancel or _never())

    def check(
        self,
        names: Sequence[str] = (),
        *,
        targets: Sequence[str] = (),
        machine: CheckMachine | None = None,
        emit: Emit = ignore,
        cancel: Cancel | None = None,
    ) -> Built:
        """Boots built images and runs their checks; results are recorded by the images' digests.

        `machine` is what to boot them on, `vm` or `booted`; what each image says unless given.
        """
        from ingot.api import checking

        return checking.check(
            self, names, targets=targets, kind=machine, emit=emit, cancel=cancel or _never()
        )

    def shell(
        self,
        name: str,
        *,
        target: str = "",
        command: Sequence[str] = (),
        emit: Emit = ignore,
        cancel: Cancel | None = None,
    ) -> int:
        """Runs a shell (or a command) in a throw-away copy of an image, on this terminal; returns its exit code."""
        from ingot.api import using

        return using.shell(self, name, target=target, command=command, emit=emit, cancel=cancel or _never())

    def export(
        self,
        name: str,
        *,
        form: str = "",
        output: Path | None = None,
        target: str = "",
        force: bool = False,
        dry_run: bool = False,
        emit: Emit = ignore,
        cancel: Cancel | None = None,
    ) -> Exported:
        """Writes an image as one flat disk: `qcow2`, `raw`, `vhd`, `vmdk` or `gce`; the format of `output`'s ending
        unless given. Raises RefusedError for a file that is there, without `force`."""
        from ingot.api import using

        wish = using.ExportWish(
            name=name, form=form, output=output, target=target, force=force, dry_run=dry_run
        )
        return using.export(self, wish, emit=emit, cancel=cancel or _never())

    def usage(
        self,
        name: str,
        *,
        form: str,
        output: Path | None = None,
        target: str = "",
        force: bool = False,
        dry_run: bool = False,
    ) -> Usage:
        """How something uses an image: `dask`. `output` is a file for one of the texts, by its ending.

        Raises PlanError for an image that it cannot use, RefusedError for a file that is there, without `force`.
        """
        from ingot.api import using

        wish = using.ExportWish(
            name=name, form=form, output=output, target=target, force=force, dry_run=dry_run
        )
        return using.usage(self, wish)

    def list(
        self, names: Sequence[str] = (), *, targets: Sequence[str] = (), everything: bool = False
    ) -> tuple[Listed, ...]:
        """The newest version of each built image of this project; with `everything`, all versions."""
        from ingot.api import looking

        return looking.listed(self, names, targets=targets, everything=everything)

    def inspect(self, name: str, *, target: str = "") -> Inspected:
        """All that is known of an image: `node`, or `node@3`. Raises NotFoundError, telling what there is."""
        from ingot.api import looking

        return looking.inspect(self, name, target=target)

    def runs(self) -> tuple[SeenRun, ...]:
        """All runs in the state folder, the newest first."""
        from ingot.api import looking

        return looking.runs(self.state.runs)

    def living(self) -> tuple[SeenRun, ...]:
        """The runs that go on now, and dead ones that left something behind."""
        from ingot.api import looking

        return looking.living(self.state.runs)

    def cancel(self, name: str, *, emit: Emit = ignore, cancel: Cancel | None = None) -> SeenRun:
        """Has a run of another process clean up and end, and waits until it has.

        Raises NotFoundError for one that there is not, RefusedError for one that has ended, DeadlineError for one
        that does not end.
        """
        from ingot.api import keeping

        return keeping.cancel(self, name, emit=emit, cancel=cancel or _never())

    def run(self, name: str = "") -> SeenRun:
        """The run of this id, or that begins so; the newest without. Raises NotFoundError."""
        from ingot.api import looking

        return looking.run(self.state.runs, name)

    def gc(
        self,
        *,
        target: str = "",
        max_size: Bytes | None = None,
        older_than: Seconds | None = None,
        dry_run: bool = False,
        emit: Emit = ignore,
    ) -> Garbage:
        """Removes layers that nothing needs: of the newest images never one. `max_size` caps what all layers take.

        Of this computer's store, or where a `target` keeps its own.
        """
        from ingot.api import keeping

        return keeping.garbage(
            self, target=target, max_size=max_size, older_than=older_than, dry_run=dry_run, emit=emit
        )

    def sweep(self, names: Sequence[str] = (), *, dry_run: bool = False, emit: Emit = ignore) -> Swept:
        """Removes what dead runs left: all of them, or those named. Raises RefusedError for one that is alive."""
        from ingot.api import keeping

        return keeping.sweep(self, names, dry_run=dry_run, emit=emit)

    def sweep_strays(
        self, *, older_than: float = 3600.0, dry_run: bool = False, emit: Emit = ignore
    ) -> Swept:
        """Removes temporary things that bear Ingot's marks, are so many seconds old, and belong to no run that
        goes on; the places of the definition's targets are looked at, without a definition this computer."""
        from ingot.api import keeping

        return keeping.strays(self, older_than=older_than, dry_run=dry_run, emit=emit)


def _never() -> Cancel:
    from ingot.system.waits import Flag

    return Flag()
