"""A disk becomes a snapshot bit for bit, whatever breaks on the way, and the next version is sent as what differs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ingot.backends.aws.ebs_direct import TOKEN_TAG
from ingot.backends.aws.ledger import SENT, open_ledger
from ingot.backends.aws.snapshot import KIND, Snapshots
from ingot.backends.aws.upload import LEDGER, Order, Uploaded
from ingot.engine.journal import Journal, Place
from ingot.engine.resources import Resources
from ingot.engine.sweep import sweep
from ingot.errors import BackendError, CancelledError, NotFoundError
from ingot.model.events import Event, Progress, ignore
from ingot.model.plan import ContentId
from ingot.model.units import Bytes, Seconds
from ingot.ports import Token
from ingot.system import process
from ingot.system.waits import Flag, poll
from tests.backends.aws.disks import BASE, MIB, THREADS, Held, Shelf, clients, send
from tests.backends.aws.ebs_endpoint import BLOCK, KEY, Service, Trouble, served

pytestmark = pytest.mark.skipif(not process.have("qemu-io"), reason="qemu-io is not installed")

DATA = Order(threads=THREADS, leave_out_zeros=True)
"""Sends little: these tests are of other things than zeros."""
WRITTEN = 6 + 1 + 8 + 1
LARGE = 200
PROCESS_THREADS = 32
WHOLE = 2048
"""Blocks of the smallest volume, 1 GiB."""


class Bench:
    """A store, and a service to send its disks to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shelf = Shelf(folder / "local")
        self.service = Service()
        self.url = ""

    def base(self) -> ContentId:
        return self.shelf.layer("base", None, *BASE)

    def large(self) -> ContentId:
        """A disk with something in its first 200 blocks."""
        return self.shelf.layer("large", None, "write -P 1 0 100M", size=Bytes(300 * MIB))

    def send(
        self,
        content: ContentId,
        *,
        order: Order = DATA,
        earlier: Uploaded | None = None,
        held: Held | None = None,
        cancel: Flag | None = None,
        emit: Callable[[Event], None] = ignore,
    ) -> Uploaded:
        return send(
            self.shelf,
            content,
            self.url,
            self.place(content),
            order=order,
            earlier=earlier.ledger if earlier else None,
            held=held,
            cancel=cancel,
            emit=emit,
        )

    def place(self, content: ContentId) -> Path:
        return self.folder / "uploads" / content.removeprefix("sha256:")

    def holds(self, done: Uploaded, content: ContentId) -> bool:
        """Whether a volume made of the snapshot has the disk's bytes, and zeros after them."""
        assert self.service.snapshots[done.snapshot].state == "completed"
        flat = self.shelf.flat(content)
        blocks = (flat[start : start + BLOCK].ljust(BLOCK, b"\0") for start in range(0, len(flat), BLOCK))
        return all(found == next(blocks, bytes(BLOCK)) for found in self.service.read(done.snapshot))

    def puts(self, done: Uploaded) -> list[int]:
        return self.service.snapshots[done.snapshot].puts


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    with served(made.service) as made.url:
        yield made


def test_every_block_of_the_volume_is_sent_once(bench: Bench) -> None:
    content = bench.shelf.layer("top", bench.base(), "write -P 9 2M 1M", "write -z 20M 1M")
    told: list[Event] = []
    done = bench.send(content, order=Order(threads=THREADS), emit=told.append)
    assert sorted(bench.puts(done)) == list(range(WHOLE))
    assert (done.sent, done.gib, done.resumed, done.encrypted) == (WHOLE, 1, False, False)
    assert bench.holds(done, content)
    progress = [event for event in told if isinstance(event, Progress)]
    assert (progress[-1].done, progress[-1].total, progress[-1].unit) == (2**30, 2**30, "B")


