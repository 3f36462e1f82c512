"""The contracts of `ingot.ports` as tests that every backend passes. Needs pytest.

    from ingot.testing.backend_suite import BackendSuite, Subject

    class TestMine(BackendSuite):
        @pytest.fixture
        def subject(self, tmp_path: Path) -> Subject:
            return MySubject(tmp_path)

A subject tells the suite what only the backend's author knows: how the place is opened again, as a later process would,
how a file gets onto a machine's disk, and what of all that was made is still there.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol, TypeVar

import pytest

from ingot.engine import trace
from ingot.engine.build import build
from ingot.engine.records import Built
from ingot.engine.run import Run
from ingot.engine.sweep import sweep
from ingot.errors import BackendError, CancelledError, IngotError, NotFoundError, RefusedError
from ingot.model.definition import DebootstrapBase
from ingot.model.digest import digest
from ingot.model.events import Emit, ignore
from ingot.model.image import LayerRef, Package
from ingot.model.plan import Base, Layer, LayerKey, Plan, layer_key
from ingot.model.secret import Secret
from ingot.model.step import FilesStep, MachineKind, SealStep, Step
from ingot.model.units import Bytes, Seconds
from ingot.ports import Backend, Cancel, HostKind, Machine, MachineSpec, Needle, Token
from ingot.system.waits import Flag
from ingot.testing import kill

T = TypeVar("T")
_SECRET = "correct-horse-battery-staple"


class Subject(Protocol):
    """One backend at one place that the suite may use as it likes, with a base to stand on."""

    @property
    def base(self) -> LayerRef:
        """A layer that is there already, of any content. The suite never drops it."""
        ...

    @property
    def planned(self) -> Base:
        """The same as a plan has it; `some_base` for a backend that does not look at what it is made from."""
        ...

    @property
    def kind(self) -> HostKind:
        """What kind of machine is asked for, where the backend has several."""
        ...

    def open(self, directory: Path) -> Backend:
        """The backend, opened anew, as another process would; `directory` is the run's own folder."""
        ...

    def write(self, machine: Machine, path: str, text: str) -> None:
        """Puts a file onto the machine's disk."""
        ...

    def read(self, machine: Machine, path: str) -> str | None:
        """The text of a file on the machine's disk; None for none."""
        ...

    def seal(self, machine: Machine) -> None:
        """Takes from the disk what only the machine was to have; nothing where it has nothing."""
        ...

    def left(self) -> Sequence[str]:
        """Whatever temporary things are there now, by any name: machines, processes, mounts, ports."""
        ...


