"""Pulling and pushing between stores of real, tiny qcow2 disks: killed anywhere, at once, and on another base."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ingot.backends.local import chain
from ingot.backends.local.backend import LocalBackend, open_backend
from ingot.backends.local.store import NewLayer
from ingot.engine import trace
from ingot.engine.build import place_of, standing_layers
from ingot.engine.journal import Place
from ingot.engine.records import layer_keys
from ingot.engine.resources import Resources
from ingot.engine.run import Run
from ingot.engine.sharing import Shared, Wanted, pull, push
from ingot.engine.sweep import sweep
from ingot.model.events import Event, LayerPushed, Warned
from ingot.model.plan import ContentId
from ingot.model.secret import Secret
from ingot.model.units import Bytes
from ingot.ports import BackendSettings
from ingot.stores.layers import RemoteLayers
from ingot.system.waits import Flag
from ingot.testing import kill

from .bench import packages, plan_of
from .test_killed import in_process

PLAN = replace(plan_of(packages("htop"), packages("tmux")), backend="local", location="local")
KEYS = layer_keys(PLAN)


class Computer:
    """A state folder, and a cache that it shares."""

    def __init__(self, root: Path, name: str, *, cache: Path, signer: Path) -> None:
        self.state = root / name
        self.cache = cache
        self.remote = RemoteLayers(cache.as_uri(), signers=signer.parent / "signers", key=signer)
        self.events: list[Event] = []

    @property
    def backend(self) -> LocalBackend:
        """As a new process opens it."""
        settings = BackendSettings(state=self.state, directory=self.state / "runs", root=self.state)
        return open_backend(settings)

    def make(self, *, words: str = "") -> ContentId:
        """A chain for the plan's keys, as a build would leave it."""
        below = None
        for number, key in enumerate(KEYS):
            file = self.state / "local" / "made"
            file.parent.mkdir(parents=True, exist_ok=True)
            chain.create(file, Bytes(2**20))
            text = (words or self.state.name) * 100 + str(number)
            argv = ["qemu-io", "-f", "qcow2", "-c", f"write -s {file}.text 0 4096", str(file)]
            Path(f"{file}.text").write_text(text.ljust(4096, "."))
            subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
            new = NewLayer(key=key, parent=below, sealed=key == KEYS[-1], scanned=True, labels={})
            below = self.backend.store.add(file, new).content
        assert below
        return below

    def push(self, content: ContentId, **secrets: str) -> None:
        with (
            Run(self.state / "runs", verb="build", sinks=[self.events.append]) as run,
            Resources(run.journal, place=place_of(PLAN), emit=run.emit) as held,
        ):
            known = {name: Secret(value) for name, value in secrets.items()}
            shared = Shared(plan=PLAN, content=content, secrets=known)
            backend, clock = self.backend, run.clock
            push(shared, self.remote, backend=backend, held=held, clock=clock, emit=run.emit, cancel=Flag())

    def pull(self) -> list[ContentId]:
        """What stands after pulling what is offered; dead runs are swept before, as each build does it."""
        sweep(self.state / "runs", self.place, emit=self.events.append)
        with (
            Run(self.state / "runs", verb="build", sinks=[self.events.append]) as run,
            Resources(run.journal, place=place_of(PLAN), emit=run.emit) as held,
        ):
            wanted = Wanted(plan=PLAN, standing=standing_layers(PLAN, self.backend))
            backend, clock = self.backend, run.clock
            pull(wanted, self.remote, backend=backend, held=held, clock=clock, emit=run.emit, cancel=Flag())
        return self.standing()

    def place(self, place: Place, directory: Path) -> LocalBackend:
        return self.backend

    def standing(self) -> list[ContentId]:
        return [layer.content for layer in standing_layers(PLAN, self.backend) if layer]

    def left(self) -> list[Path]:
        return [*(self.state / "local" / "work").glob("*"), *(self.state / "runs").glob("*/journal.jsonl")]

    def warnings(self) -> list[str]:
        return [event.message for event in self.events if isinstance(event, Warned)]


@pytest.fixture
def computer(tmp_path: Path) -> Callable[[str], Computer]:
    """Computers by name, around one cache and one signer."""
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")]
    subprocess.run(words, check=True)
    (tmp_path / "signers").write_text(f"builder {(tmp_path / 'key.pub').read_text()}")
    return lambda name: Computer(tmp_path, name, cache=tmp_path / "cache", signer=tmp_path / "key")


