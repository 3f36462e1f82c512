"""Layers of the local store on their way to other computers and from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from ingot.backends.local import chain, scans
from ingot.backends.local.hosts import LocalHosts, RoomResource
from ingot.backends.local.records import Record
from ingot.backends.local.store import NewLayer, Store
from ingot.errors import BackendError, NotFoundError, RefusedError
from ingot.model.digest import short
from ingot.model.image import LayerRef
from ingot.model.plan import ContentId
from ingot.ports import Cancel, Needle, Parcel, Resource


class LocalCarrier:
    """Implements `ports.LayerCarrier`: a layer is its qcow2 file, byte for byte."""

    kind = "qcow2"

    def __init__(self, folder: Path, *, store: Store, hosts: LocalHosts) -> None:
        self._notes = folder / "scans"
        self._store = store
        self._hosts = hosts

    def room(self) -> Resource:
        """A work folder: whatever a crash leaves in it is swept as a machine's is."""
        return RoomResource(self._hosts)

    def folder(self, ref: str) -> Path:
        """Its path, on the file system of the layers."""
        return self._hosts.work(ref)

    def chain(self, content: ContentId) -> tuple[Parcel, ...]:
        """What would be given out of a disk, by the records alone."""
        return tuple(_parcel(record) for record in self._store.chain(content) or ())

    @contextmanager
    def opened(self, parcel: Parcel, needles: Sequence[Needle], *, cancel: Cancel) -> Iterator[Path]:
        """The file of a layer that was read whole within a day. Raises NotFoundError where it is damaged."""
        records = self._store.verify(parcel.content, cancel=cancel)
        with self._store.lease(records):
            file = self._store.file(parcel.content)
            notes = scans.Notes(self._notes, needles)
            if reason := scans.why_not_shared(file, records[-1], needles, notes=notes, cancel=cancel):
                raise RefusedError(
                    reason,
                    hint="keep secrets in memory (`/run`) in the step that needs them, and build it anew",
                )
            yield file

    def take(self, file: Path, parcel: Parcel) -> LayerRef:
        """The layer, durable. Its time is never later than now: what is built on it must be newer."""
        if parcel.parent and not self._store.chain(parcel.parent):
            raise NotFoundError(f"the layer below it, {short(parcel.parent)}, is not here")
        header = chain.refuse_foreign(file)
        if header.size != parcel.disk:
            raise BackendError("its disk has another size than was signed")
        now = datetime.now(UTC)
        made = min(datetime.fromisoformat(parcel.created), now)
        new = NewLayer(
            key=parcel.key,
            parent=parcel.parent,
            sealed=parcel.sealed,
            scanned=parcel.scanned,
            labels=parcel.labels,
            created=made.isoformat(timespec="seconds"),
            content=parcel.content,
        )
        try:
            record = self._store.add(file, new)
        except OSError as error:
            raise BackendError(
                f"it could not be kept: {error.strerror}", hint="`ingot gc` makes room"
            ) from error
        return record.ref(self._store.file(record.content))


def _parcel(record: Record) -> Parcel:
    return Parcel(
        key=record.key,
        content=record.content,
        parent=record.parent,
        kind=LocalCarrier.kind,
        file=record.file,
        bytes=record.bytes,
        disk=record.disk,
        created=record.created,
        sealed=record.sealed,
        scanned=record.scanned,
        labels=record.labels,
    )
