"""What a process on a chroot machine may do: its capabilities and the system calls it is refused.

The capabilities are those with which distributions' packages install (container engines grant about the same),
plus what PAM limits and `chattr` need. Without SYS_ADMIN nothing can be mounted, without SYS_PTRACE nothing of
a process with more rights (the machine's init, a login on its way in) can be opened through /proc.

The system-call filter closes what capabilities and namespaces leave open to a process whose user is the
builder's root: kernel keyrings, which are one per user, BPF, performance events, and new user namespaces, in
which it would have every capability again. Standard library only.
"""

from __future__ import annotations

import errno
import os
import struct

CAPABILITIES = {
    "CHOWN": 0, "DAC_OVERRIDE": 1, "FOWNER": 3, "FSETID": 4, "KILL": 5, "SETGID": 6, "SETUID": 7, "SETPCAP": 8,
    "LINUX_IMMUTABLE": 9, "NET_BIND_SERVICE": 10, "NET_RAW": 13, "IPC_LOCK": 14, "IPC_OWNER": 15,
    "SYS_CHROOT": 18, "SYS_RESOURCE": 24, "LEASE": 28, "AUDIT_WRITE": 29, "SETFCAP": 31,
}  # fmt: skip
"""What is kept, by number (linux/capability.h). DAC_READ_SEARCH is not: it opens files by handle, mounts or no."""

KEPT = frozenset(CAPABILITIES.values())

# System calls by architecture as the kernel's audit knows it: (refused outright, unshare, clone, clone3).
# `linux/audit.h`; asm/unistd_64.h, asm/unistd_32.h, asm-generic/unistd.h. Refused: add_key, request_key, keyctl,
# bpf, perf_event_open, open_by_handle_at, kexec_load, kexec_file_load.
_Calls = tuple[tuple[int, ...], int, int, int]

_CALLS: dict[str, dict[int, _Calls]] = {
    "x86_64": {
        0xC000003E: ((248, 249, 250, 321, 298, 304, 246, 320), 272, 56, 435),
        0x40000003: ((286, 287, 288, 357, 336, 342, 283), 310, 120, 435),
    },
    "aarch64": {
        0xC00000B7: ((217, 218, 219, 280, 241, 265, 104, 294), 97, 220, 435),
        0x40000028: ((309, 310, 311, 386, 364, 371, 347, 401), 337, 120, 435),
    },
}
_X32 = 0x40000000
_NEW_USER = 0x10000000

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000
_NUMBER, _ARCH, _ARGUMENT = 0, 4, 16


def _line(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("=HBBI", code, yes, no, value)


def _refuse(number: int) -> bytes:
    return _line(_RETURN, _REFUSE | number)


def call_filter(machine: str | None = None) -> bytes:
    """The filter as `struct sock_filter`s for a kernel of this architecture; an unknown call ABI is refused whole."""
    program = [_line(_LOAD, _ARCH)]
    for arch, calls in _CALLS[machine or os.uname().machine].items():
        block = _block(calls, x32=arch == 0xC000003E)
        program += [_line(_EQUAL, arch, 0, len(block)), *block]
    return b"".join([*program, _refuse(errno.ENOSYS)])


def _block(calls: _Calls, *, x32: bool) -> list[bytes]:
    refused, unshare, clone, clone3 = calls
    lines = [_line(_LOAD, _NUMBER)]
    if x32:
        # The x32 ABI numbers the same calls otherwise; nothing in Debian uses it.
        lines += [_line(_AT_LEAST, _X32, 0, 1), _refuse(errno.ENOSYS)]
    for number in refused:
        lines += [_line(_EQUAL, number, 0, 1), _refuse(errno.EPERM)]
    # clone3 hides its flags behind a pointer: libc falls back to clone where it is not there.
    lines += [_line(_EQUAL, clone3, 0, 1), _refuse(errno.ENOSYS)]
    for number in (unshare, clone):
        lines += [
            _line(_EQUAL, number, 0, 3),
            _line(_LOAD, _ARGUMENT),
            _line(_ANY_BIT, _NEW_USER, 0, 1),
            _refuse(errno.EPERM),
            _line(_LOAD, _NUMBER),
        ]
    return [*lines, _line(_RETURN, _ALLOW)]
