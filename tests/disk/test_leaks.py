from __future__ import annotations

import base64
import hashlib
import itertools
import json
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.disk.leaks import scan_blocks, scan_tree
from ingot.model.secret import Secret
from ingot.ports import Finding, Needle

SECRET = 'pa"ss w0rd/+q8Zt0kP3'
NEEDLE = Needle(name="db_password", value=Secret(SECRET))
# Put together here, so that no scanner takes this file for a leak.
TOKENS = {
    "AWS access key": b" AKIA" + b"Q3EGTI2JXRBZ5WLM ",
    "AWS secret key": b"aws_secret_access_key" + b" = 'a8Zt0kP3/+a8Zt0kP3/+a8Zt0kP3/+a8Zt0kP3//'",
    "GitHub token": b"ghs" + b"_a8Zt0kP3a8Zt0kP3a8Zt0kP3a8Zt0kP3a8Z9",
    "GitLab token": b"glpat" + b"-a8Zt0kP3_a8Zt0kP3-aa",
    "Slack token": b"xoxp" + b"-123456789012-a8Zt0kP3a8Zt0kP3a8Zt",
    "npm token": b"//registry/:_authToken" + b"=a8Zt0kP3a8Zt0kP3a8Zt0kP3",
    "PyPI token": b"pypi-" + b"AgEIcHlwaS5vcmc" + b"a8Zt0kP3" * 8,
    "Azure account key": b"AccountKey=" + base64.b64encode(bytes(range(64))),
    "Google API key": b"AIza" + b"SyA" + b"a8Zt0kP3" * 4,
    "JSON web token": b"eyJhbGciOi" + b"JIUzI1NiJ9.eyJzdWIiOiIxIn0." + b"a8Zt0kP3" * 4,
}


def scan_disk(
    root: Path, chunks: Iterable[tuple[int, bytes]], needles: Sequence[Needle]
) -> tuple[Finding, ...]:
    """Files first, then blocks: what is told or exempt as a file is not told again as a block."""
    known: set[bytes] = set()
    found = list(scan_tree(root, needles, known=known))
    return (*found, *scan_blocks(chunks, needles, known=known))


def chunked(data: bytes, size: int, *, start: int = 0) -> Iterator[tuple[int, bytes]]:
    for at in range(0, len(data), size):
        yield start + at, data[at : at + size]


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("key") / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path.read_bytes()


@pytest.fixture(scope="module")
def other_key(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("key") / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path.read_bytes()


@given(
    size=st.sampled_from([1, 7, 512, 4096, 2**20, 2**20 + 1]),
    at=st.one_of(st.integers(0, 5000), st.integers(2**20 - 1200, 2**20 + 50)),
)
@settings(max_examples=40, deadline=None)
def test_a_secret_is_found_wherever_chunks_end(size: int, at: int) -> None:
    token = TOKENS["GitHub token"]
    data = bytes(at) + SECRET.encode() + b"\n" + token + b"\n"
    found = list(scan_blocks(chunked(data, size, start=10**9), [NEEDLE]))
    assert {finding.what for finding in found} == {"db_password", "GitHub token"}
    assert any(f"byte {10**9 + at} " in finding.where for finding in found)


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        json.dumps(SECRET),
        quote(SECRET, safe=""),
        SECRET.encode().hex(),
        SECRET.encode().hex().upper(),
        *(base64.b64encode(b"x" * shift + SECRET.encode() + b"yz").decode() for shift in range(4)),
        base64.urlsafe_b64encode(SECRET.encode()).decode(),
    ],
)
def test_a_secret_is_found_in_the_forms_that_programs_give_it(form: str) -> None:
    found = list(scan_blocks([(0, b"left " + form.encode() + b" right")], [NEEDLE]))
    assert [finding.what for finding in found] == ["db_password"]
    assert SECRET not in repr(found) and form not in repr(found)


@pytest.mark.parametrize("kind", TOKENS)
def test_tokens_are_found_by_what_they_look_like(kind: str) -> None:
    found = list(scan_blocks([(0, b"\n" + TOKENS[kind] + b"\n")], []))
    assert [finding.what for finding in found] == [kind]


@pytest.mark.parametrize(
    "harmless",
    [
        b"-----BEGIN OPENSSH PRIVATE KEY-----\n\0-----END OPENSSH PRIVATE KEY-----\n",
        b"-----BEGIN RSA PRIVATE KEY-----\n...\n-----END RSA PRIVATE KEY-----",
        b" AKIA" + b"IOSFODNN7EXAMPLE ",
        b"npm_config_registry=https://registry.npmjs.org/a/b/c/d/e/f",
        b"xoxb-not-a-token",
        b"gho_" + b"short",
        b"eyJhbGciOi" + b"JIUzI1NiJ9.not.a.token",
    ],
)
def test_what_only_resembles_a_secret_is_left_alone(harmless: bytes) -> None:
    assert not list(scan_blocks([(0, harmless + bytes(2000))], [NEEDLE]))


def test_private_keys_are_found_with_real_and_with_escaped_line_ends(key: bytes) -> None:
    in_json = json.dumps({"type": "service_account", "private_key": key.decode()}).encode()
    for data in (key, in_json, key.replace(b"\n", b"\r\n")):
        assert [finding.what for finding in scan_blocks([(0, data)], [])] == ["private key"]


