from __future__ import annotations

import itertools
import time
from pathlib import Path

import pytest

from ingot.backends.local.progress import Watch
from ingot.errors import DeadlineError
from ingot.model.units import Seconds


class Time:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    turned = Time()
    monkeypatch.setattr(time, "monotonic", turned.monotonic)
    return turned


def watch(tmp_path: Path) -> Watch:
    return Watch(tmp_path / "console", timeout=Seconds(100.0), limit=Seconds(500.0), patience=Seconds(20.0))


def follow(watched: Watch, clock: Time, said: list[str]) -> float:
    """For how long it is waited when one of these is said every ten seconds, and then nothing."""
    lines = iter(said)
    while True:
        clock.now += 10
        with watched.path.open("a") as console:
            console.write("".join(f"{line}\n" for line in itertools.islice(lines, 1)))
        try:
            watched.look()
        except DeadlineError:
            return watched.seconds


NEW = [f"[{number}.1] driver {chr(97 + number % 26) * (number // 26 + 1)} is there" for number in range(60)]


def test_silence_is_waited_for_until_the_time_is_over(tmp_path: Path, clock: Time) -> None:
    assert follow(watch(tmp_path), clock, []) == 100


def test_a_boot_that_goes_on_gets_more_time(tmp_path: Path, clock: Time) -> None:
    assert follow(watch(tmp_path), clock, NEW[:20]) == 220


def test_but_not_for_ever(tmp_path: Path, clock: Time) -> None:
    assert follow(watch(tmp_path), clock, NEW) == 500


def test_counting_on_is_not_going_on(tmp_path: Path, clock: Time) -> None:
    watched = watch(tmp_path)
    watched.path.write_text("[    0.0] Linux version 6.1\n")
    turning = [
        f"[{' ' * (number % 3)}***] A start job is running for db (0:{number} / 9:00)" for number in range(40)
    ]
    assert follow(watched, clock, turning) == 100


def test_a_menu_that_is_drawn_slowly_is_going_on(tmp_path: Path, clock: Time) -> None:
    assert follow(watch(tmp_path), clock, ["\x1b[5;80H |"] * 20) == 220


def test_who_has_started_all_is_given_up_sooner(tmp_path: Path, clock: Time) -> None:
    said = ["[    0.0] Linux version 6.1", "[  OK  ] Reached target multi-user.target - Multi-User System."]
    assert follow(watch(tmp_path), clock, said) == 40


def test_another_start_is_news_though_it_says_the_same(tmp_path: Path, clock: Time) -> None:
    boot = ["[    0.0] Linux version 6.1", *NEW[:4]]
    assert follow(watch(tmp_path), clock, boot * 4) == 220


def test_reading_much_is_going_on(tmp_path: Path, clock: Time) -> None:
    watched = watch(tmp_path)
    clock.now += 50
    watched.has_read(2**18 - 1)
    assert float(watched.idle) == 50.0
    watched.has_read(2**18)
    assert float(watched.idle) == 0.0
    clock.now += 50
    watched.has_read(2**18 + 4096)
    assert float(watched.idle) == 50.0


def test_what_the_port_does_counts_once_and_a_slow_login_always(tmp_path: Path, clock: Time) -> None:
    watched = watch(tmp_path)
    clock.now += 50
    watched.moved("the port is closed")
    assert float(watched.idle) == 0.0
    clock.now += 5
    watched.moved("the port is closed")
    assert float(watched.idle) == 5.0
    watched.moved()
    clock.now += 1
    watched.moved()
    assert float(watched.idle) == 0.0
