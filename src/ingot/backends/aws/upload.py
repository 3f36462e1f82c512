"""Sends a disk to EBS as a snapshot: what differs from its parent, or all of it; a broken-off upload goes on.

    with exporter.opened(content, since=earlier.content, cancel=cancel) as disk:
        done = upload(disk, direct, Order(), folder=folder, earlier=earlier, held=held, emit=emit, cancel=cancel)

The folder is of one disk (its content) at one place; it holds the ledger. That binds the disk to a snapshot: as long as that one is pending, an
upload of the same disk with the same wishes goes on where the last one ended, whichever process that was. Of the finished
upload the ledger stays, for the next version's.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ingot.backends.aws.delta import (
    ZEROS,
    ZEROS_SUM,
    blocks_in,
    decide,
    differs,
    may_be_parent,
    may_leave_out_zeros,
    volume_gib,
)
from ingot.backends.aws.ebs_direct import SETTLES, THREADS, EbsDirect, Started, State, Wish
from ingot.backends.aws.ledger import THERE, About, Ledger, create_ledger, open_ledger
from ingot.backends.aws.snapshot import Snapshots
from ingot.errors import BackendError, DeadlineError, NotFoundError, TransientError
from ingot.model.digest import Digest, digest
from ingot.model.events import Emit, Progress
from ingot.model.plan import ContentId
from ingot.model.units import Seconds
from ingot.ports import Cancel, Holder
from ingot.ports.disks import BLOCK, Block, Disk
from ingot.system import files, locks
from ingot.system.waits import Flag, poll

LEDGER = "upload.ledger"
_OFTEN = Seconds(0.2)
_SYNCED = Seconds(5.0)
_LONGEST = Seconds(72 * 3600.0)
_ACCEPTED = Seconds(600.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Earlier:
    """A complete snapshot of an earlier disk, and the ledger of its upload: the parent of a delta."""

    snapshot: str
    content: ContentId
    ledger: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What the snapshot is to be."""

    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    encrypted: bool = False
    key: str = ""
    """The ARN of the key to encrypt it with; "" for the account's default one."""
    encrypted_copy: bool = False
    """Whether an encrypted copy of it is to be made, now or ever."""
    leave_out_zeros: bool = False
    """Whether the user agreed to leave out blocks of zeros where that is harmless (`delta.may_leave_out_zeros`)."""
    threads: int = THREADS
    complete_within: Seconds = Seconds(3600.0)
    """How long the service may take to make the snapshot of what was sent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Uploaded:
    """A complete snapshot."""

    snapshot: str
    gib: int
    encrypted: bool
    sent: int
    """Blocks sent to it, by this upload and those that it went on from."""
    resumed: bool
    ledger: Path


def read_earlier(ledger: Path) -> Earlier | None:
    """The parent that a finished upload's ledger tells of; None where it cannot be understood."""
    found = open_ledger(ledger)
    if not found:
        return None
    with found:
        return Earlier(snapshot=found.about.snapshot, content=found.about.content, ledger=ledger)


def upload(
    disk: Disk,
    direct: EbsDirect,
    order: Order,
    *,
    folder: Path,
    held: Holder,
    earlier: Earlier | None = None,
    subject: str = "",
    emit: Emit,
    cancel: Cancel,
) -> Uploaded:
    """A complete snapshot of the disk. One at a time in a folder: a second one waits.

    The snapshot is opened with `held` and kept for a day, so that a later upload can go on; a sweep removes it then unless
    it was completed. Raises DeadlineError where the service does not answer, or not complete it, in time.
    """
    with (
        locks.lock(folder / "upload.lock", cancel=cancel),
        _parent(disk, order, earlier) as parent,
        _opened(disk, direct, order, parent, folder=folder, held=held, cancel=cancel) as (ledger, resumed),
    ):
        sender = _Sender(disk, direct, order, ledger, subject=subject, emit=emit, cancel=cancel)
        with _giving_up(folder):
            fresh = sender.run()
            # A process that was killed may have asked for completion before: the service refuses a second one.
            _complete(direct, ledger, order, again=resumed and not fresh, emit=emit, cancel=cancel)
        held.close(ledger.about.snapshot)
        return Uploaded(
            snapshot=ledger.about.snapshot,
            gib=volume_gib(disk.size),
            encrypted=ledger.about.encrypted,
            sent=ledger.seal()[0],
            resumed=resumed,
            ledger=folder / LEDGER,
        )


