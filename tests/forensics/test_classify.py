from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ingot.forensics import console
from ingot.forensics.classify import classify
from ingot.model.forensics import Disk, Evidence, Port
from ingot.model.units import Bytes, Seconds
from tests.forensics import recorded

CONSOLES = Path(__file__).parents[1] / "data/consoles"
HEALTHY = console.plain((CONSOLES / "healthy-slow.log").read_bytes())
SIX = {"no-sshd", "wrong-user", "kernel-panic", "disk-full", "network-down", "cloud-init"}
ROOM = Disk(size=Bytes(2**32), free=Bytes(2**31), files_free=10**5, units={"ssh.service": "enabled"})
UP = f"{HEALTHY.partition('localhost login:')[0]}localhost login: "


def seen(**what: object) -> Evidence:
    """A machine that came up to its login prompt long ago, and whose network refuses callers."""
    known: dict[str, object] = {
        "kind": "vm",
        "console": UP,
        "idle": Seconds(300.0),
        "port": Port(state="closed"),
    }
    return Evidence(**{**known, **what})  # type: ignore[arg-type]


@pytest.mark.parametrize("case", recorded.cases())
def test_a_machine_that_was_broken_on_purpose_is_told_by_its_own_cause(case: str) -> None:
    assert classify(recorded.load(recorded.DATA / case)).name == case


def test_all_six_were_recorded() -> None:
    assert set(recorded.cases()) >= SIX


@pytest.mark.parametrize("case", sorted(SIX - {"disk-full"}))
def test_without_root_it_is_told_by_the_console_and_the_port(case: str) -> None:
    """A cloud shows no disk either. (What fills a disk shows there only.)"""
    whole = recorded.load(recorded.DATA / case)
    assert classify(replace(whole, disk=None, journal="", logs={}, unread="that takes root")).name == case


