"""Booted machines: the disk's own system with its services, on the same layers, unable to reach the builder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ingot.backends.local import booted, container
from ingot.backends.local.backend import open_backend
from ingot.errors import BackendError, DeadlineError
from ingot.model.events import Event, Warned, ignore
from ingot.model.secret import Secret
from ingot.model.units import Seconds
from ingot.ports import BackendSettings, Machine, MachineSpec, Token
from ingot.system.waits import Flag, poll
from tests.backends.local.broken import examiner
from tests.backends.local.test_isolation import loop_device
from tests.backends.local.test_killed import ROOT, find_leftovers, own_loops
from tests.backends.local.test_machine import on_disk
from tests.local_fixtures import Site, cached_base, sh, site

__all__ = ["cached_base", "site"]
pytestmark = pytest.mark.local

UNIT = """\
mkdir -p /etc/systemd/system/multi-user.target.wants
cat > /etc/systemd/system/NAME.service <<'END'
[Service]
Type=oneshot
ExecStart=COMMAND
END
ln -s ../NAME.service /etc/systemd/system/multi-user.target.wants/NAME.service
"""


def unit(name: str, command: str) -> str:
    """A script that adds a unit to what starts at boot."""
    return UNIT.replace("NAME", name).replace("COMMAND", command)


@pytest.fixture(scope="module")
def machine(site: Site) -> Iterator[Machine]:
    with site.machine("ingot-booted-1", kind="booted") as opened:
        yield opened


def test_the_system_is_up_when_steps_begin(machine: Machine) -> None:
    assert machine.kind == "booted"
    assert sh(machine, "systemctl is-system-running; ps -p 1 -o comm=").stdout.split() == [
        "running",
        "systemd",
    ]
    assert sh(machine, "systemctl is-active ssh; test ! -e /usr/sbin/policy-rc.d").stdout == "active\n"


def test_layers_go_from_one_kind_to_the_other_and_back(site: Site) -> None:
    first = site.layer("kinds-1", unit("witness", "/bin/sh -c 'echo booted >> /root/witness'"))
    with site.machine("ingot-kinds-2", first, kind="booted") as opened:
        assert sh(opened, "cat /root/witness").stdout == "booted\n"
        sh(opened, "nohup sleep 300 >/dev/null 2>&1 & chown 1000:1000 /root/witness; echo x > /run/x")
        second = site.freeze(opened, "kinds-2")
        again = site.attach(opened)
        assert sh(again, "cat /root/witness; test ! -e /run/x; ! pgrep sleep").stdout == "booted\nbooted\n"
    assert second.parent == first.content
    with site.machine("ingot-kinds-3", second, purpose="look") as opened:
        assert opened.kind == "chroot"
        # Owners on the disk are those that the system saw.
        assert sh(opened, "stat -c %u:%g /root/witness /etc/passwd").stdout.split() == ["1000:1000", "0:0"]
        assert sh(opened, "cat /root/witness").stdout == "booted\n"


def test_what_visits_the_disk_is_in_no_layer(site: Site, tmp_path: Path) -> None:
    with site.machine("ingot-visit-1", kind="booted") as opened:
        assert "10.0.2.3" in sh(opened, "cat /etc/resolv.conf; ls /etc/sudoers.d").stdout
        layer = site.freeze(opened, "booted-visitors")
    look = "find etc/sudoers.d etc/apt/apt.conf.d usr/local/sbin run -mindepth 1 | sort; cat etc/resolv.conf"
    left = on_disk(site, layer.content, tmp_path, look)
    assert left == on_disk(site, site.base.content, tmp_path, look)
    assert "ingot" not in left


REACHING_OUT = {
    "make a block device": "mknod /run/probe b 7 0",
    "press a magic key": "echo h > /proc/sysrq-trigger",
    "name a core handler": "echo x > /proc/sys/kernel/core_pattern",
    "write to a writable sysfs": "mount -o remount,rw /sys; echo 1 > /sys/kernel/mm/ksm/run",
    "see the kernel's insides": "mount -t debugfs none /mnt",
    "see all devices": "mount -t devtmpfs none /mnt",
    "set the clock": "date -s 2001-01-01",
    "read the kernel's memory": "test -s /proc/kcore",
    "be the root of the builder": "test $(head -n 1 /proc/self/uid_map | tr -s ' ' | cut -d' ' -f3) = 0",
}


def as_service(machine: Machine, script: str) -> int:
    """Runs a script with all the capabilities that the system itself has; its exit code is 0 or not."""
    text = unit("probe", "/bin/sh /root/probe.sh").split("ln -s")[0]
    sh(
        machine,
        f"cat > /root/probe.sh <<'END-OF-PROBE'\n{script}\nEND-OF-PROBE\n{text}systemctl daemon-reload",
    )
    return sh(machine, "systemctl start probe", check=False).code


@pytest.mark.parametrize("attempt", list(REACHING_OUT))
def test_the_systems_root_has_no_rights_on_the_builder(machine: Machine, attempt: str) -> None:
    assert as_service(machine, REACHING_OUT[attempt]) != 0


def test_the_probe_works(machine: Machine) -> None:
    assert as_service(machine, "test $(id -u) = 0 && mount -t tmpfs none /mnt && umount /mnt") == 0


def test_a_block_device_is_out_of_reach(machine: Machine, tmp_path: Path) -> None:
    with loop_device(tmp_path) as (device, file):
        number = device.stat().st_rdev
        made = f"mknod /run/canary b {os.major(number)} {os.minor(number)}"
        assert as_service(machine, made) != 0
        for place in ("/run/canary", device):
            as_service(machine, f"dd if=/dev/zero of={place} bs=4096 count=1 conv=notrunc")
        os.sync()
        assert file.read_bytes() == b"canary!\n" * 131072


def test_processes_of_the_builder_are_not_seen(machine: Machine) -> None:
    seen = sh(machine, "ps ax -o comm=").stdout.split()
    assert "systemd" in seen and "qemu-storage-da" not in seen and "slirp4netns" not in seen


def test_packages_come_through_the_cache_and_their_services_start(machine: Machine) -> None:
    sh(machine, "apt-get -qq update && apt-get -qq install -y cron >/dev/null 2>&1")
    assert sh(machine, "systemctl is-active cron; apt-config dump Acquire::http::Proxy").stdout.startswith(
        "active"
    )


def test_a_unit_that_fails_is_warned_of(site: Site) -> None:
    layer = site.layer("fails", unit("broken-on-purpose", "/bin/false"))
    told: list[Event] = []
    resource = site.backend.hosts.machine(MachineSpec(parent=layer, kind="booted"))
    ref = resource.create(Token("ingot-fails-1"))
    try:
        site.backend.hosts.attach(ref, emit=told.append, cancel=Flag())
    finally:
        resource.delete(ref)
    (warning,) = [event for event in told if isinstance(event, Warned)]
    assert "broken-on-purpose.service" in warning.message


def test_a_boot_that_does_not_end_names_what_it_waits_for(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(booted, "PATIENCE", Seconds(15.0))
    layer = site.layer("hangs", unit("waits-on-purpose", "/bin/sleep 600"))
    with pytest.raises(DeadlineError) as told, site.machine("ingot-hangs-1", layer, kind="booted"):
        pass
    assert any("waits-on-purpose.service" in note for note in told.value.__notes__)


def test_what_keeps_a_booted_system_is_told_with_a_bundle(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(booted, "PATIENCE", Seconds(15.0))
    layer = site.layer("waits", unit("waits-for-ever", "/bin/sleep 600"))
    resource = site.backend.hosts.machine(MachineSpec(parent=layer, kind="booted"))
    ref = resource.create(Token("ingot-waits-1"))
    try:
        with pytest.raises(DeadlineError) as raised:
            site.backend.hosts.attach(ref, emit=ignore, cancel=Flag())
        told = examiner(site, tmp_path).explain(raised.value, ref)
    finally:
        resource.delete(ref)
    assert (type(told), told.cause) == (DeadlineError, "waiting")
    assert told.message.startswith("the booted system did not come up: it has not finished starting")
    assert "waits-for-ever.service" in told.message
    bundle = Path(told.bundle)
    assert "Welcome to" in (bundle / "console.log").read_text()
    assert "waits-for-ever" in (bundle / "journal.log").read_text()


def test_a_booted_system_that_a_step_powers_off_is_told_as_lost(site: Site, tmp_path: Path) -> None:
    look = examiner(site, tmp_path)
    failed = BackendError("the step failed", hint="of its own")
    resource = site.backend.hosts.machine(MachineSpec(parent=site.base, kind="booted"))
    ref = resource.create(Token("ingot-off-1"))
    try:
        machine = site.backend.hosts.attach(ref, emit=ignore, cancel=Flag())
        assert look.explain(failed, ref, lost=True) is failed, "a system that is well is no cause"
        sh(machine, "systemctl poweroff", check=False)
        told = poll(
            lambda: look.explain(failed, ref, lost=True) if "ended" in state_of(site, ref) else None,
            what="the end of the system",
            every=Seconds(0.2),
            deadline=Seconds(120.0),
            cancel=Flag(),
        )
    finally:
        resource.delete(ref)
    assert told.message == "the booted system was lost: it powered itself off"


def state_of(site: Site, ref: str) -> str:
    """What examining the machine says of its state; "" for one that answers."""
    evidence = site.backend.hosts.examine(ref)
    return evidence.state if evidence else ""


def test_a_disk_without_a_system_is_told(site: Site) -> None:
    layer = site.layer("no-init", "rm -f /sbin/init /lib/systemd/systemd /usr/lib/systemd/systemd")
    with (
        pytest.raises(BackendError, match="has no systemd"),
        site.machine("ingot-no-init-1", layer, kind="booted"),
    ):
        pass


def test_user_data_that_nobody_would_read_is_refused(site: Site) -> None:
    spec = MachineSpec(parent=site.base, user_data=Secret("#cloud-config\n"))
    with pytest.raises(BackendError, match="cannot give user-data to a chroot machine"):
        site.backend.hosts.machine(spec)


@pytest.mark.parametrize(("apart", "found"), [(("--user", "--mount", "--net"), True), (("--mount",), False)])
def test_a_system_that_is_still_in_our_network_is_not_taken(apart: tuple[str, ...], found: bool) -> None:
    """Else its network, slirp4netns's device, would be made in the builder's own."""
    with subprocess.Popen(["unshare", "--pid", "--fork", "--kill-child", *apart, "sleep", "60"]) as outer:
        try:
            poll(
                lambda: psutil.Process(outer.pid).children() or None,
                what="the fork",
                every=Seconds(0.01),
                deadline=Seconds(10.0),
                cancel=Flag(),
            )
            assert bool(container.find_leader(outer.pid)) == found
        finally:
            outer.kill()


BUILDER = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    from ingot.model.events import ignore
    from ingot.ports import BackendSettings, MachineSpec, Token
    from ingot.backends.local.backend import open_backend
    from ingot.system.waits import Flag
    from tests.local_fixtures import key

    state = Path(sys.argv[1])
    backend = open_backend(BackendSettings(state=state, directory=state / "runs" / "killed", root=state))
    resource = backend.hosts.machine(MachineSpec(parent=backend.layer(key("base")), kind="booted"))
    backend.hosts.attach(resource.create(Token("ingot-booted-killed")), emit=ignore, cancel=Flag())
    print("up", flush=True)
    time.sleep(60)
    """
)


def test_killed_nothing_stays(site: Site) -> None:
    loops = own_loops()
    builder = subprocess.Popen(
        [sys.executable, "-c", BUILDER, str(site.state)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert builder.stdout and builder.stdout.readline() == "up\n"
    assert any((place / "ingot-booted-killed").is_dir() for place in cgroups())
    builder.send_signal(signal.SIGKILL)
    builder.communicate()
    backend = open_backend(
        BackendSettings(state=site.state, directory=site.state / "runs" / "after", root=site.state)
    )
    ref = backend.resource("local.machine").find(Token("ingot-booted-killed"))
    assert ref
    backend.resource("local.machine").delete(ref)
    assert not find_leftovers("ingot-booted-killed", loops)
    assert not any((place / "ingot-booted-killed").is_dir() for place in cgroups())


def cgroups() -> list[Path]:
    """Where this computer's pure cgroups are seen."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [Path(line.split(" ")[4]) for line in lines if " - cgroup2 " in line]
