"""Epochs: the stretches of time that pins are good for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot.model.lock import epoch_at, epoch_is_over
from ingot.model.units import Seconds, parse_seconds

MONDAY = datetime(2026, 11, 16, tzinfo=UTC)
_times = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)).map(lambda at: at.replace(tzinfo=UTC))
_lengths = st.sampled_from(["1h", "6h", "1d", "7d", "30d", "366d"]).map(parse_seconds)


@pytest.mark.parametrize(
    ("now", "freshness", "name"),
    [
        (MONDAY, "7d", "2026-W47"),
        (MONDAY - timedelta(seconds=1), "7d", "2026-W46"),
        (datetime(2027, 1, 1, tzinfo=UTC), "7d", "2026-W53"),
        (MONDAY + timedelta(hours=30), "1d", "2026-11-17"),
        (MONDAY + timedelta(hours=13), "6h", "2026-11-16T12:00"),
        # Far in the east it is Monday already; the epoch is the same all over the world.
        (datetime(2026, 11, 16, 8, tzinfo=timezone(timedelta(hours=9))), "7d", "2026-W46"),
    ],
)
def test_names(now: datetime, freshness: str, name: str) -> None:
    assert epoch_at(now, parse_seconds(freshness)) == name


@given(_times, _lengths)
def test_an_epoch_ends_within_its_length_and_the_next_is_later(now: datetime, length: Seconds) -> None:
    here, after = epoch_at(now, length), epoch_at(now + timedelta(seconds=length), length)
    assert here != after
    assert epoch_is_over(here, after)
    assert not epoch_is_over(after, here), "a clock that is behind must not lead back"
    assert not epoch_is_over(here, here)


def test_another_length_begins_an_epoch_of_its_own() -> None:
    assert epoch_is_over("2026-W47", "2026-11-16")
    assert epoch_is_over("2026-11-16", "2026-W47")
    assert epoch_is_over("", "2026-W47")