@pytest.mark.parametrize(
    "port", [Port(), Port(state="silent"), Port(state="closed"), Port(state="greeted", login="refused")]
)
@pytest.mark.parametrize("share", range(0, 101, 4))
def test_a_sound_boot_that_goes_on_is_slow_wherever_it_is_cut_off(share: int, port: Port) -> None:
    cut = HEALTHY[: len(HEALTHY) * share // 100]
    cause = classify(seen(console=cut, idle=Seconds(7.0), seconds=Seconds(1800.0), port=port, disk=ROOM))
    assert cause.name == "slow"
    assert f"stage {console.stage_of(cut)}, last progress 7.0s ago" in cause.sentence
    assert "slow, not broken" in cause.sentence


@pytest.mark.parametrize("share", range(0, 81, 4))
def test_a_boot_that_stopped_without_a_word_is_none_of_the_six(share: int) -> None:
    cut = HEALTHY[: len(HEALTHY) * share // 100]
    assert classify(seen(console=cut, port=Port(state="silent"))).name in {"silent", "stalled", "waiting"}


ENOSPC = "[   41.0] cloud-init[377]: OSError: [Errno 28] No space left on device\n"
TABLE: dict[str, tuple[Evidence, str, str]] = {
    "QEMU killed": (seen(state="ended", exit_code=-9), "killed", "SIGKILL"),
    "guest off": (seen(state="ended", exit_code=0), "powered-off", "powered itself off"),
    "guest off, seen on its console": (
        seen(state="ended", console=f"{UP}\n[  90.1] reboot: Power down\n"),
        "powered-off",
        "powered itself off",
    ),
    "QEMU failed": (
        seen(state="ended", exit_code=1, status="qemu: could not open disk"),
        "ended",
        "code 1: qemu: could not open disk",
    ),
    "builder's disk full": (seen(state="paused", status="io-error"), "builder-disk-full", "this computer's own disk"),
    "paused": (seen(state="paused", status="paused"), "paused", "(paused)"),
    "masked, though it still boots": (
        seen(idle=Seconds(1.0), disk=replace(ROOM, units={"ssh.service": "masked", "sshd.service": "not-found"})),
        "no-sshd",
        "ssh.service is masked",
    ),
    "not installed": (seen(disk=replace(ROOM, units={"ssh.service": "not-found"})), "no-sshd", "the image has none"),
    "disabled": (seen(disk=replace(ROOM, units={"ssh.service": "disabled"})), "no-sshd", "ssh.service is disabled"),
    "started by its socket": (
        seen(disk=replace(ROOM, units={"ssh.service": "disabled", "ssh.socket": "enabled"})),
        "no-sshd",
        "its port is closed although all else came up",
    ),
    "failed to start": (
        seen(
            console=f"{UP}\n[FAILED] Failed to start ssh.service - OpenBSD Secure Shell server.\n",
            journal="[ 9.1] node sshd[71]: /etc/ssh/sshd_config line 3: Bad configuration option: Prot\n",
        ),
        "no-sshd",
        "Bad configuration option: Prot",
    ),
    "no room, so no SSH server": (
        seen(console=f"{UP}\n[FAILED] Failed to start ssh.service.\n", disk=replace(ROOM, free=Bytes(0))),
        "disk-full",
        "0 B of 4.0 GiB are free",
    ),
    "no more files": (seen(disk=replace(ROOM, files_free=0)), "disk-full", "takes no more files"),
    "room is only root's": (
        seen(disk=replace(ROOM, free=Bytes(2**32 // 20)), journal=ENOSPC),
        "disk-full",
        "204.8 MiB of 4.0 GiB",
    ),
    "no room, by the console alone": (seen(console=f"{UP}\n{ENOSPC}"), "disk-full", "is full, so"),
    "another file system had no room": (seen(disk=ROOM, journal=ENOSPC), "no-sshd", "its port is closed"),
    "another user": (
        seen(
            port=Port(
                state="greeted",
                login="other user",
                said=('Please login as the user "debian" rather than the user "root".',),
            )
        ),
        "wrong-user",
        "it asks for the user debian",
    ),
    "refused, and the reason is known": (
        seen(
            idle=Seconds(1.0),
            port=Port(state="greeted", greeting="SSH-2.0-OpenSSH_9.2p1", login="refused"),
            journal="[ 50.1] node sshd[9]: User root from 10.0.2.2 not allowed because not listed in AllowUsers\n",
        ),
        "wrong-user",
        "not listed in AllowUsers",
    ),
    "another host key": (
        seen(port=Port(state="greeted", login="other host key", said=("Host key verification failed.",))),
        "other-host-key",
        "another host key",
    ),
    "behind a firewall": (seen(port=Port(state="silent")), "network-down", "nothing answers at its address"),
    "no network service": (
        seen(
            port=Port(state="silent"),
            disk=replace(ROOM, units={"ssh.service": "enabled", "systemd-networkd.service": "masked"}),
        ),
        "network-down",
        "systemd-networkd.service is masked",
    ),
    "no data source": (
        seen(
            port=Port(state="greeted", login="refused"),
            logs={"cloud-init.log": "2026-11-21 - util.py[WARNING]: Used fallback datasource\n"},
        ),
        "cloud-init",
        "fallback datasource",
    ),
    "cloud-init's own record": (
        seen(
            port=Port(state="greeted", login="refused"),
            logs={"status.json": '{"v1": {"init": {"errors": ["(\'ssh\', KeyError())"]}, "stage": null}}'},
        ),
        "cloud-init",
        "('ssh', KeyError())",
    ),
    "came up at last": (seen(port=Port(state="greeted", login="accepted")), "slow", "it answers now"),
    "nothing at all": (seen(console="", port=Port(state="silent")), "silent", "stayed silent"),
    "waits for a unit": (
        seen(console=f"{UP.partition('Reached target')[0]}\n[ ***  ] Job db.service/start running (9min / no limit)\n"),
        "waiting",
        "it waits for db.service",
    ),
    "a container that waits": (
        seen(kind="booted", console="Welcome to Debian", port=Port(login="accepted"), jobs=("db.service",)),
        "waiting",
        "it waits for db.service",
    ),
    "again and again": (
        seen(console="[    0.000000] Linux version 6.1\n[    4.0] Run /init as init process\n" * 9),
        "boot-loop",
        "9 times",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLE)
def test_causes(case: str) -> None:
    evidence, name, words = TABLE[case]
    cause = classify(evidence)
    assert cause.name == name
    assert words in cause.sentence
    assert cause.next and "`" in cause.next


def test_known_consoles_have_their_cause() -> None:
    """Recorded by QEMU, of machines that stopped before their system began."""
    found = {
        path.stem: classify(seen(console=console.plain(path.read_bytes()), port=Port(state="silent"))).name
        for path in CONSOLES.glob("*.log")
    }
    assert found == {
        "panic": "kernel-panic",
        "initramfs": "no-root",
        "uefi-shell": "boot-loader",
        "clock-stood-still": "stalled",
        "healthy-slow": "network-down",
    }
