"""Disk formats that an image is exported in: which tool writes each, and what the place it goes to asks for.

The source is always a chain named to QEMU explicitly (a `json:` file name); the result is flat, complete in
itself, and appears under its name only when it is whole and durable. No format needs more memory for a
larger disk.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingot.errors import BackendError, UsageError
from ingot.model.events import Emit, Progress
from ingot.model.units import Bytes, Seconds, format_bytes
from ingot.ports import Cancel
from ingot.system import process
from ingot.system.files import remove, sync_folder

_MIB, _GIB = 2**20, 2**30
_LONG = Seconds(6 * 3600.0)
_PERCENT = re.compile(r"\(\s*(\d+(?:\.\d+)?)/100%\)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Format:
    """A format: the name's usual ending, how `qemu-img convert` writes it, and of what the disk's size is a multiple."""

    suffix: str
    options: tuple[str, ...]
    about: str
    multiple: int = 512
    packed: bool = False
    """Whether the disk goes into a compressed tar archive as `disk.raw`."""


KNOWN: dict[str, Format] = {
    # https://cloud.google.com/compute/docs/import/import-existing-image: a multiple of 1 GiB, disk.raw, tar
    # in the old GNU format, gzip.
    "gce": Format(
        suffix=".tar.gz", options=("-O", "raw"), about="for Google Cloud", multiple=_GIB, packed=True
    ),
    "qcow2": Format(
        suffix=".qcow2",
        options=("-O", "qcow2", "-c", "-o", "compression_type=zstd"),
        about="compressed, for QEMU and OpenStack",
    ),
    "raw": Format(suffix=".raw", options=("-O", "raw"), about="as the disk is, with holes for zeros"),
    # https://learn.microsoft.com/azure/virtual-machines/linux/create-upload-generic: a fixed VHD whose size is a
    # multiple of 1 MiB. Without force_size QEMU rounds to what CHS geometry can express.
    "vhd": Format(
        suffix=".vhd",
        options=("-O", "vpc", "-o", "subformat=fixed,force_size=on"),
        about="for Azure",
        multiple=_MIB,
    ),
    "vmdk": Format(
        suffix=".vmdk", options=("-O", "vmdk", "-o", "subformat=streamOptimized"), about="for VMware"
    ),
}


def find_format(name: str) -> Format:
    """The format of that name. Raises UsageError naming all there are."""
    if name not in KNOWN:
        raise UsageError(
            f"there is no disk format {name!r}", hint=f"choose one of: {', '.join(sorted(KNOWN))}"
        )
    return KNOWN[name]


def write_disk(
    source: str, output: Path, *, format: str, emit: Emit, cancel: Cancel, subject: str = ""
) -> Path:
    """Writes the disk that `source` names (`json:…`, opened for reading only) as `output`, which it replaces.

    Raises UsageError for an unknown format, ToolError where the tool fails, BackendError where there is no room.
    """
    chosen = find_format(format)
    output.parent.mkdir(parents=True, exist_ok=True)
    with _beside(output) as fresh, _telling_disk_full(output.parent):
        size = disk_size(source)
        padded = _padded(source, size, fresh("pad"), multiple=chosen.multiple)

        def hear(_stream: str, text: str) -> None:
            found = _PERCENT.search(text)
            if found:
                done = round(float(found[1]) / 100 * size)
                emit(
                    Progress(subject=subject, what=f"writing {output.name}", done=done, total=size, unit="B")
                )

        disk = fresh("disk.raw" if chosen.packed else "disk")
        process.run(
            convert_argv(padded, disk, chosen), timeout=_LONG, cancel=cancel, on_line=hear, returns=True
        )
        if chosen.packed:
            archive = fresh("tar")
            process.run(pack_argv(disk, archive), timeout=_LONG, cancel=cancel)
            disk = archive
        _sync(disk)
        disk.rename(output)
        sync_folder(output.parent)
    return output


def convert_argv(source: str, output: Path, chosen: Format) -> list[str]:
    """The command that writes a disk in a format, telling its progress on standard output."""
    return ["qemu-img", "convert", "-p", *chosen.options, source, str(output)]


def pack_argv(disk: Path, archive: Path) -> list[str]:
    """The command that packs `disk.raw`: the same bytes give the same archive, whoever packs them and when."""
    return [
        "tar",
        "--create",
        f"--file={archive}",
        f"--directory={disk.parent}",
        "--format=oldgnu",
        "--sparse",
        "--use-compress-program=gzip --no-name",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
        "--mode=0644",
        "--mtime=@0",
        disk.name,
    ]


def disk_size(source: str) -> Bytes:
    """The virtual size of the disk that `source` names. (`qemu-img info` refuses a chain that is named explicitly.)"""
    words = ["qemu-img", "measure", "--output=json", "-O", "raw", source]
    return Bytes(json.loads(process.run(words, timeout=Seconds(300.0)).stdout)["fully-allocated"])


def _padded(source: str, size: Bytes, overlay: Path, *, multiple: int) -> str:
    """The source, under an empty overlay of the next size that the format allows where its own is not one."""
    wanted = -(-size // multiple) * multiple
    if wanted == size:
        return source
    process.run(["qemu-img", "create", "-q", "-f", "qcow2", str(overlay), str(wanted)], timeout=Seconds(60.0))
    below: dict[str, Any] = json.loads(source.removeprefix("json:"))
    file = {"driver": "file", "filename": str(overlay), "read-only": True}
    return "json:" + json.dumps({"driver": "qcow2", "read-only": True, "file": file, "backing": below})


@contextlib.contextmanager
def _beside(output: Path) -> Iterator[Callable[[str], Path]]:
    """Names for files that are made beside `output`, on the same file system, and gone in the end."""
    folder = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    remove(folder)
    folder.mkdir()
    try:
        yield folder.joinpath
    finally:
        remove(folder)


@contextlib.contextmanager
def _telling_disk_full(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, BackendError) as error:
        about = os.statvfs(folder)
        free = about.f_bavail * about.f_frsize
        if free > 64 * _MIB:
            raise
        raise BackendError(
            f"{folder} has no room left for the exported disk ({format_bytes(free)} free)",
            hint="write it to another disk with `-o`",
        ) from error


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
