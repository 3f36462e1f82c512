"""Images of a real base, sealed, booted in QEMU and checked."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingot.backends.local import chain, vm_qemu
from ingot.backends.local.holder import mounted
from ingot.lifecycle.check import check
from ingot.model.events import CheckFinished, Event, ignore
from ingot.model.image import CheckRun, Image
from ingot.model.step import SealStep
from ingot.model.units import Bytes, Seconds
from ingot.ports import Resource, Token
from ingot.provision import seal
from ingot.system import process
from ingot.system.waits import Flag, WallClock, poll
from tests.backends.local import bases
from tests.local_fixtures import Site, open_site, sh

pytestmark = [pytest.mark.local, pytest.mark.network, pytest.mark.boot]

BROKEN = """
printf '[Unit]\\nDescription=Broken\\n[Service]\\nExecStart=/bin/sh -c "echo the disk is made of cheese; exit 3"\\n' \
  > /etc/systemd/system/cheese.service
mkdir -p /etc/systemd/system/multi-user.target.wants
ln -s ../cheese.service /etc/systemd/system/multi-user.target.wants/cheese.service
"""
CHECKS = """
def test_it_is_debian(host):
    assert host.system_info.distribution == "debian"

def test_the_port(host):
    assert host.service("ssh").is_running
    assert host.file("/etc/motd.ingot").exists, "nobody wrote the motd"
"""


class Opened:
    """The engine's stack of resources, as far as a check needs one."""

    def __init__(self) -> None:
        self._open: dict[str, Resource] = {}
        self._count = 0

    def open(self, resource: Resource) -> str:
        self._count += 1
        ref = resource.create(Token(f"ingot-check-{self._count}"))
        self._open[ref] = resource
        return ref

    def close(self, ref: str) -> None:
        self._open.pop(ref).delete(ref)

    def keep(self, ref: str, until: float) -> None:
        self._open.pop(ref)

    def close_all(self) -> None:
        for ref in list(self._open):
            self.close(ref)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return open_site(tmp_path_factory.mktemp("state"), bases.debian("bookworm"))


@pytest.fixture
def held() -> Iterator[Opened]:
    opened = Opened()
    yield opened
    opened.close_all()


def image(site: Site, name: str, script: str) -> Image:
    """An image: the base, a script, the seal."""
    with site.machine(f"ingot-{name}-1") as machine:
        sh(machine, script)
        seal.apply(SealStep(), machine, subject=name, emit=ignore, cancel=Flag())
        assert site.backend.hosts.scan(machine, [], cancel=Flag()) == ()
        layer = site.freeze(machine, name, sealed=True, scanned=True)
    return site.backend.images.register(layer, name, arch="x86_64", labels={})


def run(site: Site, made: Image, held: Opened, *paths: Path, heard: list[Event] | None = None) -> CheckRun:
    return check(
        made,
        paths=paths,
        root=site.state,
        backend=site.backend,
        held=held,
        run="test",
        directory=site.state / "runs/test",
        timeout=Seconds(900.0),
        emit=ignore if heard is None else heard.append,
        cancel=Flag(),
        clock=WallClock(),
    )


def test_a_sound_image_passes_and_failing_tests_are_told(site: Site, held: Opened, tmp_path: Path) -> None:
    (tmp_path / "test_node.py").write_text(CHECKS)
    heard: list[Event] = []
    done = run(site, image(site, "sound", "true"), held, tmp_path, heard=heard)
    results = {result.name.rpartition("::")[2]: result for result in done.results}
    assert {name: result.outcome for name, result in results.items()} == {
        "boots": "passed",
        "cloud-init is done": "passed",
        "no failed units": "passed",
        "test_it_is_debian": "passed",
        "test_the_port": "failed",
    }
    assert "nobody wrote the motd" in results["test_the_port"].message
    assert done.machine in ("qemu tcg", "qemu kvm") and done.boot_seconds > 0
    told = [event for event in heard if isinstance(event, CheckFinished)]
    assert [event.check for event in told] == [result.name for result in done.results]
    assert not list((site.state / "local/work").iterdir()), "the machine is gone"
    assert b"Linux version" in (site.state / "runs/test/console-sound.log").read_bytes()


