from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingot.backends.local import vm, vm_qemu, vm_seed
from ingot.backends.local.holder import mounted
from ingot.errors import BackendError, DeadlineError, TransientError
from ingot.model.events import Emit, Event, Warned, ignore
from ingot.model.units import Seconds
from ingot.ports import MachineSpec, Token
from ingot.system import process
from ingot.system.waits import Flag, poll
from tests.local_fixtures import Site, cached_base, site

__all__ = ["cached_base", "site"]

pytestmark = pytest.mark.local

TOKEN = Token("ingot-vm-1")


CONSOLES = Path(__file__).parents[2] / "data/consoles"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "work"


@pytest.fixture
def resource(site: Site, folder: Path) -> Iterator[vm.VmResource]:
    """A machine whose disk has no kernel: QEMU runs, and nothing comes up."""
    record = site.backend.store.verify(site.base.content)
    made = vm.VmResource(
        folder=folder,
        state=site.state,
        files=site.backend.store.files(record),
        spec=MachineSpec(parent=site.base, kind="vm"),
    )
    yield made
    made.delete(TOKEN)


def attach(folder: Path, seconds: float = 60.0, emit: Emit = ignore) -> vm.VmMachine:
    sockets = folder.parent / "s"
    sockets.mkdir(exist_ok=True)
    return vm.attach_vm(folder, TOKEN, sockets=sockets, emit=emit, cancel=Flag(), timeout=Seconds(seconds))


def qemu(folder: Path) -> int:
    """The process id of the machine's QEMU."""
    return int(json.loads((folder / TOKEN / "machine.json").read_text())["pid"])


def wait_until_gone(pid: int) -> None:
    def gone() -> bool | None:
        stat = Path(f"/proc/{pid}/stat")
        try:
            return True if stat.read_text().rpartition(") ")[2].startswith("Z") else None
        except (FileNotFoundError, ProcessLookupError):
            return True

    poll(gone, what="QEMU's end", every=Seconds(0.05), deadline=Seconds(30.0), cancel=Flag())


def test_a_guest_of_one_sector_tells_whether_an_accelerator_works(tmp_path: Path) -> None:
    assert vm_qemu.runs_guest("tcg", tmp_path, timeout=Seconds(60.0))
    assert not vm_qemu.runs_guest("tcg", tmp_path, timeout=Seconds(0.001))
    assert not list(tmp_path.iterdir())


def test_the_accelerator_is_probed_once_a_boot(tmp_path: Path) -> None:
    chosen = vm_qemu.choose_accelerator(tmp_path)
    note = tmp_path / "accelerator.json"
    kept = json.loads(note.read_text())
    assert kept["accelerator"] == chosen
    other = "kvm" if chosen == "tcg" else "tcg"
    note.write_text(json.dumps({**kept, "accelerator": other}))
    assert vm_qemu.choose_accelerator(tmp_path) == other, "the note is believed"
    note.write_text(json.dumps({"boot": "another", "accelerator": other}))
    assert vm_qemu.choose_accelerator(tmp_path) == chosen, "a note of another boot is not"


def test_a_machine_that_stays_silent_is_told_with_its_console(resource: vm.VmResource, folder: Path) -> None:
    resource.create(TOKEN)
    with pytest.raises(DeadlineError, match="its console stayed silent") as error:
        attach(folder, 3.0)
    assert error.value.console == str(folder / TOKEN / "console")


def test_a_machine_that_ended_is_told_at_once(resource: vm.VmResource, folder: Path) -> None:
    resource.create(TOKEN)
    os.kill(qemu(folder), signal.SIGKILL)
    with pytest.raises(BackendError, match="ended before it answered"):
        attach(folder)


def test_a_kernel_panic_ends_the_wait(resource: vm.VmResource, folder: Path) -> None:
    resource.create(TOKEN)
    (folder / TOKEN / "console").write_text("[ 2.1] Kernel panic - not syncing: No working init found.\n")
    with pytest.raises(BackendError, match="the kernel panicked: No working init found"):
        attach(folder)


def test_a_machine_whose_clock_stands_still_is_started_again_once(
    resource: vm.VmResource, folder: Path
) -> None:
    resource.create(TOKEN)
    poll(
        lambda: vm_qemu.control(folder / TOKEN, "query-status"),
        what="QEMU",
        every=Seconds(0.1),
        deadline=Seconds(30.0),
        cancel=Flag(),
    )
    (folder / TOKEN / "console").write_bytes((CONSOLES / "clock-stood-still.log").read_bytes())
    heard: list[Event] = []
    with pytest.raises(DeadlineError, match="did not answer over SSH"):
        attach(folder, 3.0, emit=heard.append)
    (warned,) = [event for event in heard if isinstance(event, Warned)]
    assert "started again" in warned.message


