"""Using what was built: a shell in a throw-away copy, and disks for somewhere else."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingot.api import adapters
from ingot.api.looking import one
from ingot.errors import NotFoundError, RefusedError
from ingot.model.events import Emit
from ingot.model.image import Image
from ingot.model.units import Bytes, Seconds
from ingot.model.views import Exported, Usage

if TYPE_CHECKING:
    from ingot.api.workspace import Workspace
    from ingot.engine.run import Run
    from ingot.model.image import LayerRef
    from ingot.ports import Backend, Cancel, SshAccess
    from ingot.stores.catalog import Entry


def entry_of(workspace: Workspace, name: str, *, target: str) -> Entry:
    """The catalog's entry of a built image."""
    from ingot.stores.catalog import Catalog

    with Catalog(workspace.state.catalog) as catalog:
        return one(workspace, catalog, name, target=target)


def layer_of(backend: Backend, entry: Entry) -> LayerRef:
    """The sealed layer of an image. Raises NotFoundError where it is no longer there, or not whole."""
    layer = backend.layer(entry.key)
    if layer is None or layer.content != entry.digest:
        raise NotFoundError(
            f"the layers of {entry.image}@{entry.version} are no longer in the {entry.backend} store",
            hint=f"`ingot build {entry.image}` makes them again",
        )
    return layer


@contextmanager
def running(workspace: Workspace, verb: str, subject: str, *, emit: Emit) -> Iterator[Run]:
    """A run of its own for something done with one image; dead runs are swept first."""
    from ingot.engine.run import Run
    from ingot.engine.sweep import sweep

    sweep(workspace.state.runs, adapters.open_place(workspace), emit=emit)
    run = Run(
        workspace.state.runs,
        verb=verb,
        plans=[subject],
        sinks=(emit,),
        secrets=workspace.loaded.secrets,
    )
    with run:
        yield run


def shell(
    workspace: Workspace, name: str, *, target: str, command: Sequence[str], emit: Emit, cancel: Cancel
) -> int:
    """Runs a shell or a command in a throw-away machine; returns its exit code."""
    from ingot.engine.journal import Place
    from ingot.engine.resources import Resources
    from ingot.ports import MachineSpec
    from ingot.system import ssh

    entry = entry_of(workspace, name, target=target)
    subject = f"{entry.image}/{entry.target}"
    options = workspace.definition.targets[entry.target].options
    with running(workspace, "shell", subject, emit=emit) as run:
        backend = adapters.open_backend(workspace, entry.backend, options=options, directory=run.directory)
        layer = layer_of(backend, entry)
        place = Place(backend=entry.backend, location=entry.location, options=options)
        with Resources(run.journal, place=place, emit=run.emit, subject=subject) as held:
            spec = MachineSpec(parent=layer, purpose="look", arch=entry.arch)
            ref = held.open(backend.hosts.machine(spec))
            machine = backend.hosts.attach(ref, emit=run.emit, cancel=cancel)
            try:
                return _on_this_terminal(machine.ssh, command, cancel=cancel)
            finally:
                ssh.close(machine.ssh)


def _on_this_terminal(access: SshAccess, command: Sequence[str], *, cancel: Cancel) -> int:
    from ingot.system import process, ssh

    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    argv = ssh.argv(access, *command, terminal=terminal)
    client = process.spawn(argv, stdin=None, stdout=None, stderr=None)
    try:
        while client.poll() is None:
            cancel.check()
            cancel.wait(Seconds(0.1))
    finally:
        process.end(client)
    return client.returncode


def enter(workspace: Workspace, name: str, *, command: Sequence[str], emit: Emit, cancel: Cancel) -> int:
    """Runs a shell or a command on the machine that a run has, or has kept; returns its exit code."""
    from ingot.api import looking
    from ingot.engine.journal import Journal
    from ingot.engine.run import LOCK
    from ingot.ports import SshAccess
    from ingot.system.locks import try_lock

    found = looking.run(workspace.state.runs, name)
    with try_lock(found.folder / LOCK) as ours:
        records = [one for one in Journal(found.folder, run=found.id).read() if one.ref]
        if not ours:
            configs = [found.folder / "ssh" / f"{one.ref}.config" for one in records]
            running = next((path for path in configs if path.exists()), None)
            if running:
                return _on_this_terminal(SshAccess(config=running, host=running.stem), command, cancel=cancel)
        kept = next((one for one in records if one.until), None)
        if not ours or kept is None:
            raise NotFoundError(
                f"run {found.id} has no machine {'yet' if not ours else 'any more'}",
                hint="`ingot ps` lists what runs hold; `ingot build --on-error keep` keeps a machine that fails",
            )
        hosts = adapters.open_place(workspace)(kept.place, found.folder).hosts
        machine = hosts.attach(kept.ref, emit=emit, cancel=cancel)
        try:
            return _on_this_terminal(machine.ssh, command, cancel=cancel)
        finally:
            hosts.keep(kept.ref, kept.until)


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportWish:
    """What `export` was asked for; an empty `form` is guessed from the output's name."""

    name: str
    form: str = ""
    output: Path | None = None
    target: str = ""
    force: bool = False
    dry_run: bool = False


