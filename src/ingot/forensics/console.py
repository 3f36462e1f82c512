"""What a serial console says: how far a boot came, whether it goes on, and what went wrong. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ingot.model.forensics import Stage

_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07]*\x07|[@-Z\\-_])|[\x00-\x08\x0b-\x1f\x7f]")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sign:
    """Text on a console and what it means. `{0}` in `means` is the expression's first group."""

    text: str
    means: str
    name: str = ""
    """Of the cause, where the machine will never answer after this."""

    @property
    def fatal(self) -> bool:
        return bool(self.name)


SIGNS: tuple[Sign, ...] = (
    Sign(text=r"Kernel panic - not syncing: ([^\n]*)", means="the kernel panicked: {0}", name="kernel-panic"),
    Sign(
        text=r"((?:ALERT!|Failed to mount|mount: )[^\n]*)(?s:.*)\(initramfs\)",
        means="the initramfs could not mount the root file system: {0}",
        name="no-root",
    ),
    Sign(text=r"\(initramfs\)", means="the initramfs gave up and opened its own shell", name="no-root"),
    Sign(
        text=r"dracut(?:-initqueue)?\[\d+\]: Warning: (/dev/\S+ does not exist)",
        means="no root: {0}",
        name="no-root",
    ),
    Sign(
        text=r"(?:You are in|Welcome to) (emergency|rescue) mode",
        means="the system stopped in {0} mode",
        name="emergency-mode",
    ),
    Sign(text=r"grub rescue>", means="GRUB did not find its own files", name="boot-loader"),
    Sign(
        text=r"error: (no such device: [^\n]*)",
        means="GRUB did not find its file system: {0}",
        name="boot-loader",
    ),
    Sign(
        text=r"error: ([^\n]*(?:vmlinuz|initr)[^\n]*)",
        means="GRUB could not load the kernel: {0}",
        name="boot-loader",
    ),
    Sign(text=r"No bootable device", means="the disk has no BIOS boot loader", name="boot-loader"),
    Sign(
        text=r"UEFI Interactive Shell|^Shell> ", means="the disk has no UEFI boot loader", name="boot-loader"
    ),
    Sign(text=r"Possible timer handling issue", means="the emulated clock stood still"),
    Sign(text=r"Out of memory: Killed process \d+ \(([^)]*)\)", means="memory ran out: {0}"),
    Sign(
        text=r"Failed to start \S*(?:ssh|sshd)\S*[^\n]*|Failed to start [^\n]*(?:Secure Shell|OpenSSH)[^\n]*",
        means="its SSH server failed to start",
    ),
    Sign(text=r"Timed out waiting for device ([^\n]*)", means="a device did not appear: {0}"),
    Sign(text=r"Failed to start ([^\n]*)", means="a unit failed to start: {0}"),
    Sign(text=r"login: ?$", means="it came up to a login prompt, but SSH lets nobody in"),
)