class BackendSuite:
    """Inherit, and give it a fixture `subject`."""

    every = 1
    """Of a build's moments, each so-manieth is one at which it is killed."""

    def test_a_thing_is_found_by_its_token_until_it_is_deleted(
        self, subject: Subject, tmp_path: Path
    ) -> None:
        backend = subject.open(tmp_path)
        token = Token("ingot-suite-found-1")
        resource = backend.hosts.machine(MachineSpec(parent=subject.base, kind=subject.kind))
        assert resource.find(token) is None
        ref = resource.create(token)
        assert _eventually(lambda: resource.find(token), resource.settles) == ref
        resource.delete(ref)
        assert _eventually(lambda: resource.find(token) is None, resource.settles)
        resource.delete(ref)
        assert not subject.left()

    def test_what_another_process_made_is_deleted_by_its_kind_and_ref(
        self, subject: Subject, tmp_path: Path
    ) -> None:
        made = subject.open(tmp_path / "1").hosts.machine(MachineSpec(parent=subject.base, kind=subject.kind))

        def make() -> None:
            backend = subject.open(tmp_path / "1")
            resource = backend.hosts.machine(MachineSpec(parent=subject.base, kind=subject.kind))
            backend.hosts.attach(resource.create(Token("ingot-suite-other-1")), emit=ignore, cancel=Flag())
            os.kill(os.getpid(), signal.SIGKILL)

        assert _in_process(make) == signal.SIGKILL
        later = subject.open(tmp_path / "2").resource(made.kind)
        ref = _eventually(lambda: later.find(Token("ingot-suite-other-1")), later.settles)
        assert ref
        later.delete(ref)
        assert not subject.left()

    def test_a_dead_runs_machine_is_a_stray(self, subject: Subject, tmp_path: Path) -> None:
        def make() -> None:
            resource = subject.open(tmp_path / "1").hosts.machine(
                MachineSpec(parent=subject.base, kind=subject.kind)
            )
            resource.create(Token("ingot-suite-stray-1"))
            os.kill(os.getpid(), signal.SIGKILL)

        assert _in_process(make) == signal.SIGKILL
        backend = subject.open(tmp_path / "2")
        kind = backend.hosts.machine(MachineSpec(parent=subject.base, kind=subject.kind)).kind
        settles = backend.resource(kind).settles
        found = _eventually(lambda: list(backend.strays(older_than=Seconds(0.0))), settles)
        assert [one for one, _ in found or ()] == [kind]
        assert list(backend.strays(older_than=Seconds(3600.0))) == []
        for one, ref in found or ():
            backend.resource(one).delete(ref)
        assert not subject.left()

    def test_a_kept_machine_is_as_it_was_left(self, subject: Subject, tmp_path: Path) -> None:
        backend = subject.open(tmp_path / "1")
        resource = backend.hosts.machine(MachineSpec(parent=subject.base, kind=subject.kind))
        ref = resource.create(Token("ingot-suite-kept-1"))
        machine = backend.hosts.attach(ref, emit=ignore, cancel=Flag())
        subject.write(machine, "/root/mine", "still here")
        backend.hosts.keep(ref, time.time() + 3600)
        later = subject.open(tmp_path / "1")
        machine = later.hosts.attach(ref, emit=ignore, cancel=Flag())
        assert subject.read(machine, "/root/mine") == "still here"
        later.hosts.keep(ref, time.time() + 3600)
        subject.open(tmp_path / "2").resource(resource.kind).delete(ref)
        assert not subject.left()

    def test_a_kind_that_is_not_ours_is_a_key_error(self, subject: Subject, tmp_path: Path) -> None:
        with pytest.raises(KeyError):
            subject.open(tmp_path).resource("nobody.knows-it")

    def test_a_layer_holds_what_was_written(self, subject: Subject, tmp_path: Path) -> None:
        backend = subject.open(tmp_path / "1")
        with _machine(backend, subject.base, kind=subject.kind) as machine:
            subject.write(machine, "/root/one", "1")
            one = _freeze(backend, machine, "suite-holds-1")
            # The machine goes on, on top of what was frozen.
            again = backend.hosts.attach(machine.ref, emit=ignore, cancel=Flag())
            assert subject.read(again, "/root/one") == "1"
            subject.write(again, "/root/two", "2")
            two = _freeze(backend, again, "suite-holds-2")
        # A backend whose layers are whole disks has none that stands on another.
        assert (one.parent, two.parent) in ((subject.base.content, one.content), (None, None))
        later = subject.open(tmp_path / "2")
        assert (_complete(later, one), _complete(later, two)) == (one, two)
        with _machine(later, one, purpose="look") as machine:
            assert (subject.read(machine, "/root/one"), subject.read(machine, "/root/two")) == ("1", None)
        assert not subject.left()

    def test_what_was_not_frozen_is_lost(self, subject: Subject, tmp_path: Path) -> None:
        backend = subject.open(tmp_path)
        before = {layer.ref.content for layer in backend.layers.layers()}
        with _machine(backend, subject.base, kind=subject.kind) as machine:
            subject.write(machine, "/root/lost", "1")
        assert {layer.ref.content for layer in backend.layers.layers()} == before
        with _machine(backend, subject.base, kind=subject.kind, purpose="look") as machine:
            assert subject.read(machine, "/root/lost") is None

    def test_the_same_key_again_takes_over(self, subject: Subject, tmp_path: Path) -> None:
        backend = subject.open(tmp_path)
        first = _layer(subject, backend, "suite-again", "1")
        second = _layer(subject, backend, "suite-again", "2")
        assert first.content != second.content
        assert _complete(backend, second) == second

    def test_a_cancelled_freeze_makes_no_layer(self, subject: Subject, tmp_path: Path) -> None:
        backend, cancel = subject.open(tmp_path), Flag()
        with _machine(backend, subject.base, kind=subject.kind) as machine:
            cancel.set()
            with pytest.raises(CancelledError):
                _freeze(backend, machine, "suite-cancelled", cancel=cancel)
        assert backend.layer(_key("suite-cancelled")) is None
        assert not subject.left()

    def test_a_machine_that_is_gone_is_told(self, subject: Subject, tmp_path: Path) -> None:
        with pytest.raises(NotFoundError) as told:
            subject.open(tmp_path).hosts.attach("ingot-suite-never-1", emit=ignore, cancel=Flag())
        assert "ingot-suite-never-1" in str(told.value) and told.value.hint

    def test_a_machine_that_is_well_has_no_trouble(self, subject: Subject, tmp_path: Path) -> None:
        backend = subject.open(tmp_path)
        with _machine(backend, subject.base, kind=subject.kind) as machine:
            assert backend.hosts.examine(machine.ref) is None
            subject.write(machine, "/root/one", "1")
            assert subject.read(machine, "/root/one") == "1"

    def test_a_disk_does_not_shrink(self, subject: Subject, tmp_path: Path) -> None:
        backend = subject.open(tmp_path)
        with (
            pytest.raises(BackendError, match="shrink"),
            _machine(backend, subject.base, kind=subject.kind, disk=Bytes(2**20)),
        ):
            pass
        assert not subject.left()

    def test_a_secret_is_found_with_its_place(self, subject: Subject, tmp_path: Path) -> None:
        backend = subject.open(tmp_path)
        needle = Needle(name="the secret token", value=Secret(_SECRET))
        with _machine(backend, subject.base, kind=subject.kind) as machine:
            subject.write(machine, "/opt/config", f"token={_SECRET}")
            found = backend.hosts.scan(machine, [needle], cancel=Flag())
        assert any(one.what == needle.name and "/opt/config" in one.where for one in found)
        assert _SECRET not in str(found)

    def test_an_image_is_made_once(self, subject: Subject, tmp_path: Path) -> None:
        backend = subject.open(tmp_path)
        layer = _layer(subject, backend, "suite-image", "1", sealed=True)
        # A name of its own: builds of other tests register images too.
        labels = {"project": "suite-image", "image": "node"}
        image = backend.images.register(layer, "suite-node", arch="x86_64", labels=labels)
        assert backend.images.register(layer, "suite-node", arch="x86_64", labels=labels) == image
        assert image.digest == layer.content and image.name == "suite-node"
        assert list(subject.open(tmp_path).images.list({"project": "suite-image"})) == [image]
        assert list(backend.images.list({"project": "another"})) == []
        backend.images.delete(image)
        assert list(backend.images.list({"project": "suite-image"})) == []
        backend.images.delete(image)

    def test_only_a_sealed_layer_becomes_an_image(self, subject: Subject, tmp_path: Path) -> None:
        backend = subject.open(tmp_path)
        layer = _layer(subject, backend, "suite-unsealed", "1")
        with pytest.raises(IngotError) as told:
            backend.images.register(layer, "suite-unsealed", arch="x86_64", labels={})
        assert "seal" in str(told.value)

    def test_layers_in_use_or_below_others_are_not_dropped(self, subject: Subject, tmp_path: Path) -> None:
        backend = subject.open(tmp_path)
        below = _layer(subject, backend, "suite-below", "1")
        above = _layer(subject, backend, "suite-above", "2", on=below)
        _complete(backend, above)
        known = {layer.ref.content: layer for layer in backend.layers.layers()}
        if above.parent is not None:
            assert known[below.content].children == {above.content}
            with pytest.raises(RefusedError):
                backend.layers.drop(below)
            with _machine(backend, above, purpose="look"):
                leased = {layer.ref.content for layer in backend.layers.layers() if layer.leased}
                assert leased >= {above.content}
                with pytest.raises(RefusedError):
                    backend.layers.drop(above)
        assert above.content in known
        backend.layers.drop(above)
        backend.layers.drop(above)
        assert backend.layer(above.key) is None and backend.layer(below.key) == below

    def test_who_builds_a_layer_keeps_others_waiting(self, subject: Subject, tmp_path: Path) -> None:
        first, second = subject.open(tmp_path / "1"), subject.open(tmp_path / "2")
        told, entered = threading.Event(), threading.Event()

        def wait() -> None:
            with second.lock(_key("suite-lock"), emit=lambda event: told.set(), cancel=Flag()):
                entered.set()

        waiter = threading.Thread(target=wait)
        with first.lock(_key("suite-lock"), emit=ignore, cancel=Flag()):
            waiter.start()
            assert told.wait(30.0) and not entered.is_set()
        assert entered.wait(30.0)
        waiter.join()

    def test_who_waits_for_a_layer_can_be_stopped(self, subject: Subject, tmp_path: Path) -> None:
        first, second, cancel = subject.open(tmp_path / "1"), subject.open(tmp_path / "2"), Flag()
        held = first.lock(_key("suite-stop"), emit=ignore, cancel=Flag())
        waiting = second.lock(_key("suite-stop"), emit=lambda event: cancel.set(), cancel=cancel)
        with held, pytest.raises(CancelledError), waiting:
            raise AssertionError("two hold one lock")

    def test_killed_anywhere_nothing_stays_but_whole_layers(self, subject: Subject, tmp_path: Path) -> None:
        """A build is killed at its moments, each time with other content, so that all of it is to be done."""
        passed: list[str] = []
        with trace.hooked(passed.append):
            _build(subject, tmp_path / "runs", "0")
        assert not subject.left()
        left_something = 0
        for number in range(1, len(passed) + 1, self.every):

            def dies(number: int = number) -> None:
                with kill.arm(number):
                    _build(subject, tmp_path / "runs", str(number))

            assert _in_process(dies) == signal.SIGKILL, f"at {passed[number - 1]}"
            left_something += bool(subject.left())
            _clear(subject, tmp_path / "runs")
            assert not subject.left(), f"killed at {passed[number - 1]}"
            built = _build(subject, tmp_path / "runs", str(number))
            backend = subject.open(tmp_path / "runs")
            assert backend.layer(built.image.key), f"killed at {passed[number - 1]}"
        assert left_something, "the kills never hit while a machine was there"


