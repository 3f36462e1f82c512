"""Small disks of a few layers in a store, and what an upload of one needs.

`python -m tests.backends.aws.disks STATE CONTENT URL FOLDER [EARLIER]` uploads one in a process of its own, and prints its
snapshot and its peak of memory in KiB.
"""

from __future__ import annotations

import re
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ingot.backends.aws.ebs_direct import EbsDirect, client_options
from ingot.backends.aws.upload import Order, Uploaded, read_earlier, upload
from ingot.backends.local import chain
from ingot.backends.local.disk_blocks import ChainDisk
from ingot.backends.local.exporter import LocalExporter
from ingot.backends.local.store import NewLayer, Store
from ingot.model.digest import digest
from ingot.model.events import Emit, ignore
from ingot.model.plan import ContentId, LayerKey
from ingot.model.units import Bytes, Seconds
from ingot.ports import Cancel, Resource, Token
from ingot.system import process
from ingot.system.waits import Flag

MIB = 2**20
SIZE = Bytes(64 * MIB + 256 * 1024)
"""Not a whole number of blocks."""
BASE = ("write -P 1 0 3M", "write -P 2 10M 64k", "write -P 3 20M 4M", "write -P 4 64M 256k")
"""Six blocks, one, eight, and the half of one at the end."""
THREADS = 4


class Shelf:
    """A store with disks in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store(folder)

    def layer(self, name: str, parent: ContentId | None, *writes: str, size: Bytes = SIZE) -> ContentId:
        """A layer with what these commands of qemu-io write."""
        path = self.folder / "work" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        chain.create(path, size)
        commands = [word for write in writes for word in ("-c", write)]
        process.run(["qemu-io", "-f", "qcow2", *commands, str(path)], timeout=Seconds(60.0))
        new = NewLayer(key=LayerKey(digest(name)), parent=parent, sealed=False, scanned=False, labels={})
        return self.store.add(path, new).content

    @contextmanager
    def disk(self, content: ContentId, *, since: ContentId | None = None) -> Iterator[ChainDisk]:
        with LocalExporter(self.store).opened(content, since=since, cancel=Flag()) as disk:
            yield disk

    def flat(self, content: ContentId) -> bytes:
        """The disk's bytes, as QEMU flattens it."""
        records = self.store.chain(content)
        assert records
        path = self.folder / "flat.raw"
        source = chain.nested(self.store.files(records))
        process.run(["qemu-img", "convert", "-O", "raw", source, str(path)], timeout=Seconds(60.0))
        return path.read_bytes()


class Held:
    """Implements `ports.Holder` in the simplest way: nothing is journaled."""

    def __init__(self) -> None:
        self.resources: dict[str, Resource] = {}
        self.kept: list[str] = []

    def open(self, resource: Resource) -> str:
        ref = resource.create(Token(f"ingot-test-{uuid.uuid4().hex[:8]}-1"))
        self.resources[ref] = resource
        return ref

    def close(self, ref: str) -> None:
        if ref in self.resources:
            self.resources.pop(ref).delete(ref)

    def keep(self, ref: str, until: float) -> None:
        self.kept.append(ref)


def clients(url: str, **more: Any) -> EbsDirect:
    """Real clients of an endpoint."""
    import boto3
    from botocore.config import Config

    about: dict[str, Any] = {
        "region_name": "us-west-2",
        "endpoint_url": url,
        "aws_access_key_id": "test",
        "aws_secret_access_key": "test",
        "config": Config(**{**client_options(), **more}),
    }
    return EbsDirect(ebs=boto3.client("ebs", **about), ec2=boto3.client("ec2", **about))


def send(
    shelf: Shelf,
    content: ContentId,
    url: str,
    folder: Path,
    *,
    earlier: Path | None = None,
    order: Order | None = None,
    held: Any = None,
    emit: Emit = ignore,
    cancel: Cancel | None = None,
) -> Uploaded:
    """The disk, uploaded; `earlier` is the ledger of another upload."""
    before = read_earlier(earlier) if earlier else None
    with shelf.disk(content, since=before.content if before else None) as disk:
        return upload(
            disk,
            clients(url),
            order or Order(threads=THREADS),
            folder=folder,
            earlier=before,
            held=held or Held(),
            emit=emit,
            cancel=cancel or Flag(),
        )


def main(words: Sequence[str]) -> None:
    """Uploads one disk, zeros left out where that is harmless."""
    state, content, url, folder, *earlier = words
    done = send(
        Shelf(Path(state)),
        ContentId(content),
        url,
        Path(folder),
        earlier=Path(earlier[0]) if earlier else None,
        order=Order(leave_out_zeros=True),
    )
    peak = re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())
    assert peak
    sys.stdout.write(f"{done.snapshot} {peak[1]}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