def test_two_keys_are_two_finds_and_copies_are_one(key: bytes, other_key: bytes) -> None:
    data = key + bytes(5000) + key.replace(b"\n", b"\\n") + bytes(5000) + other_key
    assert len(list(scan_blocks([(0, data)], []))) == 2


def test_what_a_layer_above_hides_is_not_told_but_remembered(key: bytes) -> None:
    below = bytes(4096) + key + bytes(4096) + SECRET.encode()
    now = bytearray(below)
    now[4096 : 4096 + len(key)] = bytes(len(key))
    hidden: list[int] = []
    found = scan_blocks(
        [(0, below)], [NEEDLE], shown=lambda at, length: bytes(now[at : at + length]), hidden=hidden
    )
    assert [finding.what for finding in found] == ["db_password"]
    assert len(hidden) == 1 and 4096 <= hidden[0] < 4200


def test_a_gap_between_chunks_joins_nothing() -> None:
    half = len(SECRET) // 2
    chunks = [(0, SECRET[:half].encode()), (4096, SECRET[half:].encode())]
    assert not list(scan_blocks(chunks, [NEEDLE]))


def test_files_links_and_names_are_looked_at(tmp_path: Path, key: bytes) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/app.conf").write_text(f"password = {SECRET}\n")
    (tmp_path / "etc/key").write_bytes(key)
    (tmp_path / "root").mkdir()
    (tmp_path / "root/.netrc").write_text("machine example.org login me password hunter22\n")
    (tmp_path / "root/.git-credentials").write_text("https://me:hunter22@example.org\n")
    plain = Needle(name="plain", value=Secret("q8Zt0kP3vWx9"))
    (tmp_path / "link").symlink_to("/somewhere/q8Zt0kP3vWx9")
    (tmp_path / "cache-q8Zt0kP3vWx9").write_text("")
    found = set(scan_tree(tmp_path, [NEEDLE, plain]))
    assert found == {
        Finding(what="db_password", where="/etc/app.conf"),
        Finding(what="private key", where="/etc/key"),
        Finding(what="password in a netrc file", where="/root/.netrc"),
        Finding(what="password for Git", where="/root/.git-credentials"),
        Finding(what="plain", where="/link"),
        Finding(what="plain", where="/cache-***"),
    }


def test_a_short_secret_is_compared_with_whole_files_alone(tmp_path: Path) -> None:
    (tmp_path / "pin").write_text("4711\n")
    (tmp_path / "table").write_text("0 4711 9\n")
    pin = Needle(name="pin", value=Secret("4711"))
    assert [finding.where for finding in scan_tree(tmp_path, [pin])] == ["/pin"]
    assert not list(scan_blocks([(0, b"4711")], [pin]))


def test_many_and_large_files_are_told_apart(tmp_path: Path) -> None:
    for number in range(300):
        (tmp_path / f"{number:03}").write_bytes(bytes([number % 251]) * (number * 100))
    big = tmp_path / "big"
    big.write_bytes(b"x" * (3 * 2**20 - 5) + SECRET.encode() + b"y" * 2**20)
    (tmp_path / "150").write_text(SECRET)
    assert {finding.where for finding in scan_tree(tmp_path, [NEEDLE])} == {"/big", "/150"}


def test_files_unchanged_since_the_last_scan_are_left_out(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text(SECRET)
    since = old.stat().st_ctime_ns + 1
    for _ in itertools.count():
        new.write_text(SECRET)
        if new.stat().st_ctime_ns >= since:
            break
    assert [finding.where for finding in scan_tree(tmp_path, [NEEDLE], since=since)] == ["/new"]


def test_what_a_package_brought_unchanged_is_exempt_from_patterns_but_not_from_needles(
    tmp_path: Path, key: bytes
) -> None:
    shipped = tmp_path / "usr/share/doc/tests/key.pem"
    shipped.parent.mkdir(parents=True)
    shipped.write_bytes(key)
    info = tmp_path / "var/lib/dpkg/info"
    info.mkdir(parents=True)
    checksum = hashlib.md5(key, usedforsecurity=False).hexdigest()
    (info / "tests.md5sums").write_text(f"{checksum}  usr/share/doc/tests/key.pem\n")
    blocks = [(0, bytes(4096) + key)]
    assert scan_disk(tmp_path, blocks, []) == ()
    shipped.write_bytes(key + b"changed")
    assert [finding.where for finding in scan_disk(tmp_path, blocks, [])] == ["/usr/share/doc/tests/key.pem"]
    shipped.write_bytes(key)
    needle = Needle(name="key", value=Secret(key.decode()))
    assert [finding.where for finding in scan_tree(tmp_path, [needle])] == ["/usr/share/doc/tests/key.pem"]


@pytest.mark.local
def test_a_deleted_file_is_found_in_the_blocks_of_a_file_system(tmp_path: Path, key: bytes) -> None:
    tree, disk = tmp_path / "tree", tmp_path / "disk"
    (tree / "root").mkdir(parents=True)
    (tree / "root/id").write_bytes(key)
    (tree / "root/config").write_text(SECRET)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", tree, disk, "32M"], check=True)
    for name in ("id", "config"):
        subprocess.run(["debugfs", "-w", "-R", f"rm /root/{name}", disk], check=True, capture_output=True)
        (tree / "root" / name).unlink()
    found = scan_disk(tree, chunked(disk.read_bytes(), 65536), [NEEDLE])
    assert {finding.what for finding in found} == {"private key", "db_password"}
    assert all(finding.where.startswith("block at byte ") for finding in found)
