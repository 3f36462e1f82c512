"""This computer, as it is and as it might be: each bad state is a real one."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import cast

import pytest

from ingot.backends.local.doctor import LocalDoctor
from ingot.model.definition import Arch, BaseSource, CloudBase, DebootstrapBase, DiskImageBase
from ingot.model.diagnosis import Diagnosis
from ingot.model.plan import Base, LayerKey
from ingot.model.units import Bytes, Seconds
from ingot.ports import Wanted
from ingot.system import process
from tests.backends.local.test_rootless import NOBODY

pytestmark = pytest.mark.local
DISK = Bytes(8 * 2**30)


def wanted(*kinds: str, source: BaseSource | None = None, arch: str = "", name: str = "base") -> Wanted:
    own = cast(Arch, arch or os.uname().machine)
    base = Base(
        name=name,
        source=source or DebootstrapBase(suite="bookworm"),
        arch=own,
        disk=DISK,
        key=LayerKey("sha256:0"),
    )
    return Wanted(
        project="acme",
        image="node",
        arch=own,
        disk=DISK,
        base=base,
        machines=frozenset(kinds or ("chroot",)),
    )


@pytest.fixture
def doctor(tmp_path: Path) -> LocalDoctor:
    return LocalDoctor(folder=tmp_path / "state" / "local", root=tmp_path)


def the(findings: list[Diagnosis], what: str) -> Diagnosis:
    (one,) = [one for one in findings if one.what == what]
    return one


def test_this_computer_can_build(doctor: LocalDoctor) -> None:
    found = list(doctor.examine([wanted("chroot", "booted")]))
    assert {one.what for one in found} == {"architecture", "rights", "programs", "source", "room"}
    assert {one.state for one in found} == {"ok"}
    assert not doctor.folder.exists(), "nothing is made"


def test_without_a_definition(doctor: LocalDoctor) -> None:
    found = list(doctor.examine([]))
    assert [one.what for one in found] == ["architecture", "rights", "programs", "room", "virtual machines"]
    assert all(one.state in ("ok", "warn") for one in found)


def test_another_architecture(doctor: LocalDoctor) -> None:
    other = "aarch64" if os.uname().machine == "x86_64" else "x86_64"
    found = the(list(doctor.examine([wanted(arch=other)])), "architecture")
    assert found.state == "bad" and other in found.message and "arch:" in found.hint


def test_programs_that_are_not_installed(
    doctor: LocalDoctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "sbin"
    programs.mkdir()
    real = process.environment
    monkeypatch.setattr(process, "environment", lambda extra=None: {**real(extra), "PATH": str(programs)})
    (programs / "qemu-img").symlink_to("/usr/bin/qemu-img")
    found = the(list(doctor.examine([wanted("vm")])), "programs")
    assert found.state == "bad" and "qemu-system-x86_64" in found.message and "mmdebstrap" in found.message
    assert "qemu-img" not in found.message and "debian-packages.txt" in found.hint


def test_sources(doctor: LocalDoctor, tmp_path: Path) -> None:
    image = wanted(source=DiskImageBase(url="base.img"))
    assert the(list(doctor.examine([image])), "source").state == "bad"
    (tmp_path / "base.img").touch()
    assert the(list(doctor.examine([image])), "source").state == "ok"
    keyring = wanted(source=DebootstrapBase(suite="bookworm", keyring="keys.gpg"))
    found = the(list(doctor.examine([keyring])), "source")
    assert found.state == "bad" and "keys.gpg" in found.message
    cloud = wanted(source=CloudBase(backend="aws", query={"ami": "ami-0123456789abcdef0"}))
    assert "local:" in the(list(doctor.examine([cloud])), "source").hint


def test_a_state_folder_without_room(doctor: LocalDoctor, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    process.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(small)], timeout=Seconds(10.0))
    try:
        found = the(list(LocalDoctor(folder=small / "local", root=tmp_path).examine([wanted()])), "room")
    finally:
        process.run(["umount", str(small)], timeout=Seconds(10.0))
    assert found.state == "bad" and "1.0 MiB free" in found.message and "ingot gc" in found.hint


@pytest.mark.parametrize(("accelerator", "state"), [("kvm", "ok"), ("tcg", "warn")])
def test_what_virtual_machines_run_on(doctor: LocalDoctor, accelerator: str, state: str) -> None:
    """What was found once holds until the next boot."""
    doctor.folder.mkdir(parents=True)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    note = {"boot": boot, "accelerator": accelerator}
    (doctor.folder / "accelerator.json").write_text(json.dumps(note))
    found = the(list(doctor.examine([wanted("vm")])), "virtual machines")
    assert found.state == state and ("KVM" in found.message or "/dev/kvm" in found.message)


LOOK = """\
import sys
from pathlib import Path
from ingot.backends.local.doctor import LocalDoctor
from tests.backends.local.test_doctor import wanted
from ingot.model.definition import DiskImageBase
folder = Path(sys.argv[1])
image = DiskImageBase(url="https://example.org/debian.qcow2", sha256="0" * 64)
for one in (wanted("chroot", source=image), wanted("vm", source=image)):
    for found in LocalDoctor(folder=folder / "state", root=folder).examine([one]):
        if found.what == "rights":
            print(found.what, found.state, found.message)
"""


def test_an_ordinary_user(tmp_path: Path) -> None:
    env = {"PYTHONPATH": os.pathsep.join(sys.path)}
    argv = [*NOBODY, sys.executable, "-c", LOOK, str(tmp_path)]
    first, second = process.run(argv, timeout=Seconds(60.0), env=env).stdout.splitlines()
    assert first == "rights bad an ordinary user, and chroot needs root"
    # Some systems forbid user namespaces: told then, with the reason.
    assert second.startswith(("rights ok an ordinary user, with", "rights bad an ordinary user, and no user"))
