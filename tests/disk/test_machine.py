from __future__ import annotations

import ast
import base64
import hashlib
import itertools
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import chdir
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import pytest

from ingot.disk import machine as looks
from ingot.disk.agent import _unescaped, read_disk
from ingot.disk.leak_patterns import needle_literals
from ingot.disk.leaks import scan_tree, texts
from ingot.disk.machine import MachineScan, scan_machine
from ingot.disk.search import Sought, blocks, sights
from ingot.errors import DeadlineError, ProvisionError
from ingot.model.secret import Secret
from ingot.model.units import Seconds
from ingot.ports import Finding, Machine, Needle
from ingot.system import process, ssh
from ingot.system.waits import Flag
from tests.disk.test_leaks import TOKENS
from tests.local_fixtures import Site, cached_base, sh, site

__all__ = ["cached_base", "site"]

SECRET = 'pa"ss w0rd/+q8Zt0kP3'
PLAIN = "q8Zt0kP3vWx9"
NEEDLES = [
    Needle(name="db_password", value=Secret(SECRET)),
    Needle(name="plain", value=Secret(PLAIN)),
    Needle(name="pin", value=Secret("4711")),
]
TOKEN = TOKENS["GitHub token"] + b"\n"
MIB = 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A file (or what `make` makes at its place), what is found of it, and how that is told where not by its path."""

    path: str
    data: bytes = b""
    make: Callable[[Path], object] | None = None
    found: str = ""
    where: str = ""
    sums: bytes | None = None
    """What a package's list says that the file holds."""


def sparse(path: Path, size: int, end: bytes) -> None:
    with path.open("wb") as file:
        file.truncate(size)
        file.seek(size - len(end))
        file.write(end)


def listen(path: Path) -> None:
    with chdir(path.parent), socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)


CASES = [
    Case(path="/etc/app/token", data=b"x = " + TOKEN, found="GitHub token"),
    Case(path="/etc/app/many", data=TOKEN * 50, found="GitHub token"),
    Case(path="/etc/app/resembles", data=b"gho_" + b"short" + b" AKIA" + b"IOSFODNN7EXAMPLE "),
    Case(path="/etc/app/password", data=f"password = {SECRET}\n".encode(), found="db_password"),
    Case(path="/etc/app/hex", data=SECRET.encode().hex().encode(), found="db_password"),
    Case(path="/etc/app/base64", data=base64.b64encode(b"xy" + SECRET.encode()), found="db_password"),
    Case(path="/etc/app/border", data=b"x" * (MIB - 5) + SECRET.encode() + b"y" * MIB, found="db_password"),
    Case(path="/etc/app/token-at-border", data=b"x" * (2 * MIB - 9) + b"\n" + TOKEN, found="GitHub token"),
    Case(path=f"/var/cache/{PLAIN}/file", found="plain", where="/var/cache/***/file"),
    Case(path="/srv/link", make=lambda path: path.symlink_to(f"/nowhere/{PLAIN}"), found="plain"),
    Case(path="/srv/fifo", make=os.mkfifo),
    Case(path="/srv/socket", make=listen),
    Case(path="/srv/sparse", make=lambda path: sparse(path, 64 * 2**30, SECRET.encode()), found="db_password"),
    Case(path="/srv/closed", data=TOKEN, make=lambda path: path.chmod(0), found="GitHub token"),
    Case(path="/srv/räksmörgås", data=TOKEN, found="GitHub token"),
    Case(path="/srv/pin", data=b" 4711\n", found="pin"),
    Case(path="/srv/table", data=b"0 4711 9\n"),
    Case(path="/root/.netrc", data=b"machine example.org login me password hunter22\n", found="password in a netrc file"),
    Case(path="/home/ada/.docker/config.json", data=b'{"auth": "aHVudGVyMjI="}', found="password for a registry"),
    Case(path="/srv/config.json", data=b'{"auth": "aHVudGVyMjI="}'),
    Case(path="/usr/share/tests/token", data=TOKEN, sums=TOKEN),
    Case(path="/usr/share/tests/changed", data=TOKEN, sums=b"as it was", found="GitHub token"),
    Case(path="/usr/share/tests/needle", data=SECRET.encode(), sums=SECRET.encode(), found="db_password"),
    Case(path="/usr/share/tests/stray", data=TOKEN, found="GitHub token"),
    Case(path="/usr/share/tests/a.py", data=TOKEN, sums=TOKEN),
    Case(path="/usr/share/tests/__pycache__/a.cpython-311.pyc", data=TOKEN),
    Case(path="/usr/lib/merged", data=TOKEN, sums=TOKEN),
]  # fmt: skip
FOUND = {Finding(what=case.found, where=case.where or case.path) for case in CASES if case.found}


