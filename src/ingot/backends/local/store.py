"""The layers that the local backend keeps: qcow2 files, each an overlay on its parent, found by key.

On disk, below `<state>/local`:

    layers/<content>.qcow2   the bytes; read-only, no backing file in the header
    layers/<content>.json    its record; the file's mtime is when the layer was last used
    layers/<content>.mark    when the bytes were last read whole, and how the file looked then
    keys/<key>               the content id that the key has now
    locks/                   one lock a key, one lease a layer, one for changes of the store
    pins/<machine>           the content id of the layer that a kept machine stands on

The key's file is written last: a layer is there when its key says so, and whatever a crash leaves before that is
found by nobody and cleared away at the next change. A key may get another content later (a forced rebuild); layers
on the old one stay valid, for they name their parent by content.

**When bytes are checked.** Each lookup compares size, mtime and header of every file of the chain with the record,
and size, mtime, ctime and inode with the mark; if the latter differ the file is read whole there and then. So a
change of any byte is found at the next lookup: the kernel sets ctime on each write, and nobody can set it back.
What changes without a write, on the medium, is found by `verify`, which reads every file of a chain whose mark is
older than a day; it comes before a layer is used as a parent of something new, exported or pushed. A wrong or
missing file invalidates its layer and all that stand on it; they are dropped at once.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from ingot.backends.local import chain
from ingot.backends.local.records import (
    Record,
    make_mark,
    read_mark,
    read_record,
    write_record,
)
from ingot.errors import BackendError, NotFoundError, RefusedError
from ingot.model.digest import canonical, short
from ingot.model.image import LayerRef
from ingot.model.plan import ContentId, LayerKey, content_id
from ingot.model.units import Bytes, Seconds
from ingot.ports import Cancel, StoredLayer
from ingot.system import files, locks

VERIFIED_FOR = Seconds(24 * 3600.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class NewLayer:
    """What a finished file is to become."""

    key: LayerKey
    parent: ContentId | None
    sealed: bool
    scanned: bool
    labels: Mapping[str, str]
    created: str = ""
    """When it was made elsewhere; now, for one that is made here."""
    content: ContentId | None = None
    """What it has to turn out to be, if that is known."""


class Store:
    """The layers below one folder. Safe for several processes and threads at once."""

    def __init__(self, folder: Path) -> None:
        self._layers = folder / "layers"
        self._keys = folder / "keys"
        self._locks = folder / "locks"
        self._pins = folder / "pins"

    def find(self, key: LayerKey) -> LayerRef | None:
        """The layer of this key with its whole chain intact, or None; what is not intact is dropped."""
        content = self._content_of(key)
        found = self.chain(content) if content else None
        # Bytes that two keys have in common have one record.
        return replace(found[-1].ref(self.file(found[-1].content)), key=key) if found else None

    def chain(self, content: ContentId) -> tuple[Record, ...] | None:
        """The records of a whole disk, base first, with every file as it should be; None drops what is not."""
        records = self._climb(content)
        broken = next((record for record in records if not self._intact(record)), None)
        if broken:
            self._invalidate(broken.content)
        elif not records or records[0].parent is not None:
            self._invalidate((records[0].parent if records else None) or content)
        else:
            return records
        return None

    def file(self, content: ContentId) -> Path:
        """Where a layer's bytes are."""
        return self._layers / f"{_hex(content)}.qcow2"

    def files(self, records: Sequence[Record]) -> tuple[Path, ...]:
        """The files of a chain, as QEMU is told of them."""
        return tuple(self.file(record.content) for record in records)

    def verify(self, content: ContentId, *, cancel: Cancel | None = None) -> tuple[Record, ...]:
        """The chain, its bytes known to be right; reads every file not read within a day.

        Raises NotFoundError for what is lost or damaged, after dropping it and all that stands on it.
        """
        records = self.chain(content)
        for record in records or ():
            mark = read_mark(self._beside(record.content, "mark"))
            if mark and mark.fresh(time.time(), within=VERIFIED_FOR):
                continue
            if cancel:
                cancel.check()
            if not self._read_whole(record):
                self._invalidate(record.content)
                records = None
                break
        if not records:
            raise NotFoundError(
                f"the layer {short(content)} is lost or damaged; it was dropped with all that stood on it",
                hint="build again: what is missing is made anew",
                content=content,
            )
        return records

    @contextmanager
    def lease(self, records: Sequence[Record]) -> Iterator[None]:
        """Keeps every layer of a chain from being dropped; marks them as used now."""
        with ExitStack() as stack:
            for record in records:
                stack.enter_context(locks.lease(self._lease_file(record.content)))
                if not self.file(record.content).exists():
                    raise NotFoundError(
                        f"the layer {short(record.content)} was removed a moment ago",
                        hint="build again: what is missing is made anew",
                    )
                with contextlib.suppress(FileNotFoundError):
                    os.utime(self._beside(record.content, "json"))
            yield

    def add(self, file: Path, new: NewLayer) -> Record:
        """Makes a finished file a layer, durably; the file is moved. It is there whole or, after a crash, not at all.

        Raises BackendError for a file that points to others, and for other bytes than were expected.
        """
        header = chain.refuse_foreign(file)
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
        file.chmod(0o444)
        checksum = files.file_digest(file)
        content = content_id(new.parent, checksum)
        if new.content and content != new.content:
            raise BackendError(
                f"the bytes of the layer {short(new.content)} are not those that were promised",
                hint="fetch it again, or build it",
            )
        with self._change():
            place = self.file(content)
            place.parent.mkdir(parents=True, exist_ok=True)
            file.rename(place)
            files.sync_folder(place.parent)
            found = place.stat()
            record = Record(
                key=new.key,
                content=content,
                parent=new.parent,
                file=checksum,
                bytes=Bytes(found.st_size),
                mtime_ns=found.st_mtime_ns,
                disk=header.size,
                created=new.created or datetime.now(UTC).isoformat(timespec="seconds"),
                sealed=new.sealed,
                scanned=new.scanned,
                labels=dict(new.labels),
            )
            self._write_mark(content, found)
            files.write_atomically(self._beside(content, "json"), write_record(record))
            files.write_atomically(self._keys / _hex(new.key), content)
        return record

    def pin(self, name: str, content: ContentId) -> None:
        """Keeps a layer, and so all below it, from being dropped until `unpin`, whatever process lives."""
        files.write_atomically(self._pins / name, content)

    def unpin(self, name: str) -> None:
        """Ends it; a pin that is not there is fine."""
        (self._pins / name).unlink(missing_ok=True)

    def lock(self, key: LayerKey) -> Path:
        """The lock file of whoever builds this key."""
        return self._locks / f"key-{_hex(key)}"

    def layers(self) -> Iterator[StoredLayer]:
        """Every layer that is there, with those that stand on it."""
        records = self._all()
        children: dict[ContentId, set[ContentId]] = {}
        for record in records.values():
            if record.parent:
                children.setdefault(record.parent, set()).add(record.content)
        for record in records.values():
            with self._free(record.content) as free:
                leased = not free
            with contextlib.suppress(FileNotFoundError):
                used = self._beside(record.content, "json").stat().st_mtime
                yield StoredLayer(
                    ref=record.ref(self.file(record.content)),
                    last_used=datetime.fromtimestamp(used, UTC),
                    leased=leased,
                    children=frozenset(children.get(record.content, ())),
                )

    def drop(self, ref: LayerRef) -> None:
        """Removes a layer. Raises RefusedError for one in use or with others on it; one already gone is fine."""
        with self._change():
            on_it = [record for record in self._all().values() if record.parent == ref.content]
            if on_it:
                raise RefusedError(
                    f"{len(on_it)} layers stand on the layer {short(ref.content)}", hint="drop those first"
                )
            with self._free(ref.content) as free:
                if not free:
                    raise RefusedError(
                        f"the layer {short(ref.content)} is in use", hint="wait for the build or check to end"
                    )
                self._remove(ref.content, ref.key)

    def _climb(self, content: ContentId) -> tuple[Record, ...]:
        records: list[Record] = []
        wanted: ContentId | None = content
        while wanted:
            record = read_record(self._beside(wanted, "json"))
            if not record or record.content != wanted or record in records:
                break
            records.append(record)
            wanted = record.parent
        return tuple(reversed(records))

    def _intact(self, record: Record) -> bool:
        path = self.file(record.content)
        try:
            found = path.stat()
            header = chain.refuse_foreign(path)
        except (OSError, BackendError):
            return False
        if (found.st_size, header.size) != (record.bytes, record.disk):
            return False
        mark = read_mark(self._beside(record.content, "mark"))
        if mark and mark.fits(found) and found.st_mtime_ns == record.mtime_ns:
            return True
        return self._read_whole(record)

    def _read_whole(self, record: Record) -> bool:
        path = self.file(record.content)
        try:
            before = path.stat()
            if files.file_digest(path) != record.file:
                return False
            if before.st_mtime_ns != record.mtime_ns:
                # The bytes are right: a copy or `touch` set the time. Setting it back spares the next reader.
                os.utime(path, ns=(before.st_atime_ns, record.mtime_ns))
            self._write_mark(record.content, path.stat())
        except OSError:
            return False
        return True

    def _write_mark(self, content: ContentId, found: os.stat_result) -> None:
        mark = make_mark(found, time.time())
        files.write_atomically(self._beside(content, "mark"), canonical(mark))

    def _invalidate(self, content: ContentId) -> None:
        """Drops a layer and all that stand on it; those in use lose their key now and their files later."""
        with self._change():
            records = self._all()
            doomed = {content}
            while more := {r.content for r in records.values() if r.parent in doomed} - doomed:
                doomed |= more
            for key in self._keys.glob("[0-9a-f]*") if self._keys.is_dir() else ():
                if _read(key) in doomed:
                    key.unlink(missing_ok=True)
            self._clear()

    @contextmanager
    def _change(self) -> Iterator[None]:
        with locks.lock(self._locks / "store"):
            yield

    def _clear(self) -> None:
        """Removes what no key leads to, neither itself nor by standing below something that one does."""
        if not self._layers.is_dir():
            return
        records = self._all()
        kept: set[str] = set()
        for key in self._keys.glob("[0-9a-f]*"):
            wanted: ContentId | None = ContentId(_read(key))
            while wanted and _hex(wanted) not in kept:
                kept.add(_hex(wanted))
                wanted = records[wanted].parent if wanted in records else None
        for name in {path.name.split(".")[0] for path in self._layers.iterdir()} - kept - {""}:
            content = ContentId(f"sha256:{name}")
            with self._free(content) as free:
                if free:
                    self._remove(content)

    @contextmanager
    def _free(self, content: ContentId) -> Iterator[bool]:
        """Whether nobody uses a layer, and nobody can begin to while inside."""
        pinned = any(_read(pin) == content for pin in self._pins.glob("*"))
        with locks.try_lock(self._lease_file(content)) as free:
            yield free and not pinned

    def _remove(self, content: ContentId, key: LayerKey | None = None) -> None:
        if key and self._content_of(key) == content:
            (self._keys / _hex(key)).unlink(missing_ok=True)
        for ending in ("json", "mark", "qcow2"):
            files.remove(self._beside(content, ending))
        if self._layers.is_dir():
            files.sync_folder(self._layers)
        self._lease_file(content).unlink(missing_ok=True)

    def _all(self) -> dict[ContentId, Record]:
        found = (read_record(path) for path in self._layers.glob("[0-9a-f]*.json"))
        return {record.content: record for record in found if record}

    def _content_of(self, key: LayerKey) -> ContentId | None:
        text = _read(self._keys / _hex(key))
        return ContentId(text) if text else None

    def _beside(self, content: ContentId, ending: str) -> Path:
        return self._layers / f"{_hex(content)}.{ending}"

    def _lease_file(self, content: ContentId) -> Path:
        return self._locks / f"layer-{_hex(content)}"


def _hex(value: str) -> str:
    return value.removeprefix("sha256:")


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