def test_a_failed_unit_is_named_with_its_last_words(site: Site, held: Opened) -> None:
    done = run(site, image(site, "broken", BROKEN), held)
    assert not done.passed
    failed = done.results[-1]
    assert [result.name for result in done.results if result.outcome == "failed"] == ["no failed units"], done
    assert "cheese.service" in failed.message and "made of cheese" in failed.message


def test_an_image_without_cloud_init_is_checked_too(site: Site, held: Opened) -> None:
    done = run(site, image(site, "plain", "apt-get -qq purge -y cloud-init >/dev/null"), held)
    outcomes = {result.name: result.outcome for result in done.results}
    assert outcomes == {"boots": "passed", "cloud-init is done": "skipped", "no failed units": "passed"}


def test_an_image_that_does_not_come_up_says_why(site: Site, held: Opened) -> None:
    made = image(site, "rootless", "sed -i 's/root=UUID=[^ ]*/root=UUID=dead-beef/' /boot/grub/grub.cfg")
    done = run(site, made, held)
    (result,) = done.results
    assert (result.name, result.outcome) == ("boots", "failed")
    assert "the initramfs could not mount the root file system" in result.message
    bundle = site.state / "runs/test/forensics/ingot-check-1"
    assert result.message.splitlines()[1:] == [f"all of it is in {bundle}", f"try: {result.hint}"]
    assert result.bundle == str(bundle)
    assert (bundle / "summary.txt").read_text().startswith("no-root: ")
    assert (site.state / "runs/test/console-rootless.log").exists()


def greets(folder: Path) -> bool | None:
    """True once the machine's SSH server speaks, which takes host keys."""
    with contextlib.suppress(OSError):
        address = ("127.0.0.1", vm_qemu.forwarded_port(folder))
        with socket.create_connection(address, timeout=5) as link:
            return True if link.recv(16).startswith(b"SSH-") else None
    return None


def first_boot(made: Image, site: Site, folder: Path) -> tuple[str, frozenset[str]]:
    """The machine id and the host keys that a machine gives itself, with nobody to help it: no seed, no cloud."""
    folder.mkdir()
    files = site.backend.store.files(site.backend.store.verify(made.digest))
    overlay = folder / "disk.qcow2"
    chain.create(overlay, Bytes(made.size))
    (folder / "seed").write_bytes(bytes(2**20))
    words = vm_qemu.machine_argv(
        [*files, overlay],
        accelerator=vm_qemu.choose_accelerator(folder),
        firmware="bios",
        memory=Bytes(2**30),
        cpus=2,
        token="first",
    )
    machine = process.spawn(words, cwd=folder)
    try:
        poll(
            lambda: greets(folder),
            what="the greeting of its SSH server",
            every=Seconds(0.5),
            deadline=Seconds(900.0),
            cancel=Flag(),
        )
        vm_qemu.control(folder, "system_powerdown")
        machine.wait(120)
    finally:
        process.end(machine)
    with mounted([*files, overlay], folder / "held", writable=False) as held:
        root = held.outside(held.root)
        keys = [path.read_text().split()[1] for path in (root / "etc/ssh").glob("ssh_host_*.pub")]
        return (root / "etc/machine-id").read_text().strip(), frozenset(keys)


def test_two_machines_of_one_image_are_two(site: Site, tmp_path: Path) -> None:
    made = image(site, "twins", "true")
    (one, one_keys), (two, two_keys) = (first_boot(made, site, tmp_path / name) for name in "ab")
    assert len(one) == len(two) == 32 and one != two
    assert len(one_keys) == len(two_keys) == 3 and one_keys.isdisjoint(two_keys)