def export(workspace: Workspace, wish: ExportWish, *, emit: Emit, cancel: Cancel) -> Exported:
    """Writes the image to the named file, or into the folder that we stand in under its own name."""
    from ingot.lifecycle import export as exporting

    entry = entry_of(workspace, wish.name, target=wish.target)
    subject = f"{entry.image}/{entry.target}"
    options = workspace.definition.targets[entry.target].options
    backend = adapters.open_backend(workspace, entry.backend, options=options, directory=workspace.state.runs)
    endings = exporting.endings(backend)
    output = wish.output or Path()
    form = wish.form or exporting.guess_format(output, endings)
    image = image_of(entry)
    path = exporting.decide_output(image, format=form, output=output, endings=endings)
    if wish.dry_run:
        return Exported(image=entry.image, target=entry.target, format=form, path=path)
    layer_of(backend, entry)
    with running(workspace, "export", subject, emit=emit) as run:
        started = run.clock.monotonic()
        written = exporting.export(
            image,
            format=form,
            output=path,
            backend=backend,
            cancel=cancel,
            force=wish.force,
            emit=run.emit,
            subject=subject,
        )
        seconds = Seconds(run.clock.monotonic() - started)
    return Exported(
        image=entry.image,
        target=entry.target,
        format=form,
        path=written,
        bytes=Bytes(written.stat().st_size),
        seconds=seconds,
    )


def image_of(entry: Entry) -> Image:
    """The catalog's entry as the image that its backend registered."""
    return Image(
        name=entry.image,
        backend=entry.backend,
        location=entry.location,
        ref=entry.ref,
        digest=entry.digest,
        key=entry.key,
        arch=entry.arch,
        size=entry.size,
        created=entry.created,
    )


def usage(workspace: Workspace, wish: ExportWish) -> Usage:
    """How what is called `wish.form` uses the image; into the named file, where one is named."""
    from ingot.lifecycle.consumers import KNOWN, Consumed, choose_text, tell
    from ingot.stores.catalog import Catalog
    from ingot.system.files import write_atomically

    with Catalog(workspace.state.catalog) as catalog:
        found = one(workspace, catalog, wish.name, target=wish.target)
        built = catalog.images(found.project, found.image)
        manifest = catalog.manifest(found.digest)
    targets = workspace.definition.targets
    own = targets.get(found.target)
    same = [copy for copy in built if (copy.version, copy.target) == (found.version, found.target)]
    entry = next((copy for copy in same if own and copy.location == own.location), found)
    wanted = KNOWN[wish.form].backend
    told = tell(
        wish.form,
        Consumed(
            image=image_of(entry),
            options=own.options if own else {},
            containers=docker_images(manifest.plan if manifest else {}),
            copies={copy.location: copy.ref for copy in same if copy.location != entry.location},
        ),
        suited=tuple(name for name, target in targets.items() if target.backend == wanted),
    )
    path = wish.output
    if path is not None:
        text = choose_text(told, path.name)
        if path.exists() and not wish.force:
            raise RefusedError(
                f"{path} is there already", hint="`--force` replaces it; `-o` names another file"
            )
        if not wish.dry_run:
            write_atomically(path, text)
    return Usage(
        image=entry.image,
        target=entry.target,
        format=wish.form,
        ref=entry.ref,
        settings=told.settings,
        texts=told.texts,
        path=path,
    )


def docker_images(plan: Mapping[str, Any]) -> tuple[str, ...]:
    """The container images that a plan, as a manifest has it, pulls with docker."""
    steps = (step for layer in plan.get("layers", ()) for step in layer["steps"])
    pulled = (one for one in steps if one["kind"] == "containers" and one["tool"] in ("", "docker"))
    return tuple(image for step in pulled for image in step["images"])
