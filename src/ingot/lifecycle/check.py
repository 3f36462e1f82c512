"""Checks of a finished image: it is booted on a throw-away overlay and looked at over SSH.

Built-in checks come first (`builtin_checks`), then the user's own pytest-testinfra files (`testinfra`). A check that
fails is a result, not an error: the run is recorded, and the caller decides what it means.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ingot.errors import BackendError, DeadlineError, IngotError, NotFoundError
from ingot.forensics.report import Examiner
from ingot.lifecycle import builtin_checks, testinfra
from ingot.model.definition import CheckMachine
from ingot.model.digest import short
from ingot.model.events import CheckFinished, Emit
from ingot.model.image import CheckResult, CheckRun, Image, LayerRef
from ingot.model.secret import Secret, scrubber
from ingot.model.units import Bytes, Seconds
from ingot.ports import Backend, Cancel, Clock, Holder, Machine, MachineSpec

MEMORY = Bytes(2 * 2**30)
CPUS = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class _Booted:
    machine: Machine
    seconds: Seconds


def check(
    image: Image,
    *,
    paths: Sequence[Path],
    root: Path,
    backend: Backend,
    held: Holder,
    run: str,
    directory: Path,
    timeout: Seconds,
    emit: Emit,
    cancel: Cancel,
    clock: Clock,
    subject: str = "",
    kind: CheckMachine = "vm",
    secrets: Mapping[str, Secret] | None = None,
) -> CheckRun:
    """Boots the image and checks it; whatever became of the machine is gone when this returns.

    A `vm` is the real thing: boot loader, kernel, first boot. `booted` is the system alone, on the builder's kernel.

    `paths` are testinfra files or folders, `root` is the project's folder; `directory` is the run's, where the
    console's log and pytest's are left, and all that was seen of a machine that did not come up or was lost, without
    `secrets`. `timeout` bounds it all. Raises NotFoundError for an image whose layers are
    gone, and BackendError where this computer cannot boot anything; an image that does not come up is a failed check.
    """
    created = clock.now().isoformat(timespec="seconds")
    started = clock.monotonic()
    results: list[CheckResult] = []
    about, boot_seconds = "", Seconds(0.0)
    spec = _spec(image, backend, kind, limit=timeout)
    log = _console_log(directory, image)
    examiner = Examiner(
        hosts=backend.hosts,
        directory=directory,
        image=image.name,
        scrub=scrubber(secrets or {}),
        emit=emit,
        subject=subject,
    )
    with _booted(spec, backend, held, examiner, log=log, emit=emit, cancel=cancel, clock=clock) as came:
        if isinstance(came, CheckResult):
            _tell(came, results, subject=subject, emit=emit)
        else:
            about = getattr(came.machine, "about", came.machine.kind)
            boot_seconds = came.seconds
            left = Seconds(timeout - (clock.monotonic() - started))
            found = _look(came, paths, root=root, directory=directory, left=left, clock=clock, cancel=cancel)
            for result in found:
                _tell(result, results, subject=subject, emit=emit)
            if any(result.outcome == "failed" for result in results):
                for result in _stays(came, examiner):
                    _tell(result, results, subject=subject, emit=emit)
    return CheckRun(
        digest=image.digest,
        run=run,
        created=created,
        machine=about,
        boot_seconds=boot_seconds,
        results=tuple(results),
    )


def _look(
    booted: _Booted,
    paths: Sequence[Path],
    *,
    root: Path,
    directory: Path,
    left: Seconds,
    clock: Clock,
    cancel: Cancel,
) -> Iterator[CheckResult]:
    started = clock.monotonic()
    yield CheckResult(name="boots", outcome="passed", seconds=booted.seconds)
    for name, look in builtin_checks.KNOWN.items():
        begun = clock.monotonic()
        remaining = Seconds(max(1.0, left - (begun - started)))
        try:
            verdict = look(booted.machine, timeout=remaining, cancel=cancel)
        except DeadlineError:
            verdict = builtin_checks.failed("it was not settled when the time for checks ran out")
        yield CheckResult(
            name=name,
            outcome=verdict.outcome,
            message=verdict.message,
            seconds=Seconds(clock.monotonic() - begun),
        )
    if paths:
        remaining = Seconds(max(1.0, left - (clock.monotonic() - started)))
        yield from testinfra.run(
            paths, booted.machine, root=root, directory=directory, timeout=remaining, cancel=cancel
        )


def _stays(booted: _Booted, examiner: Examiner) -> Iterator[CheckResult]:
    """The failed check that the machine was lost meanwhile, if it was."""
    error = BackendError("the machine was lost")
    told = examiner.explain(error, booted.machine.ref, lost=True)
    if told is not error:
        yield _failed("stays up", told, seconds=Seconds(0.0))


def _failed(name: str, error: IngotError, *, seconds: Seconds) -> CheckResult:
    bundle = str(error.facts.get("bundle", ""))
    more = (f"all of it is in {bundle}", f"try: {error.hint}") if bundle else ()
    return CheckResult(
        name=name,
        outcome="failed",
        seconds=seconds,
        message="\n".join((error.message, *more)),
        hint=error.hint,
        bundle=bundle,
    )


@contextlib.contextmanager
def _booted(
    spec: MachineSpec,
    backend: Backend,
    held: Holder,
    examiner: Examiner,
    *,
    log: Path,
    emit: Emit,
    cancel: Cancel,
    clock: Clock,
) -> Iterator[_Booted | CheckResult]:
    """The image as a machine that answers, or the failed check that it did not become one."""
    started = clock.monotonic()
    ref = held.open(backend.hosts.machine(spec))
    console: object = None
    try:
        try:
            machine = backend.hosts.attach(ref, emit=emit, cancel=cancel)
        except (BackendError, DeadlineError) as error:
            if "console" not in error.facts:
                raise  # there was no machine that could have come up
            console = error.facts["console"]
            seconds = Seconds(clock.monotonic() - started)
            yield _failed("boots", examiner.explain(error, ref), seconds=seconds)
            return
        console = getattr(machine, "console", None)
        yield _Booted(machine=machine, seconds=Seconds(clock.monotonic() - started))
    finally:
        _keep_console(console, log)
        held.close(ref)


def _spec(image: Image, backend: Backend, kind: CheckMachine, *, limit: Seconds) -> MachineSpec:
    own = backend.hosts.own_kind
    return MachineSpec(
        parent=_layer(image, backend),
        kind=own if own == "instance" else kind,
        purpose="look",
        arch=image.arch,
        memory=MEMORY,
        cpus=CPUS,
        boot_limit=limit,
        labels={"check": image.name},
    )


def _layer(image: Image, backend: Backend) -> LayerRef:
    layer = backend.layer(image.key)
    if layer is None or layer.content != image.digest:
        raise NotFoundError(
            f"the layers of the image {image.name} ({short(image.digest)}) are lost, damaged or replaced",
            hint="build it again, then check it",
        )
    return layer


def _console_log(directory: Path, image: Image) -> Path:
    return directory / f"console-{image.name.replace('/', '-')}.log"


def _keep_console(console: object, log: Path) -> None:
    """The machine's folder goes with it; what it said is kept in the run's."""
    if isinstance(console, (str, Path)) and Path(console).exists():
        log.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(console, log)


def _tell(result: CheckResult, results: list[CheckResult], *, subject: str, emit: Emit) -> None:
    results.append(result)
    emit(
        CheckFinished(
            subject=subject,
            check=result.name,
            outcome=result.outcome,
            seconds=result.seconds,
            message=result.message,
        )
    )