def _key(name: str) -> LayerKey:
    return LayerKey(digest(name))


@contextmanager
def _machine(backend: Backend, on: LayerRef, **spec: object) -> Iterator[Machine]:
    resource = backend.hosts.machine(MachineSpec(parent=on, **spec))  # type: ignore[arg-type]
    ref = resource.create(Token(f"ingot-suite-{time.monotonic_ns()}-1"))
    try:
        yield backend.hosts.attach(ref, emit=ignore, cancel=Flag())
    finally:
        resource.delete(ref)


def _freeze(
    backend: Backend, machine: Machine, name: str, *, sealed: bool = False, cancel: Cancel | None = None
) -> LayerRef:
    return backend.hosts.freeze(
        machine, _key(name), labels={"layer": name}, scanned=sealed, sealed=sealed, cancel=cancel or Flag()
    )


def _layer(
    subject: Subject,
    backend: Backend,
    name: str,
    text: str,
    *,
    on: LayerRef | None = None,
    sealed: bool = False,
) -> LayerRef:
    with _machine(backend, on or subject.base, kind=subject.kind) as machine:
        subject.write(machine, f"/root/{name}", text)
        return _freeze(backend, machine, name, sealed=sealed)


def _eventually(probe: Callable[[], T], settles: Seconds) -> T:
    """The answer once it is true, or the last one after the backend's own time to settle."""
    deadline = time.monotonic() + settles + 5.0
    while not (answer := probe()) and settles and time.monotonic() < deadline:
        time.sleep(0.05)
    return answer