def test_deleting_leaves_nothing_and_may_be_done_again(resource: vm.VmResource, folder: Path) -> None:
    ref = resource.create(TOKEN)
    assert resource.find(TOKEN) == ref
    pid = qemu(folder)
    resource.delete(ref)
    wait_until_gone(pid)
    assert resource.find(TOKEN) is None and not list(folder.iterdir())
    resource.delete(ref)


def test_another_process_can_delete_it(resource: vm.VmResource, folder: Path, site: Site) -> None:
    ref = resource.create(TOKEN)
    pid = qemu(folder)
    vm.VmResource(folder=folder, state=site.state).delete(ref)
    wait_until_gone(pid)
    assert not list(folder.iterdir())


def test_a_process_that_got_its_number_is_not_ended(folder: Path, site: Site) -> None:
    home = folder / TOKEN
    home.mkdir(parents=True)
    other = process.spawn(["sleep", "600"])
    try:
        (home / "machine.json").write_text(json.dumps({"pid": other.pid, "accelerator": "tcg"}))
        vm.VmResource(folder=folder, state=site.state).delete(TOKEN)
        assert other.poll() is None
    finally:
        process.end(other)


def test_what_is_half_made_can_be_deleted(folder: Path, site: Site) -> None:
    (folder / TOKEN).mkdir(parents=True)
    (folder / TOKEN / "disk.qcow2").write_text("")
    (folder / TOKEN / "machine.json").write_text("{")
    vm.VmResource(folder=folder, state=site.state).delete(TOKEN)
    assert not list(folder.iterdir())


DIES = """
import os, signal, sys
from pathlib import Path
from ingot.backends.local import vm
from ingot.model.image import LayerRef
from ingot.ports import MachineSpec, Token
folder, state, *files = map(Path, sys.argv[1:])
layer = LayerRef(key="k", content="c", parent=None, ref="r", size=1, created="")
spec = MachineSpec(parent=layer, kind="vm")
vm.VmResource(folder=folder, state=state, files=files, spec=spec).create(Token("ingot-vm-1"))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_machine_dies_with_the_process_that_made_it(folder: Path, site: Site) -> None:
    files = site.backend.store.files(site.backend.store.verify(site.base.content))
    words = [sys.executable, "-c", DIES, str(folder), str(site.state), *map(str, files)]
    assert subprocess.run(words, check=False).returncode == -signal.SIGKILL
    wait_until_gone(qemu(folder))
    vm.VmResource(folder=folder, state=site.state).delete(TOKEN)
    assert not list(folder.iterdir())


def test_qemu_answers_and_says_its_port(resource: vm.VmResource, folder: Path) -> None:
    resource.create(TOKEN)

    def port() -> int | None:
        return vm_qemu.forwarded_port(folder / TOKEN)

    found = poll(port, what="QEMU", every=Seconds(0.05), deadline=Seconds(60.0), cancel=Flag())
    assert 1024 < found < 65536
    with pytest.raises(BackendError, match="refused 'no-such-command'"):
        vm_qemu.control(folder / TOKEN, "no-such-command")
    with pytest.raises(TransientError):
        vm_qemu.control(folder, "query-status")


def test_an_image_without_cloud_init_is_told_the_keys_on_its_disk(
    resource: vm.VmResource, folder: Path, site: Site
) -> None:
    resource.create(TOKEN)
    home = folder / TOKEN
    os.kill(qemu(folder), signal.SIGKILL)
    wait_until_gone(qemu(folder))
    files = site.backend.store.files(site.backend.store.verify(site.base.content))
    with mounted([*files, home / "disk.qcow2"], home / "look", writable=False) as held:
        root = held.outside(held.root)
        assert not vm_seed.has_cloud_init(root)
        assert (root / "root/.ssh/authorized_keys").read_text() == (home / "id.pub").read_text()
        host = root / "etc/ssh/ssh_host_ed25519_key"
        assert host.read_text() == (home / "host").read_text() and host.stat().st_mode & 0o777 == 0o600
        assert "DHCP=yes" in (root / "etc/systemd/network/99-ingot.network").read_text()


def test_a_link_on_the_disk_leads_nowhere(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "root").mkdir(parents=True)
    outside.mkdir()
    (root / "root/.ssh").symlink_to(outside)
    keys = vm_seed.make_keys(tmp_path)
    with pytest.raises(OSError, match="is a link"):
        vm_seed.write_into(root, keys)
    assert not list(outside.iterdir())


def test_the_seed_is_what_nocloud_looks_for(tmp_path: Path) -> None:
    keys = vm_seed.make_keys(tmp_path)
    seed = vm_seed.write_seed(tmp_path, keys, instance="i-1", hostname="node")
    label = process.run(["blkid", "-o", "value", "-s", "LABEL", str(seed)], timeout=Seconds(10.0)).stdout
    assert label.strip() == "CIDATA"
    words = ["mtype", "-i", str(seed), "::/user-data"]
    first, _, rest = process.run(words, timeout=Seconds(10.0)).stdout.partition("\n")
    assert first == "#cloud-config"
    assert json.loads(rest)["ssh_authorized_keys"] == [keys.public]
