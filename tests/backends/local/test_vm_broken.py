"""Virtual machines broken on purpose, booted for real: each has its own cause, and a sound one that is slow has none."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ingot.backends.local import vm
from ingot.errors import BackendError, DeadlineError
from ingot.model.events import ignore
from ingot.model.units import Seconds
from ingot.ports import Machine, MachineSpec, Token
from ingot.system.waits import Flag, poll
from tests.backends.local import broken
from tests.backends.local.broken import examiner
from tests.forensics import recorded
from tests.local_fixtures import Site, sh

pytestmark = [pytest.mark.local, pytest.mark.network, pytest.mark.boot]

# A whole boot takes a minute and a half in software emulation: two of them is what CI has time for.
_QUICK = ("kernel-panic", "no-sshd")
CASES = [
    pytest.param(name, marks=() if name in _QUICK else pytest.mark.slow) for name in sorted(broken.CASES)
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return broken.site(tmp_path_factory.mktemp("state"))


@contextmanager
def machine(site: Site, token: str, **spec: object) -> Iterator[str]:
    """A sound machine that was just started."""
    resource = site.backend.hosts.machine(MachineSpec(parent=site.base, kind="vm", purpose="look", **spec))  # type: ignore[arg-type]
    ref = resource.create(Token(token))
    try:
        yield ref
    finally:
        resource.delete(ref)


def attach(site: Site, ref: str) -> Machine:
    return site.backend.hosts.attach(ref, emit=ignore, cancel=Flag())


@pytest.mark.parametrize("name", CASES)
def test_a_broken_machine_is_told_by_its_own_cause(site: Site, name: str, tmp_path: Path) -> None:
    error = broken.diagnose(site, name, tmp_path)
    assert error.cause == name, error.message
    bundle = Path(error.bundle)
    assert bundle == tmp_path / "forensics" / f"ingot-{name}-1"
    first, *_ = (bundle / "summary.txt").read_text().splitlines()
    assert first.startswith(f"{name}: ") and error.message.endswith(first.removeprefix(f"{name}: "))
    assert str(bundle) in error.hint or "`ingot shell node" in error.hint
    assert recorded.load(bundle).kind == "vm"
    assert "Linux version" in (bundle / "console.log").read_text()
    if name != "kernel-panic":
        assert "systemd" in (bundle / "journal.log").read_text()
    assert not any("PRIVATE KEY" in path.read_text() for path in bundle.iterdir())
    assert not list((site.state / "local/work").iterdir()), "the machine is gone"


def test_a_sound_machine_that_is_given_no_time_is_slow(site: Site, tmp_path: Path) -> None:
    with machine(site, "ingot-hurried-1", boot_limit=Seconds(15.0)) as ref:
        with pytest.raises(DeadlineError) as raised:
            attach(site, ref)
        told = examiner(site, tmp_path).explain(raised.value, ref)
    assert told.cause == "slow", told.message
    assert "still booting (stage " in told.message and "slow, not broken; raise the timeout" in told.message


@pytest.mark.slow
def test_a_boot_that_goes_on_is_waited_for_beyond_its_time(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And on the machine that came up: what is well is not explained, and one that powers itself off is told."""
    monkeypatch.setattr(vm, "BOOT_TIMEOUT", Seconds(10.0))
    look = examiner(site, tmp_path)
    with machine(site, "ingot-patient-1") as ref:
        came = attach(site, ref)
        error = BackendError("a step failed")
        assert look.explain(error, ref, lost=True) is error
        assert not (tmp_path / "forensics").exists()
        sh(came, "systemctl poweroff", check=False)
        home = site.state / "local/work" / ref
        poll(
            lambda: None if vm.is_running(home) else True,
            what="the end of the machine",
            every=Seconds(0.5),
            deadline=Seconds(300.0),
            cancel=Flag(),
        )
        told = look.explain(error, ref, lost=True)
    assert told.cause == "powered-off"
    assert told.message == "the virtual machine was lost: it powered itself off"
    assert re.search("power(?:ing)? (?:off|down)", (Path(told.bundle) / "journal.log").read_text())


def test_a_machine_whose_qemu_is_killed_is_told_as_lost(site: Site, tmp_path: Path) -> None:
    with machine(site, "ingot-killed-1") as ref:
        about = json.loads((site.state / "local/work" / ref / "machine.json").read_text())
        os.kill(about["pid"], signal.SIGKILL)
        with pytest.raises(BackendError, match="ended before it answered") as raised:
            attach(site, ref)
        told = examiner(site, tmp_path).explain(raised.value, ref)
    assert told.cause == "killed" and "SIGKILL" in told.message
    assert (Path(told.bundle) / "evidence.json").exists()
