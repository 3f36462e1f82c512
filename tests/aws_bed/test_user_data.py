"""The runner for images without cloud-init understands what it says that it does, and names what it does not."""

from __future__ import annotations

import gzip
import subprocess
from pathlib import Path

import pytest

from tests.aws_bed import user_data
from tests.aws_bed.relay import listening


def test_a_script_is_run_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "ran"
    text = f"#!/usr/bin/env python3\nopen('{file}', 'w').write(\"it's here\")\n"
    for data in (text.encode(), gzip.compress(text.encode())):
        file.unlink(missing_ok=True)
        subprocess.run(["sh", "-c", user_data.read(data).script], check=True)
        assert file.read_text() == "it's here"


def test_cloud_config() -> None:
    found = user_data.read(
        b"#cloud-config\n"
        b"ssh_keys: {ed25519_private: a, ed25519_public: b}\n"
        b"ssh_authorized_keys: [c]\n"
        b"write_files: [{path: /d, content: ZQ==, encoding: b64, permissions: '0600'}, {path: /f, content: g}]\n"
        b"bootcmd: [h]\n"
        b"runcmd: [[echo, 'i j'], k]\n"
    )
    assert found == user_data.UserData(
        keys=("c",),
        host_keys={"ed25519_private": "a", "ed25519_public": "b"},
        files=(("/d", 0o600, b"e"), ("/f", 0o644, b"g")),
        script="h\necho 'i j'\nk",
    )


@pytest.mark.parametrize(
    ("data", "unknown"),
    [
        (b"", ()),
        (b"#cloud-config\npackages: [x]\nusers: [y]\n", ("packages", "users")),
        (b"Content-Type: multipart/mixed\n\n", ("Content-Type: multipart/mixed",)),
    ],
)
def test_what_is_not_known_is_named(data: bytes, unknown: tuple[str, ...]) -> None:
    assert user_data.read(data).unknown == unknown


def test_listening_ports() -> None:
    lines = [
        "   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0",
        "   1: 0100007F:2252 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0",
        "   2: 0100007F:0016 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 1 1 0",
        "   3: 00000000:C350 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0",
    ]
    assert listening(iter(lines)) == {22, 8786}