# Of each stage what is seen of it first. Later stages may be seen without earlier ones.
_STAGES: tuple[tuple[Stage, str], ...] = (
    ("firmware", r"SeaBIOS|BdsDxe|EDK II|iPXE"),
    ("boot loader", r"GNU GRUB|Welcome to GRUB|Booting `|Loading Linux|ISOLINUX|systemd-boot|grub rescue>"),
    ("kernel", r"Linux version \d|Command line: "),
    ("initramfs", r"Run /init as init process|Loading, please wait|Begin: |dracut|\(initramfs\)"),
    (
        "root mounted",
        r"EXT4-fs \([^)]*\): mounted|XFS \([^)]*\): Ending clean mount|BTRFS info[^\n]*(?:first mount|enabled)|"
        r"VFS: Mounted root|Run /sbin/init as init process",
    ),
    ("systemd", r"systemd\[1\]: |systemd \d+[^\n]* running in system mode|^Welcome to "),
    (
        "network",
        r"Finished [^\n]*(?:Wait for Network to be Configured|wait-online)|"
        r"ci-info: \|[^|\n]+\| *True *\| *(?!127\.)\d+\.\d+\.\d+\.\d+",
    ),
    ("sshd", r"Started [^\n]*(?:sshd?\.service|Secure Shell server|OpenSSH)|Server listening on"),
    (
        "cloud-init",
        r"Cloud-init v[^\n]* finished at|Reached target [^\n]*(?:cloud-init\.target|Cloud-init target)",
    ),
    ("login", r"^[\w.-]+ login: ?|Reached target [^\n]*(?:multi-user|Multi-User System)"),
)
_OVER = re.compile(r"Reached target [^\n]*(?:multi-user|Multi-User System)|Cloud-init v[^\n]* finished at")
_BOOT = re.compile(r"Linux version \d")
_SPINNER = re.compile(r"^\[[ *]+\] ")
_NUMBERS = re.compile(r"0x[0-9a-f]+|\b[0-9a-f]{8,}\b|\d+")
_JOB = re.compile(r"A start job is running for (.+?) \(|\] Job (\S+?)(?:/start|…\S*)? running \(")
_PROMPT = re.compile(r"^[\w.-]+ login: ?", re.MULTILINE)
_STOOD_STILL = re.compile(rb"rcu: [^\n]*Possible timer handling issue")


def stood_still(console: bytes) -> bool:
    """Whether the kernel misses its clock's ticks. On a busy builder QEMU's emulation at times loses one for good."""
    return _STOOD_STILL.search(console) is not None


def plain(console: bytes) -> str:
    """The console's text without what only moves a terminal's cursor."""
    return _ESCAPES.sub("", console.decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n"))


def last_boot(text: str) -> str:
    """What was said since the kernel started last."""
    starts = [found.start() for found in _BOOT.finditer(text)]
    return text[starts[-1] :] if starts else text


def stage_of(text: str) -> Stage:
    """How far the last boot came, as far as a console's text tells."""
    if not text.strip():
        return "nothing"
    boot = last_boot(text)
    for stage, pattern in reversed(_STAGES):
        if re.search(pattern, boot, re.MULTILINE):
            return stage
    return "firmware"


def is_over(text: str) -> bool:
    """Whether the last boot has started all that it starts."""
    return _OVER.search(last_boot(text)) is not None


def count_news(text: str) -> int:
    """How many different things the console has said; what only counts on, or turns, says nothing new."""
    lines = {_NUMBERS.sub("0", _SPINNER.sub("", line)).strip() for line in text.splitlines()}
    return len(lines - {""})


def count_boots(text: str) -> int:
    """How many times the kernel started since the last login prompt."""
    return len(_BOOT.findall(_PROMPT.split(text)[-1]))


def jobs(text: str) -> tuple[str, ...]:
    """What systemd says at the very end that its start waits for."""
    lines = [line for line in text.splitlines() if line.strip()][-6:]
    return tuple(dict.fromkeys(found[1] or found[2] for line in lines for found in _JOB.finditer(line)))


def sign_of(text: str, *, fatal_only: bool = False) -> tuple[Sign, str] | None:
    """The most telling sign on the console, with what it means in words."""
    boot = last_boot(text)
    for sign in SIGNS:
        found = re.search(sign.text, boot, re.MULTILINE)
        if found and (sign.fatal or not fatal_only):
            return sign, sign.means.format(*(group.strip() for group in found.groups()))
    return None


def diagnose(console: bytes, *, fatal_only: bool = False) -> str:
    """The most telling sign on the console, in words; "" where nothing is known to be wrong.

    `fatal_only` leaves out what a machine may recover from.
    """
    text = plain(console)
    if found := sign_of(text, fatal_only=fatal_only):
        return found[1]
    if fatal_only or text.strip():
        return ""
    return "its console stayed silent: no boot loader, or a kernel without `console=ttyS0`"


def last_line(console: bytes) -> str:
    """The last thing that the console said."""
    return next((line.strip() for line in reversed(plain(console).splitlines()) if line.strip()), "")