@contextmanager
def _parent(disk: Disk, order: Order, earlier: Earlier | None) -> Iterator[Ledger | None]:
    """The earlier upload's ledger, where its snapshot can be the parent of this one."""
    found = open_ledger(earlier.ledger) if earlier else None
    if not found or not earlier:
        yield None
        return
    with found:
        about = found.about
        same = (about.snapshot, about.content) == (earlier.snapshot, earlier.content)
        fits = may_be_parent(
            about,
            blocks=blocks_in(volume_gib(disk.size)),
            encrypted=order.encrypted,
            key=order.key,
            encrypted_copy=order.encrypted_copy,
        )
        yield found if same and fits else None


@contextmanager
def _opened(
    disk: Disk,
    direct: EbsDirect,
    order: Order,
    parent: Ledger | None,
    *,
    folder: Path,
    held: Holder,
    cancel: Cancel,
) -> Iterator[tuple[Ledger, bool]]:
    """The ledger of the snapshot to send to, and whether that was begun before."""
    wish = Wish(
        gib=volume_gib(disk.size),
        parent=parent.about.snapshot if parent else "",
        description=order.description,
        encrypted=order.encrypted,
        key=order.key,
        tags=order.tags,
    )
    without_zeros = order.leave_out_zeros and not order.encrypted_copy
    asked = digest([wish.gib, wish.parent, wish.encrypted, wish.key, without_zeros])
    found = open_ledger(folder / LEDGER)
    if found:
        with found:
            same = (found.about.content, found.about.asked) == (disk.content, asked)
            if same and _state(direct, found, cancel=cancel)[0] in ("pending", "completed"):
                yield found, True
                return
            Snapshots(direct=direct, cancel=cancel).delete(found.about.snapshot)
    snapshots = Snapshots(direct=direct, wish=wish, cancel=cancel)
    started = snapshots.replies[held.open(snapshots)]
    gaps = without_zeros or bool(parent and parent.about.gaps)
    about = _about(disk, wish, started, asked=asked, gaps=gaps)
    with create_ledger(folder / LEDGER, about, earlier=parent) as ledger:
        # From now on a later upload can go on with it.
        held.keep(about.snapshot, about.started + wish.minutes * 60)
        yield ledger, False


def _about(disk: Disk, wish: Wish, started: Started, *, asked: Digest, gaps: bool) -> About:
    return About(
        snapshot=started.snapshot,
        content=disk.content,
        blocks=blocks_in(wish.gib),
        asked=asked,
        parent=wish.parent,
        encrypted=started.encrypted,
        key=wish.key,
        gaps=gaps,
        started=time.time(),
    )


def _is_fresh(ledger: Ledger) -> bool:
    return time.time() - ledger.about.started < SETTLES


def _state(direct: EbsDirect, ledger: Ledger, *, cancel: Cancel) -> tuple[State, str]:
    """What EC2 says of the snapshot; one that is fresh need not be listed yet."""
    state, message = direct.state(ledger.about.snapshot, cancel=cancel)
    return ("pending" if state == "gone" and _is_fresh(ledger) else state), message


@contextmanager
def _giving_up(folder: Path) -> Iterator[None]:
    """Forgets a snapshot that is not there any more, so that the next upload begins another one."""
    try:
        yield
    except NotFoundError:
        files.remove(folder / LEDGER)
        raise


@dataclass(frozen=True, kw_only=True, slots=True)
class _Beyond:
    """Implements `ports.Block`: what the volume has beyond the disk's end."""

    index: int
    same: bool = False
    empty: bool = True

    def read(self) -> bytes:
        return ZEROS


