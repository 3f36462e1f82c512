from __future__ import annotations

from pathlib import Path

import pytest

from ingot.forensics.console import diagnose, last_line, plain, stood_still

CONSOLES = Path(__file__).parents[1] / "data/consoles"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("initramfs", "the initramfs could not mount the root file system: "),
        ("panic", "the kernel panicked: VFS: Unable to mount root fs"),
        ("uefi-shell", "the disk has no UEFI boot loader"),
        ("clock-stood-still", ""),
    ],
)
def test_a_console_that_qemu_recorded_is_understood(name: str, words: str) -> None:
    said = (CONSOLES / f"{name}.log").read_bytes()
    assert diagnose(said, fatal_only=True).startswith(words)


@pytest.mark.parametrize(
    ("said", "words", "fatal"),
    [
        (b"You are in emergency mode. After logging in, type", "emergency mode", True),
        (b"error: no such device: 6e1f6c2a.\r\nEntering rescue mode...\r\ngrub rescue> ", "GRUB", True),
        (
            b"\x1b[0;1;31mFAILED\x1b[0m Failed to start ssh.service - OpenBSD Secure Shell.",
            "SSH server",
            False,
        ),
        (b"[ TIME ] Timed out waiting for device /dev/vdb.\n", "/dev/vdb", False),
        (b"Out of memory: Killed process 71 (apt) total-vm", "memory ran out: apt", False),
        (b"Debian GNU/Linux 12 node ttyS0\r\n\r\nnode login: ", "login prompt", False),
        (b"", "stayed silent", False),
    ],
)
def test_signs(said: bytes, words: str, fatal: bool) -> None:
    assert words in diagnose(said)
    assert bool(diagnose(said, fatal_only=True)) is fatal


def test_what_goes_well_is_no_sign() -> None:
    said = b"[  OK  ] Started ssh.service - OpenBSD Secure Shell server.\n[    7.1] cloud-init[431]: modules:final\n"
    assert diagnose(said) == ""
    assert last_line(said) == "[    7.1] cloud-init[431]: modules:final"


def test_a_terminals_own_commands_are_left_out() -> None:
    assert plain(b"\x1b[01;01H\x1b[1m\x1b[37mShell\x1b[0m> \r\n\x1b]0;title\x07x") == "Shell> \nx"


def test_a_clock_that_stands_still_is_seen() -> None:
    said = {path.stem: path.read_bytes() for path in CONSOLES.glob("*.log")}
    assert [name for name, text in said.items() if stood_still(text)] == ["clock-stood-still"]
    assert diagnose(said["clock-stood-still"]) == "the emulated clock stood still"
