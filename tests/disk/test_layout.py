"""The layout of a fresh disk as values, and what sfdisk and mke2fs make of it."""

from __future__ import annotations

import json
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from ingot.disk.layout import MIB, mkfs_argv, plan_layout, sfdisk_argv, sfdisk_script
from ingot.errors import BackendError
from ingot.model.units import Seconds
from ingot.system import process

GIB = 2**30


def test_parts_follow_each_other_and_the_root_is_last() -> None:
    layout = plan_layout("key", 8 * GIB)
    parts = layout.parts
    assert [part.number for part in parts] == [1, 2, 3]
    assert all(before.start + before.size == after.start for before, after in pairwise(parts))
    assert all(part.start % MIB == 0 and part.size % MIB == 0 for part in parts)
    assert 0 < layout.size - (layout.root.start + layout.root.size) <= MIB + 34 * 512


def test_ids_belong_to_the_key_alone() -> None:
    one, same, other = plan_layout("a", 8 * GIB), plan_layout("a", 9 * GIB), plan_layout("b", 8 * GIB)
    ids = [(it.uuid, it.root_fs, it.esp_fs, *(part.uuid for part in it.parts)) for it in (one, same, other)]
    assert ids[0] == ids[1]
    assert not set(ids[0]) & set(ids[2])
    assert len(set(ids[0])) == len(ids[0])


def test_a_small_disk_is_refused_with_both_sizes() -> None:
    with pytest.raises(BackendError, match=r"1\.0 GiB is too small.*2\.0 GiB"):
        plan_layout("key", GIB)


def test_tools_make_of_it_what_it_says(tmp_path: Path) -> None:
    disk, layout = tmp_path / "disk", plan_layout("key", 3 * GIB)
    with disk.open("wb") as file:
        file.truncate(layout.size)
    process.run(sfdisk_argv(str(disk)), timeout=Seconds(60.0), input=sfdisk_script(layout).encode())
    process.run(mkfs_argv(layout, str(disk)), timeout=Seconds(60.0))
    told = process.run(["sfdisk", "--json", str(disk)], timeout=Seconds(60.0)).stdout
    table = json.loads(told)["partitiontable"]
    assert table["id"].lower() == layout.uuid
    for part, found in zip(layout.parts, table["partitions"], strict=True):
        assert (found["start"] * 512, found["size"] * 512) == (part.start, part.size)
        assert (found["type"].lower(), found["uuid"].lower(), found["name"]) == (
            part.type,
            part.uuid,
            part.name,
        )
    probe = ["blkid", "--probe", f"--offset={layout.root.start}", "--output=export", str(disk)]
    known = subprocess.run(probe, check=True, capture_output=True, text=True).stdout
    assert f"UUID={layout.root_fs}" in known and "TYPE=ext4" in known
