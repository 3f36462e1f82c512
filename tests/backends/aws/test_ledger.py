"""A ledger says of a block that it is there only if it is; what is damaged is not there."""

from __future__ import annotations

import hashlib
import os
import random
from dataclasses import replace
from pathlib import Path

import pytest

from ingot.backends.aws.ledger import SENT, THERE, About, Ledger, create_ledger, open_ledger
from ingot.errors import BackendError
from ingot.model.digest import Digest
from ingot.model.plan import ContentId

ABOUT = About(
    snapshot="snap-1",
    content=ContentId("sha256:1"),
    blocks=10_000,
    asked=Digest("sha256:2"),
    parent="",
    encrypted=False,
    key="",
    gaps=False,
    started=0.0,
)


def checksum(index: int) -> bytes:
    return hashlib.sha256(str(index).encode()).digest()


def opened(path: Path) -> Ledger:
    found = open_ledger(path)
    assert found
    return found


def test_what_was_noted_is_known_to_the_next_process(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    noted = random.Random(1).sample(range(ABOUT.blocks), 5000)
    with create_ledger(path, ABOUT) as ledger:
        for index in noted:
            ledger.note(index, checksum(index), state=THERE if index % 7 == 0 else SENT)
    with opened(path) as ledger:
        assert ledger.about == ABOUT
        assert {index for index in range(ABOUT.blocks) if ledger.known(index)} == set(noted)
        assert all(ledger.sent(index) == (index % 7 != 0) for index in noted)
        assert all(ledger.checksum(index) == checksum(index) for index in noted)
        assert ledger.checksum(next(iter(set(range(ABOUT.blocks)) - set(noted)))) is None
        sent = sorted(index for index in noted if index % 7)
        joined = b"".join(checksum(index) for index in sent)
        assert ledger.seal() == (len(sent), hashlib.sha256(joined).digest())


def test_a_file_cut_anywhere_loses_the_rest_alone(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    with create_ledger(path, replace(ABOUT, blocks=50)) as ledger:
        for index in range(50):
            ledger.note(index, checksum(index))
    whole = path.read_bytes()
    for length in range(4096, len(whole), 13):
        path.write_bytes(whole[:length])
        with opened(path) as ledger:
            assert [index for index in range(50) if ledger.known(index)] == list(range((length - 4096) // 40))
            ledger.note(49, checksum(49))
            assert ledger.checksum(49) == checksum(49)


@pytest.mark.parametrize("at", range(40))
def test_a_slot_with_one_wrong_byte_is_not_there(tmp_path: Path, at: int) -> None:
    path = tmp_path / "ledger"
    with create_ledger(path, ABOUT) as ledger:
        ledger.note(5, checksum(5))
        ledger.note(6, checksum(6))
    data = bytearray(path.read_bytes())
    data[4096 + 5 * 40 + at] ^= 0x20
    path.write_bytes(data)
    with opened(path) as ledger:
        # The three bytes between state and checksum say nothing.
        assert ledger.known(5) == (at in (1, 2, 3))
        assert ledger.sent(6)


def test_slots_of_another_snapshot_or_disk_are_worth_nothing(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    with create_ledger(path, ABOUT) as ledger:
        ledger.note(5, checksum(5))
    slots = path.read_bytes()[4096:]
    for other in (replace(ABOUT, snapshot="snap-2"), replace(ABOUT, content=ContentId("sha256:9"))):
        create_ledger(path, other).__exit__(None, None, None)
        path.write_bytes(path.read_bytes()[:4096] + slots)
        with opened(path) as ledger:
            assert not ledger.known(5)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"\xff" * 5000,
        b'{"snapshot": "snap-1"}',
        b'{"asked":"a","blocks":"many","content":"c","encrypted":false,"gaps":false,"key":"","parent":"","schema":1,"snapshot":"s","started":0}',
        b'{"asked":"a","blocks":9999999999,"content":"c","encrypted":false,"gaps":false,"key":"","parent":"","schema":1,"snapshot":"s","started":0}',
        b'{"asked":"a","blocks":5,"content":"c","encrypted":false,"gaps":false,"key":"","parent":"","schema":2,"snapshot":"s","started":0}',
    ],
)
def test_what_is_no_ledger(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "ledger").write_bytes(text)
    assert open_ledger(tmp_path / "ledger") is None
    assert open_ledger(tmp_path / "none") is None


def test_a_delta_begins_with_what_its_parent_has(tmp_path: Path) -> None:
    grown = replace(ABOUT, snapshot="snap-2", parent="snap-1", blocks=ABOUT.blocks + 10)
    with create_ledger(tmp_path / "old", ABOUT) as old:
        for index in range(0, ABOUT.blocks, 3):
            old.note(index, checksum(index))
        with create_ledger(tmp_path / "new", grown, earlier=old) as new:
            assert [new.checksum(index) for index in range(7)] == [old.checksum(index) for index in range(7)]
            assert not any(new.sent(index) for index in range(grown.blocks))
            assert new.seal() == (0, hashlib.sha256(b"").digest())
            new.note(3, checksum(9))
            assert new.seal() == (1, hashlib.sha256(checksum(9)).digest())


def test_damage_while_it_is_open_is_told(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    with create_ledger(path, ABOUT) as ledger:
        ledger.note(5, checksum(5))
        with path.open("r+b") as file:
            os.pwrite(file.fileno(), b"\0" * 40, 4096 + 5 * 40)
        with pytest.raises(BackendError, match="damaged meanwhile"):
            ledger.seal()
