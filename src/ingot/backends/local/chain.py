"""Chains of qcow2 files: how QEMU is told of one, and what a stored file's header may say.

A chain is the files of a disk, base first. QEMU gets each as a node of its own, so that what a header names as
backing file is never read; a header that names one, or an external data file, is refused all the same.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingot.errors import BackendError
from ingot.model.units import Bytes, Seconds
from ingot.system import process

_MAGIC = b"QFI\xfb"
_DIRTY, _CORRUPT, _DATA_FILE = 1, 2, 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """What a qcow2 file says of itself (QEMU's docs/interop/qcow2)."""

    version: int
    size: Bytes
    """The disk's virtual size."""
    names_backing: bool
    names_data_file: bool
    dirty: bool


def read_header(path: Path) -> Header:
    """The header of a qcow2 file. Raises BackendError for what is not one, OSError for what cannot be read."""
    with path.open("rb") as file:
        raw = file.read(104)
    if len(raw) < 72 or raw[:4] != _MAGIC:
        raise BackendError(f"{path} is not a qcow2 file", hint="`qemu-img info` tells what it is")
    version, backing = struct.unpack_from(">IQ", raw, 4)
    (size,) = struct.unpack_from(">Q", raw, 24)
    (features,) = struct.unpack_from(">Q", raw, 72) if version >= 3 and len(raw) >= 80 else (0,)
    return Header(
        version=version,
        size=Bytes(size),
        names_backing=backing != 0,
        names_data_file=bool(features & _DATA_FILE),
        dirty=bool(features & (_DIRTY | _CORRUPT)),
    )


def refuse_foreign(path: Path) -> Header:
    """The header of a file that may become part of a chain. Raises BackendError where it points to other files."""
    header = read_header(path)
    if header.names_backing or header.names_data_file:
        raise BackendError(
            f"{path} refers to another file for its data",
            hint="flatten it first: `qemu-img convert -O qcow2 <image> <flat image>`",
        )
    if header.dirty:
        raise BackendError(
            f"{path} was not closed properly", hint="`qemu-img check -r all` repairs what it can"
        )
    return header


def export_argv(files: Sequence[Path], mountpoint: Path, *, writable: bool, others: bool = True) -> list[str]:
    """The storage daemon that shows a chain as one raw file; with `writable` the last file takes what is written.

    Unless for `others`, FUSE shows it to the user alone who starts the daemon.
    """
    words = ["qemu-storage-daemon"]
    for number, path in enumerate(files):
        top = writable and number == len(files) - 1
        words += ["--blockdev", json.dumps(_node(path, name=f"layer{number}", top=top, below=number))]
    export = {
        "type": "fuse",
        "id": "disk",
        "node-name": f"layer{len(files) - 1}",
        "mountpoint": str(mountpoint),
        "writable": writable,
        **({} if others else {"allow-other": "off"}),
    }
    return [*words, "--export", json.dumps(export)]


def _node(path: Path, *, name: str, top: bool, below: int) -> dict[str, Any]:
    # Durability is the freeze's own fsync: what a crash loses in between was to be thrown away anyway.
    cache = {"direct": False, "no-flush": top}
    node: dict[str, Any] = {
        "driver": "qcow2",
        "node-name": name,
        "read-only": not top,
        "cache": cache,
        "backing": f"layer{below - 1}" if below else None,
        "file": {"driver": "file", "filename": str(path), "read-only": not top, "cache": cache},
    }
    if top:
        node |= {"discard": "unmap", "detect-zeroes": "unmap"}
        node["file"] |= {"discard": "unmap"}
    return node


def nested(files: Sequence[Path]) -> str:
    """The chain as one `json:` file name, for `qemu-img` and `qemu-system`; opened for reading only."""
    node: dict[str, Any] | None = None
    for path in files:
        node = {
            "driver": "qcow2",
            "read-only": True,
            "file": {"driver": "file", "filename": str(path), "read-only": True},
            "backing": node,
        }
    return "json:" + json.dumps(node)


def create(path: Path, size: Bytes) -> None:
    """A new qcow2 file without content. On top of a chain it is an overlay; alone it is an empty disk.

    Its clusters of 64 KiB are kept in 32 parts: a file system's block is written without copying its neighbours from
    the layer below, and can be given back alone. (QEMU 10 refuses to give back less than such a part, and the kernel
    then takes the disk for one that takes nothing back.)
    """
    words = ["qemu-img", "create", "-q", "-f", "qcow2", "-o", "extended_l2=on", str(path), str(size)]
    process.run(words, timeout=Seconds(60.0))