def test_zeros_are_left_out_of_an_unencrypted_snapshot_where_asked(bench: Bench) -> None:
    content = bench.base()
    done = bench.send(content)
    assert len(bench.puts(done)) == done.sent == WRITTEN
    assert bench.holds(done, content)


def test_zeros_are_sent_where_the_reply_shows_encryption(bench: Bench) -> None:
    """Nobody asked for encryption: the account has it by default."""
    bench.service.trouble.encrypt_by_default = True
    content = bench.base()
    done = bench.send(content)
    assert done.encrypted
    assert len(bench.puts(done)) == WHOLE
    assert bench.holds(done, content)


def test_a_delta_is_the_blocks_whose_bytes_differ(bench: Bench) -> None:
    base = bench.base()
    # What is written is partly what was there: allocation alone would send it.
    one = bench.shelf.layer("one", base, "write -P 7 30M 1M", "write -P 3 20M 1M")
    two = bench.shelf.layer("two", base, "write -P 8 30M 512k", "write -P 3 21M 1M", "write -P 7 30.5M 512k")
    first = bench.send(one)
    second = bench.send(two, earlier=first)
    assert bench.service.snapshots[second.snapshot].parent == first.snapshot
    assert bench.puts(second) == [60]
    assert bench.holds(second, two)
    third = bench.send(base, earlier=second)
    assert sorted(bench.puts(third)) == [60, 61], "what a layer that is gone had written"
    assert bench.holds(third, base)


def test_blocks_that_became_zeros_are_sent(bench: Bench) -> None:
    base = bench.base()
    top = bench.shelf.layer("top", base, "write -z 0 1M", "discard 20M 64k", "write -P 0 10M 64k")
    first = bench.send(base)
    second = bench.send(top, earlier=first)
    assert bench.puts(second) and set(bench.puts(second)) <= {0, 1, 20, 40}
    assert {0, 1, 20} <= set(bench.puts(second))
    assert bench.holds(second, top)


def test_what_left_zeros_out_is_no_parent_where_an_encrypted_copy_is_planned(bench: Bench) -> None:
    """Not a delta of it either: the gap is in what they stand on."""
    base = bench.base()
    first = bench.send(base)
    top = bench.shelf.layer("top", base, "write -P 9 2M 1M")
    second = bench.send(top, earlier=first)
    assert bench.service.snapshots[second.snapshot].parent
    last = bench.shelf.layer("last", top, "write -P 9 3M 1M")
    third = bench.send(last, earlier=second, order=replace(DATA, encrypted_copy=True))
    assert not bench.service.snapshots[third.snapshot].parent
    assert len(bench.puts(third)) == WHOLE


def test_a_delta_of_disks_without_a_common_layer(bench: Bench) -> None:
    """Also where the earlier disk's layers are gone: its ledger knows its blocks."""
    old = bench.shelf.layer("old", None, *BASE)
    new = bench.shelf.layer("new", None, *BASE, "write -P 5 40M 64k")
    first = bench.send(old)
    second = bench.send(new, earlier=first)
    assert bench.puts(second) == [80]
    assert bench.holds(second, new)


def test_a_delta_on_an_encrypted_snapshot_and_on_a_smaller_one(bench: Bench) -> None:
    """What lies beyond the parent's end is sent, zeros too."""
    base = bench.base()
    first = bench.send(base, order=Order(threads=THREADS, encrypted=True))
    grown = bench.shelf.layer("grown", base, "write -P 5 1100M 64k", size=Bytes(1200 * MIB))
    second = bench.send(grown, order=Order(threads=THREADS, encrypted=True), earlier=first)
    assert bench.service.snapshots[second.snapshot].parent == first.snapshot
    assert sorted(bench.puts(second)) == list(range(WHOLE, 2 * WHOLE))
    assert bench.holds(second, grown)