def make(root: Path) -> None:
    """The cases as files, and a package's list of those that it brought."""
    sums = []
    for case in CASES:
        path = root / case.path.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        if case.data or not case.make:
            path.write_bytes(case.data)
        if case.make:
            case.make(path)
        if case.sums is not None:
            name = case.path.removeprefix("/usr/" if "merged" in case.path else "/")
            sums.append(f"{hashlib.md5(case.sums, usedforsecurity=False).hexdigest()}  {name}\n")
    info = root / "var/lib/dpkg/info"
    info.mkdir(parents=True)
    (info / "ingot-tests.md5sums").write_text("".join(sums))


def send(root: Path, machine: Machine) -> None:
    """What is below the folder, to the same places of the machine. tar takes no sockets: they are made there."""
    packed = process.spawn(["tar", "-C", str(root), "--sparse", "-c", "."], stdout=subprocess.PIPE)
    words = ssh.argv(machine.ssh, "tar", "-x", "--no-overwrite-dir", "-C", "/")
    process.run(words, timeout=Seconds(60.0), stdin=packed.stdout)
    process.end(packed)
    sh(machine, "python3 -c \"import socket; socket.socket(socket.AF_UNIX).bind('/srv/socket')\"")


def scan(machine: Machine, needles: list[Needle] = NEEDLES, since: int | None = None) -> MachineScan:
    return scan_machine(machine.ssh, needles, since=since, cancel=Flag(), timeout=Seconds(120.0))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    make(root)
    return root


@pytest.fixture(scope="module")
def machine(site: Site, tree: Path) -> Iterator[Machine]:
    with site.machine("ingot-scan-1") as machine:
        sh(machine, "rm /etc/ssh/ssh_host_*")
        assert scan(machine).found == (), "the base itself"
        send(tree, machine)
        yield machine


@pytest.fixture
def python(machine: Machine) -> Iterator[Callable[[str], None]]:
    """Puts a script in the place of the machine's Python."""
    place = "/usr/local/bin/python3"

    def put(script: str) -> None:
        sh(machine, f"cat > {place} <<'END'\n#!/bin/sh\n{script}\nEND\nchmod 755 {place}")

    yield put
    sh(machine, f"rm -f {place}")


def test_a_mounted_disk_is_judged_as_the_cases_say(tree: Path) -> None:
    found = list(scan_tree(tree, NEEDLES))
    assert set(found) == FOUND and len(found) == len(FOUND)


@pytest.mark.local
def test_a_running_machine_is_judged_like_a_mounted_disk(machine: Machine) -> None:
    scanned = scan(machine)
    assert set(scanned.found) == FOUND and len(scanned.found) == len(FOUND)
    # A chroot machine's /dev has no disks.
    assert scanned.disks == () and len(scanned.unread) == 1 and "cannot be read there" in scanned.unread[0]


@pytest.mark.local
def test_without_dpkg_what_lies_in_usr_is_taken_for_a_packages(machine: Machine, tree: Path) -> None:
    def kept(finding: Finding) -> bool:
        return finding.what == "db_password" or not finding.where.startswith("/usr/")

    sh(machine, "mv /var/lib/dpkg /var/lib/kept")
    (tree / "var/lib/dpkg").rename(tree / "var/lib/kept")
    try:
        assert set(scan(machine).found) == set(scan_tree(tree, NEEDLES)) == set(filter(kept, FOUND))
    finally:
        sh(machine, "mv /var/lib/kept /var/lib/dpkg")
        (tree / "var/lib/kept").rename(tree / "var/lib/dpkg")


@pytest.mark.local
def test_files_unchanged_since_then_are_left_out(machine: Machine) -> None:
    since = int(sh(machine, "stat -c %Z /srv/pin").stdout)
    for number in itertools.count():
        sh(machine, f"echo {PLAIN} > /srv/new-{number}")
        if int(sh(machine, f"stat -c %Z /srv/new-{number}").stdout) > since:
            break
    found = scan(machine, since=(since + 1) * 10**9).found
    sh(machine, "rm /srv/new-*")
    assert {finding.where for finding in found} == {f"/srv/new-{number}"}


