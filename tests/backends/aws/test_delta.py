"""Which blocks are sent, by what is known of them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import pytest

from ingot.backends.aws import delta
from ingot.model.units import Bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """Implements `ports_disk.Block`; reading it is a mistake."""

    index: int = 0
    empty: bool = False
    same: bool = False

    def read(self) -> bytes:
        raise AssertionError


@pytest.mark.parametrize(
    ("size", "gib"), [(1, 1), (2**30, 1), (2**30 + 1, 2), (100 * 2**30, 100), (8 * 2**30 + 512, 9)]
)
def test_a_volume_is_whole_gib(size: int, gib: int) -> None:
    assert delta.volume_gib(Bytes(size)) == gib
    assert delta.blocks_in(gib) == gib * 2048


def test_zeros_are_left_out_in_one_case_alone() -> None:
    names = ("asked", "encrypted", "encrypted_copy", "delta")
    cases = [dict(zip(names, values, strict=True)) for values in product((False, True), repeat=4)]
    allowed = [case for case in cases if delta.may_leave_out_zeros(**case)]
    assert allowed == [{"asked": True, "encrypted": False, "encrypted_copy": False, "delta": False}]


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize("zeros_left_out", [False, True])
def test_what_was_sent_is_not_looked_at_again(empty: bool, zeros_left_out: bool) -> None:
    block = Known(empty=empty)
    assert delta.decide(block, sent=True, known=True, zeros_left_out=zeros_left_out) == "skip"


def test_what_is_the_same_is_sent_where_nobody_knows_what_is_there() -> None:
    same = Known(same=True)
    assert delta.decide(same, sent=False, known=True, zeros_left_out=False) == "skip"
    assert delta.decide(same, sent=False, known=False, zeros_left_out=False) == "look"


def test_zeros_are_looked_at_unless_they_are_left_out() -> None:
    zeros = Known(empty=True)
    assert delta.decide(zeros, sent=False, known=False, zeros_left_out=True) == "leave out"
    assert delta.decide(zeros, sent=False, known=False, zeros_left_out=False) == "look"
    assert delta.decide(zeros, sent=False, known=True, zeros_left_out=False) == "look"


def test_what_nobody_knows_differs() -> None:
    assert delta.differs(delta.ZEROS_SUM, None)
    assert delta.differs(delta.ZEROS_SUM, b"\0" * 32)
    assert not delta.differs(delta.ZEROS_SUM, delta.ZEROS_SUM)


KEY, OTHER = "arn:aws:kms:us-west-2:123456789012:key/1", "arn:aws:kms:us-west-2:123456789012:key/2"
PARENTS = [
    # blocks there and here, encrypted there, with which key; wanted encrypted, with which key; whether it can be
    (2048, 2048, False, "", False, "", True),
    (2048, 4096, False, "", False, "", True),
    (4096, 2048, False, "", False, "", False),
    (2048, 2048, True, "", False, "", True),
    (2048, 2048, False, "", True, "", False),
    (2048, 2048, True, "", True, "", True),
    (2048, 2048, True, KEY, True, KEY, True),
    (2048, 2048, True, KEY, True, OTHER, False),
    (2048, 2048, True, KEY, True, "", False),
    (2048, 2048, True, "", False, KEY, False),
]


@pytest.mark.parametrize(("there", "here", "encrypted", "key", "wants", "wants_key", "can"), PARENTS)
def test_which_snapshot_can_be_a_parent(
    there: int, here: int, encrypted: bool, key: str, wants: bool, wants_key: str, can: bool
) -> None:
    found = delta.may_be_parent(
        there, here, encrypted=encrypted, key=key, wants_encryption=wants, wants_key=wants_key
    )
    assert found == can