class Uploading:
    """An upload in a process of its own."""

    def __init__(self, bench: Bench, content: ContentId, earlier: Uploaded | None = None) -> None:
        words = [str(bench.folder / "local"), content, bench.url, str(bench.place(content))]
        argv = [sys.executable, "-m", "tests.backends.aws.disks", *words]
        self.process = subprocess.Popen([*argv, *([str(earlier.ledger)] if earlier else [])])

    def kill_once(self, moment: Callable[[], bool]) -> None:
        """SIGKILL as soon as that is so."""
        try:
            poll(
                lambda: moment() or self.process.poll() is not None or None,
                what="the moment",
                every=Seconds(0.002),
                deadline=Seconds(120.0),
                cancel=Flag(),
            )
        finally:
            self.process.kill()
            code = self.process.wait()
        assert code == -9, "it ended by itself before"


@pytest.mark.parametrize("accepted", [1, 60, LARGE - 5])
def test_a_killed_upload_goes_on_where_it_was(bench: Bench, accepted: int) -> None:
    content = bench.large()
    bench.service.trouble.delay = 0.03
    uploading = Uploading(bench, content)
    uploading.kill_once(lambda: any(len(one.puts) >= accepted for one in bench.service.snapshots.values()))
    settle(bench)
    ledger = open_ledger(bench.place(content) / LEDGER)
    assert ledger
    with ledger:
        noted = {index for index, state, _ in ledger.slots() if state == SENT}
    before = len(next(iter(bench.service.snapshots.values())).puts)
    assert len(noted) >= before - PROCESS_THREADS, "at most what was in flight is lost"
    done = bench.send(content)
    assert done.resumed and list(bench.service.snapshots) == [done.snapshot]
    again = bench.puts(done)[before:]
    assert sorted(again) == sorted(set(range(LARGE)) - noted), "what is missing, and nothing else"
    assert done.sent == LARGE
    assert bench.holds(done, content)


def settle(bench: Bench) -> None:
    """Waits until requests of a process that was killed are through."""
    last = -1

    def still() -> bool | None:
        nonlocal last
        now = sum(len(one.puts) for one in bench.service.snapshots.values())
        same, last = now == last, now
        return same or None

    poll(still, what="an end of requests", every=Seconds(0.2), deadline=Seconds(30.0), cancel=Flag())


def test_a_delta_killed_on_its_way_goes_on(bench: Bench) -> None:
    base = bench.base()
    top = bench.shelf.layer("top", base, "write -P 9 30M 20M")
    first = bench.send(base)
    bench.service.trouble.delay = 0.02
    uploading = Uploading(bench, top, first)
    uploading.kill_once(
        lambda: any(len(one.puts) >= 5 and one.parent for one in bench.service.snapshots.values())
    )
    settle(bench)
    bench.service.trouble.delay = 0.0
    done = bench.send(top, earlier=first)
    assert done.resumed and done.sent == 40
    assert len(bench.puts(done)) <= 40 + PROCESS_THREADS
    assert bench.holds(done, top)


def test_a_process_killed_before_it_wrote_anything_down(bench: Bench) -> None:
    content = bench.base()
    bench.service.trouble.unknown_puts = 1_000_000
    uploading = Uploading(bench, content)
    uploading.kill_once(lambda: bool(bench.service.snapshots))
    bench.service.trouble.unknown_puts = 0
    done = bench.send(content)
    assert bench.holds(done, content)


def test_a_process_killed_while_the_service_completes(bench: Bench) -> None:
    """It cannot know whether its request was heard; the service refuses a second one."""
    content = bench.base()
    bench.service.trouble.polls_pending = 1_000_000
    uploading = Uploading(bench, content)
    uploading.kill_once(lambda: bench.service.calls.get("complete", 0) > 0)
    bench.service.trouble.polls_pending = 1
    done = bench.send(content)
    assert done.resumed
    assert len(bench.puts(done)) == WRITTEN
    assert bench.holds(done, content)


def test_a_lost_reply_to_the_completion(bench: Bench) -> None:
    bench.service.trouble.lose_completion = True
    content = bench.base()
    done = bench.send(content)
    assert bench.service.calls["complete"] == 2
    assert bench.holds(done, content)


