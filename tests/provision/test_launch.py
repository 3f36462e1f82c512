"""What runs Ansible: nothing of it outlives Ingot, and mitogen is only taken where it starts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from ingot.backends.local.machine import ChrootMachine
from ingot.errors import CancelledError, DeadlineError, ProvisionError
from ingot.model.events import Event, TaskFinished, Warned
from ingot.model.step import PlaybookStep
from ingot.model.units import Seconds
from ingot.ports import Machine, SshAccess
from ingot.provision import Provisioners
from ingot.provision.ansible.order import Order, program
from ingot.system import waits
from ingot.system.waits import Flag
from tests.local_fixtures import Site
from tests.provision.conftest import worker_of

BROKEN = Path(__file__).parents[1] / "data" / "mitogen-broken"
LONG = """
- hosts: all
  gather_facts: false
  tasks:
    - name: Leave something behind here
      shell: setsid sleep {mark} >/dev/null 2>&1 &
      delegate_to: localhost
    - name: Take long here
      command: sleep {mark}
      delegate_to: localhost
"""


def mark_of(test: str) -> str:
    """A number of seconds that no other process sleeps."""
    return f"9{os.getpid()}.{sum(test.encode())}"


def sleepers(mark: str) -> list[int]:
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if mark in (process.info["cmdline"] or []) and process.info["cmdline"][0] == "sleep"
    ]


def ansibles(folder: Path) -> list[int]:
    """Processes that have the folder in their environment: all that Ansible started."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("TMPDIR", "").startswith(str(folder)):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def started(folder: Path) -> list[int]:
    """Those of them that we started ourselves: while it begins, Ansible runs short-lived programs of its own."""
    return [child.pid for child in psutil.Process().children() if child.pid in ansibles(folder)]


def wait_for(count: int, mark: str) -> None:
    waits.poll(
        lambda: True if len(sleepers(mark)) == count else None,
        what=f"{count} sleeping processes",
        every=Seconds(0.05),
        deadline=Seconds(60.0),
        cancel=Flag(),
    )


@contextmanager
def short_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="l-") as folder:
        yield Path(folder)


@pytest.mark.local
@pytest.mark.parametrize("engine", ["mitogen", "ansible"])
def test_killing_ingot_leaves_no_process(engine: str, machine: Machine) -> None:
    mark = mark_of(engine)
    with short_folder() as root:
        (root / "site.yml").write_text(LONG.format(mark=mark))
        code = (
            "import sys; from pathlib import Path; from ingot.model.events import ignore\n"
            "from ingot.model.step import PlaybookStep; from ingot.ports import SshAccess\n"
            "from ingot.provision import Provisioners; from ingot.system.waits import Flag\n"
            "from ingot.backends.local.machine import ChrootMachine\n"
            f"machine = ChrootMachine(ref='x', ssh=SshAccess(config=Path({str(machine.ssh.config)!r}),"
            f" host={machine.ssh.host!r}))\n"
            f"root = Path({str(root)!r})\n"
            f"Provisioners(root=root, directory=root).apply(PlaybookStep(path='site.yml', engine={engine!r}),"
            " machine, subject='killed', emit=ignore, cancel=Flag())\n"
        )
        ingot = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
        try:
            wait_for(2, mark)
            assert ansibles(root)
        finally:
            os.kill(ingot.pid, signal.SIGKILL)
            ingot.wait()
        wait_for(0, mark)
        waits.poll(
            lambda: None if ansibles(root) else True,
            what="the end of Ansible",
            every=Seconds(0.05),
            deadline=Seconds(10.0),
            cancel=Flag(),
        )
        assert sorted(path.name for path in root.iterdir()) == ["killed.log", "site.yml"]


@pytest.mark.local
@pytest.mark.parametrize("how", ["cancel", "timeout"])
def test_stopping_leaves_no_process(how: str, machine: Machine) -> None:
    mark = mark_of(how)
    flag = Flag()

    def stop(event: Event) -> None:
        if how == "cancel" and isinstance(event, TaskFinished):
            flag.set()

    with short_folder() as root:
        (root / "site.yml").write_text(LONG.format(mark=mark))
        step = PlaybookStep(path="site.yml", timeout=Seconds(8.0 if how == "timeout" else 600.0))
        with pytest.raises(CancelledError if how == "cancel" else DeadlineError):
            Provisioners(root=root, directory=root).apply(
                step, machine, subject="stopped", emit=stop, cancel=flag
            )
        assert not sleepers(mark)
        assert not ansibles(root)
        assert sorted(path.name for path in root.iterdir()) == ["site.yml", "stopped.log"]