def _complete(backend: Backend, layer: LayerRef) -> LayerRef | None:
    """What the layer's key leads to, once that is this layer: a cloud may need a while until one is whole."""
    deadline = time.monotonic() + 60.0
    while (found := backend.layer(layer.key)) != layer and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def _in_process(work: Callable[[], None]) -> int:
    """Runs the work in a fork; the signal that ended it, or 0."""
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            work()
        os._exit(1)
    _, status = os.waitpid(child, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


class _Writer:
    """Implements `ports.Provisioner` and `ports.Inventory` with what the subject can do."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject

    def expect(self, step: Step) -> None:
        """Nothing takes long to start."""

    def user_data(self, step: Step) -> Secret | None:
        """No machine here reads any."""
        return None

    def close(self) -> None:
        """Nothing was started."""

    def apply(self, step: Step, machine: Machine, *, subject: str, emit: Emit, cancel: Cancel) -> None:
        if isinstance(step, FilesStep):
            self._subject.write(machine, step.dest, str(step.text))
        elif isinstance(step, SealStep):
            self._subject.seal(machine)

    def packages(self, machine: Machine) -> tuple[Package, ...]:
        return ()

    def os_release(self, machine: Machine) -> Mapping[str, str]:
        return {}

    def kernel(self, machine: Machine) -> str:
        return ""


def some_base(layer: LayerRef) -> Base:
    """A base of which the layer is the disk."""
    source = DebootstrapBase(suite="bookworm")
    return Base(name="base", source=source, arch="x86_64", disk=Bytes(0), key=layer.key)


def _plan(base: Base, kind: HostKind, text: str) -> Plan:
    machine: MachineKind = "chroot" if kind == "instance" else kind  # a cloud has one kind alone
    layers: list[Layer] = []
    parent = base.key
    steps: Sequence[Step] = (
        FilesStep(dest="/root/a", text=text, machine=machine),
        FilesStep(dest="/root/b", text=text, machine=machine),
        SealStep(),
    )
    for number, step in enumerate(steps):
        key = layer_key(parent, arch="x86_64", steps=(step,), grow=None)
        layers.append(Layer(name=f"layer-{number + 1}", key=key, parent=parent, steps=(step,)))
        parent = key
    return Plan(
        project="suite",
        image="suite",
        target="suite",
        backend="suite",
        location="",
        arch="x86_64",
        disk=Bytes(0),
        base=base,
        layers=tuple(layers),
    )


def _build(subject: Subject, runs: Path, text: str) -> Built:
    """One build as the façade does it, on the subject's base."""
    writer = _Writer(subject)
    with Run(runs, verb="build") as run:
        return build(
            _plan(subject.planned, subject.kind, text),
            run=run,
            backend=subject.open(run.directory),
            provisioner=writer,
            inventory=writer,
            secrets={},
            emit=run.emit,
            cancel=Flag(),
        )


def _clear(subject: Subject, runs: Path) -> None:
    """Sweeps until no journal is open: what is not listed yet is swept a little later."""
    deadline = time.monotonic() + 60.0
    while list(runs.glob("*/journal.jsonl")) and time.monotonic() < deadline:
        sweep(runs, lambda place, directory: subject.open(directory))
        time.sleep(0.05)
    assert not list(runs.glob("*/journal.jsonl"))
