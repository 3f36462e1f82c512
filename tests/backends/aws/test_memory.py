"""An upload needs no more memory for a larger disk. (100 GiB: `nox -s bench -- upload`.)"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ingot.model.units import Bytes
from ingot.system import process
from tests.backends.aws.disks import MIB, Shelf
from tests.backends.aws.ebs_endpoint import Service, Trouble, served

pytestmark = pytest.mark.skipif(not process.have("qemu-io"), reason="qemu-io is not installed")

GIB = 2**30
LIMIT = 256 * 1024


def test_every_block_of_4_gib(tmp_path: Path) -> None:
    service = Service(sink=True, trouble=Trouble(encrypt_by_default=True, polls_pending=0))
    writes = [f"write -P {1 + number % 9} {number * 16}M 4M" for number in range(4 * GIB // (16 * MIB))]
    content = Shelf(tmp_path / "local").layer("base", None, *writes, size=Bytes(4 * GIB))
    with served(service) as url:
        argv = [sys.executable, "-m", "tests.backends.aws.disks", str(tmp_path / "local"), content, url]
        done = subprocess.run(
            [*argv, str(tmp_path / "upload")], check=True, stdout=subprocess.PIPE, text=True
        )
    snapshot, kib = done.stdout.split()
    assert service.snapshots[snapshot].sealed
    assert service.calls["put"] == 4 * GIB // (512 * 1024)
    assert int(kib) < LIMIT