Make = Callable[[str], Computer]


def test_a_chain_moves_whole(computer: Make) -> None:
    first, second = computer("first"), computer("second")
    content = first.make()
    first.push(content)
    assert [event.layer for event in first.events if isinstance(event, LayerPushed)] == [
        "debian-12",
        "layer-1",
        "layer-2",
        "seal",
    ]
    assert second.pull() == first.standing()
    assert not second.warnings() and not second.left() and not first.left()


def test_another_base_gives_way_to_a_deeper_chain(computer: Make) -> None:
    first, second = computer("first"), computer("second")
    first.push(first.make())
    second.make(words="other")
    own = second.standing()
    assert second.pull() == own, "what is whole here is not replaced"
    seal = second.backend.layer(KEYS[-1])
    assert seal
    second.backend.layers.drop(seal)
    assert second.pull() == first.standing()


def test_where_one_cannot_be_pulled_those_below_are_kept(computer: Make) -> None:
    first, second = computer("first"), computer("second")
    first.push(first.make())
    (data,) = (first.cache / KEYS[2][7:]).glob("*.zst")
    data.write_bytes(data.read_bytes()[:-1])
    assert second.pull() == first.standing()[:2]
    (warning,) = second.warnings()
    assert "the layer layer-2" in warning and "its bytes are not those that were signed" in warning
    assert not second.left()


def test_a_layer_with_a_secret_stays_with_all_above_it(computer: Make) -> None:
    first, second = computer("first"), computer("second")
    content = first.make(words="correct horse ")
    first.push(content, token="correct horse correct horse")
    assert "the layer debian-12" in first.warnings()[0] and "the secret token" in first.warnings()[0]
    assert not list(first.cache.rglob("*")) and second.pull() == []


def test_two_push_at_once(computer: Make) -> None:
    """The same bytes and others, under the same keys."""
    names = ["one", "two", "three"]
    children = []
    contents = {name: computer(name).make(words="x" if name != "three" else "y") for name in names}
    for name in names:
        if (child := os.fork()) == 0:
            try:
                pushing = computer(name)
                pushing.push(contents[name])
                os._exit(len(pushing.warnings()))
            finally:
                os._exit(99)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0, 0]
    last = computer("last")
    assert last.pull() in (computer("one").standing(), computer("three").standing())
    assert not last.warnings() and not list(last.cache.rglob("*.part"))


def moments(act: Callable[[], object]) -> int:
    passed: list[str] = []
    with trace.hooked(passed.append):
        act()
    return len(passed)


def killed(act: Callable[[], object], moment: int) -> bool:
    def work() -> None:
        with kill.arm(moment):
            act()

    return in_process(work) == signal.SIGKILL


def test_killed_at_every_moment_of_pulling(computer: Make) -> None:
    first = computer("first")
    first.push(first.make())
    count = moments(computer("whole").pull)
    assert count >= 14
    for moment in range(1, count + 1):
        second = computer(f"killed-{moment}")
        assert killed(second.pull, moment)
        assert second.pull() == first.standing()
        assert not second.left() and not second.warnings()
        shutil.rmtree(second.state)


def test_killed_at_every_moment_of_pushing(computer: Make) -> None:
    first = computer("first")
    content = first.make()
    count = moments(lambda: first.push(content))
    assert count >= 10
    for moment in range(1, count + 1):
        shutil.rmtree(first.cache)
        assert killed(lambda: first.push(content), moment)
        before = computer(f"before-{moment}").pull()
        assert before == first.standing()[: len(before)]
        first.push(content)
        assert computer(f"after-{moment}").pull() == first.standing()


@pytest.mark.parametrize("seed", range(6))
def test_killed_at_a_random_time(computer: Make, seed: int) -> None:
    """From outside: in the middle of a file too."""
    first = computer("first")
    content = first.make()
    child = os.fork()
    if child == 0:
        try:
            first.push(content)
        finally:
            os._exit(0)
    time.sleep(random.Random(seed).uniform(0.0, 0.4))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    puller = computer("puller")
    found = puller.pull()
    assert found == first.standing()[: len(found)] and not puller.warnings()
    first.push(content)
    assert puller.pull() == first.standing() and not puller.warnings()