def test_an_ansible_started_ahead_ends_when_its_step_does_not_come() -> None:
    with short_folder() as root:
        (root / "site.yml").write_text("- hosts: all\n")
        provisioners = Provisioners(root=root, directory=root)
        provisioners.expect(PlaybookStep(path="site.yml"))
        (first,) = started(root)
        provisioners.expect(PlaybookStep(path="site.yml", tags=("other",)))
        (second,) = started(root)
        assert first != second
        provisioners.close()
        assert not ansibles(root)
        assert [path.name for path in root.iterdir()] == ["site.yml"]


def test_what_keeps_ansible_from_starting_is_told_by_its_step_alone() -> None:
    with short_folder() as root:
        provisioners = Provisioners(root=root, directory=root)
        provisioners.expect(PlaybookStep(path="missing.yml"))
        assert not list(root.iterdir())


def run_order(order: Order, scratch: Path, *, path: Path | None) -> subprocess.CompletedProcess[bytes]:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(scratch),
        "TMPDIR": str(scratch),
        "LC_ALL": "C.UTF-8",
    }
    if path:
        environment["PYTHONPATH"] = str(path)
    return subprocess.run(
        program("mitogen"), input=order.encode(), env=environment, capture_output=True, check=False
    )


@pytest.mark.parametrize(("engines", "code"), [(("mitogen", "ansible"), 0), (("mitogen",), 211)])
def test_mitogen_that_does_not_start_is_told_before_any_task(
    engines: tuple[str, ...], code: int, tmp_path: Path
) -> None:
    playbook = tmp_path / "site.yml"
    playbook.write_text(
        "- hosts: localhost\n  gather_facts: false\n  tasks:\n    - command: touch {}\n".format(
            tmp_path / "once"
        )
    )
    order = Order(
        arguments=(str(playbook),),
        engines=engines,
        strategies={"mitogen": "mitogen_linear", "ansible": ""},
        uncounted=("/",),
    )
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    done = run_order(order, scratch, path=BROKEN)
    records = [line for line in done.stdout.decode().split("\n") if line.startswith(order.mark)]
    assert done.returncode == code
    assert "a name of Ansible is gone" in records[0]
    assert (tmp_path / "once").exists() == (code == 0)
    assert not scratch.exists()


@pytest.mark.local
def test_mitogen_that_was_asked_for_is_not_replaced(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingot.provision.ansible.config._PASSED", ("PYTHONPATH",))
    monkeypatch.setenv("PYTHONPATH", str(BROKEN))
    (tmp_path / "site.yml").write_text(
        "- hosts: all\n  gather_facts: false\n  tasks:\n    - debug: {msg: hi}\n"
    )
    heard: list[Event] = []
    provisioners = Provisioners(root=tmp_path, directory=tmp_path)
    with pytest.raises(ProvisionError, match="mitogen does not start"):
        provisioners.apply(
            PlaybookStep(path="site.yml", engine="mitogen"),
            machine,
            subject="x",
            emit=heard.append,
            cancel=Flag(),
        )
    provisioners.apply(PlaybookStep(path="site.yml"), machine, subject="x", emit=heard.append, cancel=Flag())
    warned = [event.message for event in heard if isinstance(event, Warned)]
    assert len(warned) == 2 and all("a name of Ansible is gone" in message for message in warned)
    assert [event.outcome for event in heard if isinstance(event, TaskFinished)] == ["ok"]


@pytest.mark.local
def test_a_machine_that_is_gone_is_told(machine: Machine, tmp_path: Path) -> None:
    lost = ChrootMachine(ref="lost", ssh=SshAccess(config=machine.ssh.config, host="nobody.invalid"))
    (tmp_path / "site.yml").write_text("- hosts: all\n")
    with pytest.raises(ProvisionError, match="the machine lost could not be reached"):
        Provisioners(root=tmp_path, directory=tmp_path).apply(
            PlaybookStep(path="site.yml"), lost, subject="x", emit=lambda _: None, cancel=Flag()
        )


@pytest.mark.local
@pytest.mark.parametrize("engine", ["mitogen", "ansible"])
def test_a_machine_that_is_lost_in_the_middle_is_told(
    engine: str, machine: Machine, own_site: Site, tmp_path: Path
) -> None:
    worker = worker_of(machine, own_site)
    (tmp_path / "site.yml").write_text(
        "- hosts: all\n  gather_facts: false\n  tasks:\n"
        "    - name: Works\n      command: 'true'\n"
        f"    - name: Lose it\n      shell: kill -9 {worker}\n      delegate_to: localhost\n"
        "    - name: Go on\n      command: 'true'\n"
    )
    started = time.monotonic()
    with pytest.raises(ProvisionError) as caught:
        Provisioners(root=tmp_path, directory=tmp_path).apply(
            PlaybookStep(path="site.yml", engine=engine, timeout=Seconds(120.0)),
            machine,
            subject="x",
            emit=lambda _: None,
            cancel=Flag(),
        )
    assert "the task 'Go on' failed: the machine was lost" in caught.value.message, time.monotonic() - started
