"""What a serial console says about a machine that does not come up, as one sentence. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07]*\x07|[@-Z\\-_])|[\x00-\x08\x0b-\x1f\x7f]")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sign:
    """Text on a console and what it means. `{0}` in `means` is the expression's first group."""

    text: str
    means: str
    fatal: bool = True
    """Whether the machine will never answer after this."""


SIGNS: tuple[Sign, ...] = (
    Sign(text=r"Kernel panic - not syncing: ([^\n]*)", means="the kernel panicked: {0}"),
    Sign(
        text=r"((?:ALERT!|Failed to mount|mount: )[^\n]*)(?s:.*)\(initramfs\)",
        means="the initramfs could not mount the root file system: {0}",
    ),
    Sign(text=r"\(initramfs\)", means="the initramfs gave up and opened its own shell"),
    Sign(text=r"dracut(?:-initqueue)?\[\d+\]: Warning: (/dev/\S+ does not exist)", means="no root: {0}"),
    Sign(text=r"(?:You are in|Welcome to) emergency mode", means="the system stopped in emergency mode"),
    Sign(text=r"grub rescue>", means="GRUB did not find its own files"),
    Sign(text=r"error: (no such device: [^\n]*)", means="GRUB did not find its file system: {0}"),
    Sign(text=r"error: ([^\n]*(?:vmlinuz|initr)[^\n]*)", means="GRUB could not load the kernel: {0}"),
    Sign(text=r"No bootable device", means="the disk has no BIOS boot loader"),
    Sign(text=r"UEFI Interactive Shell|^Shell> ", means="the disk has no UEFI boot loader"),
    Sign(text=r"Possible timer handling issue", means="the emulated clock stood still", fatal=False),
    Sign(text=r"Out of memory: Killed process \d+ \(([^)]*)\)", means="memory ran out: {0}", fatal=False),
    Sign(
        text=r"Failed to start \S*(?:ssh|sshd)\S*[^\n]*|Failed to start [^\n]*(?:Secure Shell|OpenSSH)[^\n]*",
        means="its SSH server failed to start",
        fatal=False,
    ),
    Sign(text=r"Timed out waiting for device ([^\n]*)", means="a device did not appear: {0}", fatal=False),
    Sign(text=r"Failed to start ([^\n]*)", means="a unit failed to start: {0}", fatal=False),
    Sign(text=r"login: ?$", means="it came up to a login prompt, but SSH lets nobody in", fatal=False),
)


_STOOD_STILL = re.compile(rb"rcu: [^\n]*Possible timer handling issue")


def stood_still(console: bytes) -> bool:
    """Whether the kernel misses its clock's ticks. On a busy builder QEMU's emulation at times loses one for good."""
    return _STOOD_STILL.search(console) is not None


def plain(console: bytes) -> str:
    """The console's text without what only moves a terminal's cursor."""
    return _ESCAPES.sub("", console.decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n"))


def diagnose(console: bytes, *, fatal_only: bool = False) -> str:
    """The most telling sign on the console, in words; "" where nothing is known to be wrong.

    `fatal_only` leaves out what a machine may recover from.
    """
    text = plain(console)
    for sign in SIGNS:
        found = re.search(sign.text, text, re.MULTILINE)
        if found and (sign.fatal or not fatal_only):
            return sign.means.format(*(group.strip() for group in found.groups()))
    if fatal_only or text.strip():
        return ""
    return "its console stayed silent: no boot loader, or a kernel without `console=ttyS0`"


def last_line(console: bytes) -> str:
    """The last thing that the console said."""
    return next((line.strip() for line in reversed(plain(console).splitlines()) if line.strip()), "")
