"""What one machine writes: a qcow2 file in its work folder, on a chain of leased layers, that becomes the next layer.

<state>/local/work/<token>/
    spec.json      what it was made for, and stands on
    lock           held while the process that uses the machine lives
    disk.qcow2     what was written since the last layer
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from ingot.backends.local import chain, network
from ingot.backends.local.records import Record
from ingot.backends.local.store import NewLayer, Store
from ingot.errors import BackendError, NotFoundError, RefusedError
from ingot.model.digest import plain
from ingot.model.image import LayerRef
from ingot.model.units import Bytes, Seconds, format_bytes
from ingot.ports import MachineSpec
from ingot.system import files, locks, process

LONGEST = 24
"""Files in a chain; a layer that would make it longer is stored flat, with nothing below it."""


BY = "machine"
"""The label of a layer that tells what kind of machine made it, where that matters to those above."""


class Overlay:
    """One machine's, from the making of its work folder on. For one thread at a time."""

    def __init__(self, folder: Path, spec: MachineSpec, *, store: Store) -> None:
        self.folder = folder
        self.spec = spec
        self.file = folder / "disk.qcow2"
        self.chain: tuple[Record, ...] = ()
        self._store = store
        self._mine = ExitStack()  # lock and leases
        self._lost = False  # something failed halfway: what was written may not be whole

    def create(self) -> None:
        """Makes the work folder; takes leases on the layers below. Raises NotFoundError where one is damaged."""
        content = self.spec.parent.content
        known = self._store.chain(content) if self.spec.purpose == "look" else None
        self.chain = known or self._store.verify(content)
        self._refuse_shrinking()
        self.folder.mkdir(parents=True, mode=0o700)
        self._mine.enter_context(locks.lock(self.folder / "lock"))
        write_spec(self.folder, self.spec)
        self._mine.enter_context(self._store.lease(self.chain))

    def adopt(self) -> None:
        """Takes over the work folder that another process has put by. Raises RefusedError where one is using it."""
        free = self._mine.enter_context(locks.try_lock(self.folder / "lock"))
        if not free:
            raise RefusedError(f"the machine {self.folder.name} is in use", hint="wait until that has ended")
        self.chain = self._store.verify(self.spec.parent.content)
        self._mine.enter_context(self._store.lease(self.chain))

    def put_by(self) -> None:
        """Leaves the work folder for another process; the layers below are kept for it. The disk is at rest."""
        self.refuse_lost()
        top = self.chain[-1]
        write_spec(self.folder, replace(self.spec, parent=top.ref(self._store.file(top.content))))
        usual = self.folder / "disk.qcow2"
        if self.file != usual and self.file.exists():
            self.file.rename(usual)
        self._store.pin(self.folder.name, top.content)
        self.close()

    @property
    def size(self) -> Bytes:
        """The size of the disk."""
        now = self.chain[-1].disk
        return max(self.spec.disk or now, now)

    @property
    def grows(self) -> bool:
        """Whether the disk is larger than what it stands on, and nothing was written to it yet."""
        return not self.file.exists() and self.size > self.chain[-1].disk

    @property
    def too_long(self) -> bool:
        """Whether the next layer will be stored flat."""
        return len(self.chain) >= LONGEST

    @property
    def parent(self) -> Record | None:
        """The layer that the next one will stand on; None where that one will be flat."""
        return None if self.too_long else self.chain[-1]

    @property
    def holds_freed(self) -> bool:
        """Whether the layer below holds blocks that were freed and neither given back nor overwritten, and nothing was
        written since: a virtual machine's does."""
        return not self.file.exists() and self.chain[-1].labels.get(BY) == "vm"

    def below(self) -> tuple[Path, ...]:
        """The files that it stands on, base first."""
        return self._store.files(self.chain)

    def files(self) -> tuple[Path, ...]:
        """The files of the whole disk, base first; what is written goes to the last one, which is there then."""
        if not self.file.exists():
            chain.create(self.file, self.size)
        return (*self.below(), self.file)

    def keep(self, new: NewLayer, *, written: Path | None = None) -> Record:
        """Makes a layer of what was written (to another file than the current one, if so said) and stands on it."""
        file = written or self.files()[-1]
        with telling_disk_full(self.folder):
            labels = {**network.inherited(self.chain[-1].labels), **new.labels}
            record = self._store.add(self._flat(file) if self.too_long else file, replace(new, labels=labels))
        files.remove(file)
        self.chain = (record,) if record.parent is None else (*self.chain, record)
        self._mine.enter_context(self._store.lease([record]))
        return record

    @contextmanager
    def whole_or_lost(self) -> Iterator[None]:
        """Between two whole states: a failure on the way leaves a machine that can only be removed."""
        self._lost = True
        with telling_disk_full(self.folder):
            yield
        self._lost = False

    def refuse_lost(self) -> None:
        """Raises BackendError for a machine that failed halfway."""
        if self._lost:
            raise BackendError(
                f"the machine {self.folder.name} failed before and cannot be used any more",
                hint="open a new one; finished layers are kept",
            )

    def refuse_keeping(self) -> None:
        """Raises RefusedError for a throw-away machine, BackendError for a lost one: neither becomes a layer."""
        if self.spec.purpose == "look":
            raise RefusedError("a throw-away machine is never frozen", hint="open one for building")
        self.refuse_lost()

    def close(self) -> None:
        """Lets go of the layers below."""
        self._mine.close()

    def _refuse_shrinking(self) -> None:
        wanted, now = self.spec.disk, self.chain[-1].disk
        if wanted and wanted < now:
            raise BackendError(
                f"the disk has {format_bytes(now)} and cannot shrink to {format_bytes(wanted)}",
                hint="write a larger `disk`, or make the base anew with a smaller one",
            )

    def _flat(self, file: Path) -> Path:
        flat = self.folder / "flat.qcow2"
        source = chain.nested((*self.below(), file))
        process.run(["qemu-img", "convert", "-O", "qcow2", source, str(flat)], timeout=Seconds(3600.0))
        return flat


def write_spec(folder: Path, spec: MachineSpec) -> None:
    """Notes in a work folder what its machine was made for; not its user-data, which is the first boot's alone."""
    note = plain(replace(spec, user_data=None))
    files.write_atomically(folder / "spec.json", json.dumps(note) + "\n")


def read_spec(folder: Path) -> MachineSpec:
    """What the machine of a work folder was made for. Raises NotFoundError where there is none."""
    try:
        found = json.loads((folder / "spec.json").read_text())
        return MachineSpec(**{**found, "parent": LayerRef(**found["parent"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise NotFoundError(
            f"there is no machine {folder.name!r}", hint="`ingot ps` lists those that are kept"
        ) from error


@contextmanager
def telling_disk_full(folder: Path) -> Iterator[None]:
    """Turns what goes wrong for lack of room into a sentence that says so."""
    try:
        yield
    except (OSError, BackendError) as error:
        usage = shutil.disk_usage(folder)
        if usage.free > max(64 * 2**20, usage.total // 200):
            raise
        raise BackendError(
            f"the disk that holds {folder} is full: {format_bytes(usage.free)} of "
            f"{format_bytes(usage.total)} are free",
            hint="`ingot gc` removes old layers; INGOT_STATE moves the state folder to a larger disk",
        ) from error