def stopped(bench: Bench, content: ContentId) -> str:
    """An upload of which half is there; its snapshot."""
    bench.service.trouble.expired_from = WRITTEN // 2 + 1
    held = Held()
    with pytest.raises(BackendError, match="have expired") as raised:
        bench.send(content, held=held)
    assert "renew" in raised.value.hint
    bench.service.trouble.expired_from = 0
    (snapshot,) = held.kept
    return snapshot


def test_expired_credentials_end_it_and_new_ones_go_on(bench: Bench) -> None:
    content = bench.base()
    snapshot = stopped(bench, content)
    assert len(bench.service.snapshots[snapshot].puts) == WRITTEN // 2
    done = bench.send(content)
    assert done.snapshot == snapshot and done.resumed
    assert len(bench.puts(done)) == WRITTEN, "no block twice"
    assert bench.holds(done, content)


def test_a_snapshot_that_is_not_listed_yet(bench: Bench) -> None:
    content = bench.base()
    snapshot = stopped(bench, content)
    bench.service.trouble.unlisted = 2
    done = bench.send(content)
    assert done.snapshot == snapshot and bench.service.trouble.unlisted == 0
    assert len(bench.puts(done)) == WRITTEN
    assert bench.holds(done, content)


def damage_head(path: Path) -> None:
    path.write_bytes(b"{" + path.read_bytes()[1:200].replace(b'"', b"'") + path.read_bytes()[200:])


