"""Files and folders, copied to a real machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ingot.errors import ProvisionError
from ingot.model.events import ignore
from ingot.model.secret import Secret, placeholder
from ingot.model.step import FilesStep
from ingot.model.units import Seconds
from ingot.ports import Machine
from ingot.provision import Provisioners
from ingot.system import ssh
from ingot.system.waits import Flag
from tests.provision.conftest import read, read_folder


def apply(step: FilesStep, machine: Machine, root: Path) -> None:
    Provisioners(root=root, directory=root / "run", secrets={"token": Secret("s3cr3t")}).apply(
        step, machine, subject="files", emit=ignore, cancel=Flag()
    )


def listing(machine: Machine, *paths: str) -> list[str]:
    """Mode, owner, group, kind and name of each path."""
    format = ["stat", "-c", "%a %U:%G %N", *paths]
    return ssh.run(machine.ssh, format, timeout=Seconds(30.0)).stdout.splitlines()


@pytest.mark.local
def test_a_text_and_a_file_are_copied(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "motd").write_text("hello\n")
    (tmp_path / "motd").chmod(0o751)
    apply(FilesStep(src="motd", dest="/etc/motd"), machine, tmp_path)
    apply(FilesStep(src="motd", dest="/etc/new/folder/"), machine, tmp_path)
    apply(
        FilesStep(text=f"token={placeholder('token')}\n", dest="/etc/t", mode="0640", group="www-data"),
        machine,
        tmp_path,
    )
    assert read(machine, "/etc/motd") == "hello\n"
    assert read(machine, "/etc/t") == "token=s3cr3t\n"
    assert listing(machine, "/etc/motd", "/etc/t", "/etc/new/folder", "/etc/new/folder/motd") == [
        "751 root:root '/etc/motd'",
        "640 root:www-data '/etc/t'",
        "755 root:root '/etc/new/folder'",
        "751 root:root '/etc/new/folder/motd'",
    ]
    assert ".ingot" not in read_folder(machine, "/etc")


@pytest.mark.local
def test_a_folder_is_merged_into_what_is_there(machine: Machine, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "etc/app dir").mkdir(parents=True)
    (tree / "etc/app dir/a").write_text("a")
    (tree / "etc/app dir/secret").write_text("b")
    (tree / "etc/app dir/secret").chmod(0o600)
    os.link(tree / "etc/app dir/a", tree / "etc/app dir/b")
    (tree / "etc/link").symlink_to("app dir/a")
    (tree / "sbin").mkdir()
    (tree / "sbin/tool").write_text("#!/bin/sh\n")
    (tree / "sbin/tool").chmod(0o755)
    (tree / "etc/app dir").chmod(0o750)
    ssh.run(machine.ssh, ["chmod", "711", "/etc"], timeout=Seconds(10.0))

    apply(FilesStep(src="tree", dest="/"), machine, tmp_path)

    names = ["/etc", "/etc/app dir", "/etc/app dir/a", "/etc/app dir/b", "/etc/app dir/secret", "/etc/link"]
    assert listing(machine, *names, "/sbin/tool", "/sbin") == [
        "711 root:root '/etc'",
        "750 root:root '/etc/app dir'",
        "644 root:root '/etc/app dir/a'",
        "644 root:root '/etc/app dir/b'",
        "600 root:root '/etc/app dir/secret'",
        "777 root:root '/etc/link' -> 'app dir/a'",
        "755 root:root '/sbin/tool'",
        "777 root:root '/sbin' -> 'usr/sbin'",
    ]
    assert ".ingot" not in read_folder(machine, "/")


@pytest.mark.local
def test_a_mode_for_a_folder_lets_readers_enter(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "tree/sub").mkdir(parents=True)
    (tmp_path / "tree/sub/file").touch()
    apply(FilesStep(src="tree", dest="/opt/tree", mode="0640"), machine, tmp_path)
    assert listing(machine, "/opt/tree/sub", "/opt/tree/sub/file") == [
        "750 root:root '/opt/tree/sub'",
        "640 root:root '/opt/tree/sub/file'",
    ]


@pytest.mark.local
@pytest.mark.parametrize(
    ("step", "message"),
    [
        (FilesStep(text="x", dest="etc/x"), "the destination 'etc/x' is not absolute"),
        (FilesStep(src="none", dest="/etc/x"), "the file 'none' is not there"),
        (FilesStep(text="x", dest="/etc/"), "the text needs a file's name, but '/etc/' names a folder"),
        (FilesStep(text="x", dest="/etc"), "'/etc' is a folder on the machine; end `dest` with `/` to copy into it"),
        (FilesStep(src=".", dest="/etc/passwd"), "a folder cannot be copied to '/etc/passwd': that is a file"),
        (FilesStep(text="x", dest="/etc/x", owner="slurm"), "the machine has no user 'slurm'"),
        (FilesStep(text="x", dest="/etc/x", group="slurm"), "the machine has no group 'slurm'"),
        (FilesStep(text="x", dest="/proc/x/y"), "'/proc/x/y' was not copied: "),
    ],
)  # fmt: skip
def test_what_cannot_be_copied_is_told(
    step: FilesStep, message: str, machine: Machine, tmp_path: Path
) -> None:
    with pytest.raises(ProvisionError) as caught:
        apply(step, machine, tmp_path)
    assert caught.value.message.startswith(message)