class _Sender:
    """Sends what has to be sent, from several threads; each takes the next block of the disk when it is free."""

    def __init__(
        self,
        disk: Disk,
        direct: EbsDirect,
        order: Order,
        ledger: Ledger,
        *,
        subject: str,
        emit: Emit,
        cancel: Cancel,
    ) -> None:
        self._disk = disk
        self._direct = direct
        self._ledger = ledger
        self._threads = order.threads
        self._subject = subject
        self._emit = emit
        self._cancel = cancel
        self._zeros_left_out = may_leave_out_zeros(
            asked=order.leave_out_zeros,
            encrypted=ledger.about.encrypted,
            encrypted_copy=order.encrypted_copy,
            delta=bool(ledger.about.parent),
        )
        self._blocks = self._every_block()
        self._taking = threading.Lock()
        self._stop = Flag()
        self._done = 0
        self._sent = 0

    def run(self) -> int:
        """Sends them all; returns how many blocks that were. The first error ends it, once what is in flight is there."""
        with ThreadPoolExecutor(self._threads, thread_name_prefix="upload") as pool:
            try:
                workers = [pool.submit(self._work) for _ in range(self._threads)]
                self._watch(workers)
            finally:
                self._stop.set()
        self._tell()
        self._ledger.sync()
        return self._sent

    def _watch(self, workers: list[Future[None]]) -> None:
        synced = time.monotonic()

        def look() -> bool | None:
            nonlocal synced
            done, going = wait(workers, timeout=_OFTEN, return_when="FIRST_EXCEPTION")
            for worker in done:
                worker.result()
            self._tell()
            if time.monotonic() - synced >= _SYNCED:
                self._ledger.sync()
                synced = time.monotonic()
            return None if going else True

        poll(look, what="the upload", every=Seconds(0.0), deadline=_LONGEST, cancel=self._cancel)

    def _tell(self) -> None:
        total = self._ledger.about.blocks * BLOCK
        what = f"uploading to {self._ledger.about.snapshot}"
        self._emit(Progress(subject=self._subject, what=what, done=self._done * BLOCK, total=total, unit="B"))

    def _every_block(self) -> Iterator[Block]:
        index = -1
        for block in self._disk.blocks():
            index = block.index
            yield block
        for beyond in range(index + 1, self._ledger.about.blocks):
            yield _Beyond(index=beyond)

    def _work(self) -> None:
        while True:
            with self._taking:
                self._stop.check()
                block = next(self._blocks, None)
            if block is None:
                return
            sent = self._settle(block)
            with self._taking:
                self._done += 1
                self._sent += sent

    def _settle(self, block: Block) -> bool:
        """Whether the block had to be sent; it is there when this returns."""
        ledger, index = self._ledger, block.index
        fate = decide(
            block,
            sent=ledger.sent(index),
            known=ledger.known(index),
            zeros_left_out=self._zeros_left_out,
        )
        if fate == "skip":
            return False
        data = ZEROS if block.empty else block.read()
        checksum = ZEROS_SUM if data is ZEROS else hashlib.sha256(data).digest()
        if fate == "leave out" or (self._zeros_left_out and checksum == ZEROS_SUM):
            ledger.note(index, checksum, state=THERE)
            return False
        if not differs(checksum, ledger.checksum(index)):
            return False
        self._direct.put(
            ledger.about.snapshot, index, data, checksum, fresh=lambda: _is_fresh(ledger), cancel=self._stop
        )
        ledger.note(index, checksum)
        return True


def _complete(
    direct: EbsDirect, ledger: Ledger, order: Order, *, again: bool, emit: Emit, cancel: Cancel
) -> None:
    """Has the service make the snapshot of what was sent, and waits until it is.

    `again`: it may have been asked before. A refusal tells nothing then until the state was looked at for a while.
    """
    snapshot = ledger.about.snapshot
    refused: BackendError | None = None
    if not again or _state(direct, ledger, cancel=cancel)[0] != "completed":
        try:
            direct.complete(snapshot, *ledger.seal(), cancel=cancel)
        except (NotFoundError, TransientError):
            raise
        except BackendError as error:
            if not again and error.facts.get("attempts", 1) == 1:
                raise
            refused = error

    def complete() -> bool | None:
        state, message = _state(direct, ledger, cancel=cancel)
        if state in ("error", "gone"):
            raise NotFoundError(
                f"the snapshot {snapshot} failed: {message or state}", hint="upload again: a new one is begun"
            )
        return True if state == "completed" else None

    try:
        poll(
            complete,
            what=f"the completion of {snapshot}",
            every=Seconds(1.0),
            deadline=_ACCEPTED if refused else order.complete_within,
            cancel=cancel,
            emit=emit,
        )
    except DeadlineError as error:
        raise refused or error from error