def damage_slots(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for place in range(4096 + 10, len(data), 40):
        data[place] ^= 1
    path.write_bytes(data)


def another(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data.replace(b"snap-0", b"snap-f", 1))


@pytest.mark.parametrize(
    ("damage", "goes_on"),
    [(damage_head, False), (damage_slots, True), (another, False), (lambda path: path.unlink(), False)],
)
def test_a_ledger_that_is_not_to_be_trusted(
    bench: Bench, damage: Callable[[Path], None], goes_on: bool
) -> None:
    content = bench.base()
    snapshot = stopped(bench, content)
    path = bench.place(content) / LEDGER
    damage(path)
    if damage is another:  # as long as EC2 may not list it yet, it would be taken for there
        path.write_bytes(path.read_bytes().replace(b'"started": 1', b'"started": 0', 1))
    done = bench.send(content)
    assert done.resumed == goes_on == (done.snapshot == snapshot)
    assert set(bench.puts(done)) == set(bench.service.snapshots[done.snapshot].sums)
    assert done.sent == WRITTEN
    assert bench.holds(done, content)


def test_another_wish_is_another_snapshot(bench: Bench) -> None:
    """And one that the parent cannot fulfil is no delta."""
    base = bench.base()
    first = bench.send(base)
    bench.service.calls.clear()
    content = bench.shelf.layer("top", base, "write -P 9 2M 1M")
    snapshot = stopped(bench, content)
    done = bench.send(content, earlier=first, order=replace(DATA, encrypted=True, key=KEY))
    assert done.snapshot != snapshot and snapshot not in bench.service.snapshots
    assert not bench.service.snapshots[done.snapshot].parent
    assert done.encrypted and bench.holds(done, content)


def test_a_snapshot_that_was_given_up_is_begun_anew(bench: Bench) -> None:
    content = bench.base()
    snapshot = stopped(bench, content)
    bench.service.snapshots[snapshot].state = "error"
    done = bench.send(content)
    assert done.snapshot != snapshot and not done.resumed
    assert bench.holds(done, content)


def test_a_snapshot_that_fails_is_told_and_forgotten(bench: Bench) -> None:
    content = bench.base()
    bench.service.trouble.polls_pending = 1_000_000

    def fail(event: Event) -> None:
        for one in bench.service.snapshots.values():
            if one.sealed and one.state == "pending":
                one.state, one.message = "error", "the key is disabled"

    with pytest.raises(NotFoundError, match="failed: the key is disabled"):
        bench.send(content, emit=fail)
    bench.service.trouble.polls_pending = 1
    assert bench.holds(bench.send(content), content)


@pytest.mark.parametrize(
    "trouble",
    [
        Trouble(throttle_every=5),
        Trouble(unavailable_every=4),
        Trouble(drop_every=5),
        Trouble(unknown_puts=9),
    ],
    ids=lambda trouble: str(trouble)[:60],
)
def test_what_the_service_puts_off_is_asked_again(bench: Bench, trouble: Trouble) -> None:
    bench.service.trouble = trouble
    content = bench.base()
    done = bench.send(content)
    assert len(bench.puts(done)) == WRITTEN < bench.service.calls["put"]
    assert bench.holds(done, content)


def test_a_block_that_changed_on_its_way_is_told(bench: Bench) -> None:
    bench.service.trouble.damage = frozenset({3})
    content = bench.base()
    with pytest.raises(BackendError, match=r"block 3 to snap-\S+ was refused: .*checksum") as raised:
        bench.send(content)
    assert "changed on their way" in raised.value.hint
    assert bench.service.calls["put"] <= WRITTEN, "a refusal is not asked again"
    bench.service.trouble.damage = frozenset()
    assert bench.holds(bench.send(content), content)


def test_a_wish_to_stop_is_heard(bench: Bench) -> None:
    content = bench.large()
    cancel = Flag()

    def stop(event: Event) -> None:
        if isinstance(event, Progress) and event.done:
            cancel.set()

    bench.service.trouble.delay = 0.05
    with pytest.raises(CancelledError):
        bench.send(content, emit=stop, cancel=cancel)
    assert bench.service.calls["put"] < LARGE
    bench.service.trouble.delay = 0.0
    done = bench.send(content)
    assert done.resumed and len(bench.puts(done)) == LARGE


class Region:
    """As much of a backend as a sweep needs."""

    def __init__(self, url: str) -> None:
        self.url = url

    def resource(self, kind: str) -> Snapshots:
        return {KIND: Snapshots(direct=clients(self.url))}[kind]


@pytest.mark.parametrize("complete", [True, False])
def test_a_sweep_removes_what_is_not_complete(bench: Bench, tmp_path: Path, complete: bool) -> None:
    content = bench.base()
    run = tmp_path / "runs" / "20261122-101112-ab12"
    run.mkdir(parents=True)
    journal = Journal(run, run=run.name)
    if not complete:
        bench.service.trouble.expired_from = WRITTEN // 2
    try:
        with Resources(journal, place=Place(backend="aws"), emit=ignore) as held:
            bench.send(content, held=held)  # type: ignore[arg-type]
    except BackendError:
        pass
    assert bool(journal.read()) != complete, "what is complete is nobody's to remove"
    journal.close()
    (snapshot,) = bench.service.snapshots.values()
    assert snapshot.tags[TOKEN_TAG].startswith("ingot-20261122")
    region = Region(bench.url)
    runs = tmp_path / "runs"
    sweep(runs, lambda place, directory: region)  # type: ignore[arg-type, return-value]
    assert bench.service.snapshots, "it is kept, to be gone on with"
    swept = sweep(runs, lambda place, directory: region, names=[run.name])  # type: ignore[arg-type, return-value]
    assert bool(bench.service.snapshots) == complete
    assert not swept.left


def test_a_snapshot_is_found_by_its_token(bench: Bench) -> None:
    content = bench.base()
    stopped(bench, content)
    found = Snapshots(direct=clients(bench.url))
    ((snapshot, about),) = bench.service.snapshots.items()
    assert found.find(Token(about.token)) == snapshot
    assert found.find(Token("ingot-test-2")) is None
    found.delete(snapshot)
    found.delete(snapshot)
    assert not bench.service.snapshots