@pytest.mark.local
def test_secrets_are_in_no_argument_and_nothing_is_written(
    machine: Machine, python: Callable[[str], None]
) -> None:
    listing = "find / -xdev -path /run -prune -o -printf '%p %s %T@ %C@\\n' | sort"
    python("{ tr '\\0' '\\n' </proc/$$/cmdline; env; } >/run/seen\nexec /usr/bin/python3 \"$@\"")
    sh(machine, "sed -i '1i echo {}; echo welcome' /root/.bashrc")
    before = sh(machine, listing).stdout
    assert set(scan(machine).found) == FOUND
    assert sh(machine, listing).stdout == before
    seen = sh(machine, "cat /run/seen").stdout
    assert "python3" in seen and "PATH=" in seen
    for text in (SECRET, PLAIN, SECRET.encode().hex(), base64.b64encode(SECRET.encode()).decode()[:-4]):
        assert text not in seen


@pytest.mark.local
@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("exit 0", "was not looked at to the end: exit code 0"),
        ("echo '{\"sight\"'; exit 3", "was not looked at to the end: exit code 3"),
        (f"echo {PLAIN} is no file >&2; exit 1", "was not looked at to the end: *** is no file"),
        ("exit 127", "cannot be searched for leaks"),
        ("kill -9 $PPID; sleep 60", "was lost"),
    ],
)
def test_a_scan_that_did_not_end_is_an_error(
    machine: Machine, python: Callable[[str], None], script: str, told: str
) -> None:
    python(script)
    with pytest.raises(ProvisionError, match=re.escape(told)) as raised:
        scan(machine)
    assert raised.value.hint and PLAIN not in repr(raised.value.facts)


@pytest.mark.local
def test_a_scan_has_a_time_limit(machine: Machine, python: Callable[[str], None]) -> None:
    python("sleep 60")
    with pytest.raises(DeadlineError, match="within 2 s"):
        scan_machine(machine.ssh, NEEDLES, cancel=Flag(), timeout=Seconds(2.0))


def test_what_goes_away_meanwhile_is_no_trouble(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / "tree" / name).mkdir(parents=True)
        for number in range(4):
            (tmp_path / "tree" / name / str(number)).write_bytes(b"x" * 2 * MIB)
    sought = Sought((), 48, 1024, (), (), None)
    calls = []

    def check() -> None:
        calls.append(1)
        shutil.rmtree(tmp_path / "tree", ignore_errors=True)

    assert list(sights([os.fsencode(tmp_path / "tree")], sought, check=check)) == []
    assert 0 < len(calls) < 6, "most of it was gone before it was read"


def test_what_is_there_and_cannot_be_read_is_told() -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        root = Path(folder)
        (root / "closed").mkdir(mode=0o700)
        (root / "open").write_bytes(TOKEN)
        (root / "secret").write_bytes(TOKEN)
        (root / "secret").chmod(0)
        root.chmod(0o755)
        os.seteuid(65534)
        try:
            found = set(scan_tree(root, NEEDLES))
        finally:
            os.seteuid(0)
    assert found == {
        Finding(what="a file that could not be read", where="/secret"),
        Finding(what="a file that could not be read", where="/closed"),
        Finding(what="GitHub token", where="/open"),
    }


@pytest.mark.local
def test_each_form_is_told_once_of_the_raw_bytes_of_a_disk(tmp_path: Path) -> None:
    tree, disk = tmp_path / "tree", tmp_path / "disk"
    tree.mkdir()
    (tree / "one").write_bytes(bytes(8192) + SECRET.encode())
    (tree / "two").write_bytes(SECRET.encode() + SECRET.encode().hex().encode())
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", tree, disk, "32M"], check=True)
    for name in ("one", "two"):
        subprocess.run(["debugfs", "-w", "-R", f"rm /{name}", disk], check=True, capture_output=True)
    sought = texts(needle_literals(NEEDLES))
    with disk.open("rb") as file:
        found = list(blocks(read_disk(file.fileno()), sought, range(len(sought))))
    data = disk.read_bytes()
    assert found
    assert dict(found) == {
        number: data.find(text.text) for number, text in enumerate(sought) if text.text in data
    }
    assert len(found) == len(dict(found))


def test_mount_points_may_have_any_name() -> None:
    assert _unescaped(rb"/mnt/a\040b\134c") == rb"/mnt/a b\c"


@pytest.mark.parametrize("name", ["search.py", "agent.py"])
def test_what_is_sent_is_python_3_6_and_needs_nothing(name: str) -> None:
    text = resources.files("ingot.disk").joinpath(name).read_text()
    parsed = ast.parse(text, feature_version=(3, 6))
    wanted = {node.module or "" for node in ast.walk(parsed) if isinstance(node, ast.ImportFrom)}
    wanted |= {each.name for node in ast.walk(parsed) if isinstance(node, ast.Import) for each in node.names}
    assert "os" in wanted and wanted <= {*sys.stdlib_module_names, "ingot.disk.search"} - {
        "__future__",
        "dataclasses",
    }
    ast.parse(looks._START, feature_version=(3, 6))
