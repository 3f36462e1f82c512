"""The system-call filter, run by a small interpreter: it means the same on every architecture."""

from __future__ import annotations

import errno
import struct

import pytest

from ingot.backends.local.confine import call_filter

ALLOW = "allow"
X86, I386, ARM64, ARM = 0xC000003E, 0x40000003, 0xC00000B7, 0x40000028
NEW_USER, NEW_PID, THREAD = 0x10000000, 0x20000000, 0x003D0F00


def judge(machine: str, arch: int, number: int, argument: int = 0) -> str | int:
    """What the filter says of a call: `allow`, or the error it gives."""
    data = struct.pack("=IIQ6Q", number, arch, 0, argument, 0, 0, 0, 0, 0)
    raw = call_filter(machine)
    program = [struct.unpack_from("=HBBI", raw, place) for place in range(0, len(raw), 8)]
    place = value = 0
    while True:
        code, yes, no, operand = program[place]
        place += 1
        match code:
            case 0x20:
                (value,) = struct.unpack_from("=I", data, operand)
            case 0x15:
                place += yes if value == operand else no
            case 0x35:
                place += yes if value >= operand else no
            case 0x45:
                place += yes if value & operand else no
            case 0x06:
                return ALLOW if operand == 0x7FFF0000 else operand & 0xFFFF
            case _:
                raise AssertionError(code)


@pytest.mark.parametrize(
    ("machine", "arch", "calls"),
    [
        ("x86_64", X86, {"keyctl": 250, "bpf": 321, "unshare": 272, "clone": 56, "read": 0}),
        ("x86_64", I386, {"keyctl": 288, "bpf": 357, "unshare": 310, "clone": 120, "read": 3}),
        ("aarch64", ARM64, {"keyctl": 219, "bpf": 280, "unshare": 97, "clone": 220, "read": 63}),
        ("aarch64", ARM, {"keyctl": 311, "bpf": 386, "unshare": 337, "clone": 120, "read": 3}),
    ],
)
def test_refuses_the_same_everywhere(machine: str, arch: int, calls: dict[str, int]) -> None:
    assert judge(machine, arch, calls["keyctl"]) == errno.EPERM
    assert judge(machine, arch, calls["bpf"]) == errno.EPERM
    assert judge(machine, arch, 435) == errno.ENOSYS
    for name in ("unshare", "clone"):
        assert judge(machine, arch, calls[name], NEW_USER | NEW_PID) == errno.EPERM
        assert judge(machine, arch, calls[name], THREAD) == ALLOW
    assert judge(machine, arch, calls["read"], NEW_USER) == ALLOW


@pytest.mark.parametrize(("machine", "foreign"), [("x86_64", ARM64), ("aarch64", X86)])
def test_refuses_unknown_abi_whole(machine: str, foreign: int) -> None:
    assert judge(machine, foreign, 0) == errno.ENOSYS


def test_refuses_x32() -> None:
    assert judge("x86_64", X86, 0x40000000) == errno.ENOSYS
