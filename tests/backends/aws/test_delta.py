"""Which blocks are sent, by what is known of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import pytest

from ingot.backends.aws import delta
from ingot.backends.aws.ledger import About
from ingot.model.digest import Digest
from ingot.model.plan import ContentId
from ingot.model.units import Bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """Implements `ports.Block`; reading it is a mistake."""

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
PARENT = About(
    snapshot="snap-1",
    content=ContentId("sha256:1"),
    blocks=2048,
    asked=Digest("sha256:2"),
    parent="",
    encrypted=False,
    key="",
    gaps=False,
    started=0.0,
)
ENCRYPTED = replace(PARENT, encrypted=True)
KEYED = replace(ENCRYPTED, key=KEY)
WITH_GAPS = replace(PARENT, gaps=True)
WISH: dict[str, Any] = {"blocks": 2048, "encrypted": False, "key": "", "encrypted_copy": False}


@pytest.mark.parametrize(
    ("parent", "wish", "can"),
    [
        (PARENT, {}, True),
        (PARENT, {"blocks": 4096}, True),
        (PARENT, {"blocks": 1024}, False),
        (PARENT, {"encrypted": True}, False),
        (PARENT, {"encrypted_copy": True}, True),
        (WITH_GAPS, {}, True),
        (WITH_GAPS, {"encrypted_copy": True}, False),
        (ENCRYPTED, {}, True),
        (ENCRYPTED, {"encrypted": True}, True),
        (ENCRYPTED, {"encrypted": True, "key": KEY}, False),
        (KEYED, {"encrypted": True, "key": KEY}, True),
        (KEYED, {"key": KEY}, True),
        (KEYED, {"encrypted": True, "key": OTHER}, False),
        (KEYED, {"encrypted": True}, False),
    ],
)
def test_which_snapshot_can_be_a_parent(parent: About, wish: dict[str, Any], can: bool) -> None:
    assert delta.may_be_parent(parent, **{**WISH, **wish}) == can
