"""The few system calls that namespaces need and Python 3.11 lacks. Standard library only: the worker imports it.

Every function raises OSError as the kernel gave it.
"""

# Without pathlib, whose imports would cost a good part of the start-up time.
# ruff: noqa: PTH123

from __future__ import annotations

import _socket  # the module around it costs 20 ms of start-up
import ctypes
import errno
import fcntl
import os
import struct

NEW_NAMESPACE = 0x00020000
NEW_CGROUP = 0x02000000
NEW_UTS = 0x04000000
NEW_IPC = 0x08000000
NEW_USER = 0x10000000
NEW_PID = 0x20000000
NEW_NET = 0x40000000

READ_ONLY, NO_SUID, NO_DEV, NO_EXEC, REMOUNT, NO_ATIME, BIND, RECURSIVE, PRIVATE, SHARED = (
    0x1, 0x2, 0x4, 0x8, 0x20, 0x400, 0x1000, 0x4000, 0x40000, 0x100000,
)  # fmt: skip
DETACH = 0x2

_SET_NAME, _SET_DUMPABLE, _DROP_BOUND, _AMBIENT, _SET_SECCOMP = 15, 4, 24, 47, 22
_TRIM = 0xC0185879  # FITRIM, linux/fs.h

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_libc.prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)

_MACHINE = os.uname().machine
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}.get(_MACHINE, -1)
_KEYCTL = {"x86_64": 250, "aarch64": 219}.get(_MACHINE, -1)


def _checked(result: int, what: str = "") -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what or None)


def unshare(flags: int) -> None:
    """New namespaces for this thread (a new pid namespace for its children)."""
    _checked(_libc.unshare(flags))


def enter(namespace: int, kind: int) -> None:
    """This thread enters the namespace of an open `/proc/<pid>/ns/<name>` (for pid: its children do)."""
    _checked(_libc.setns(namespace, kind))


def become_root() -> None:
    """This process becomes the root of the user namespace that it has entered."""
    os.setgroups([])
    os.setgid(0)
    os.setuid(0)


def mount(source: str, target: str, kind: str = "", *, flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    _checked(
        _libc.mount(source.encode(), target.encode(), kind.encode() or None, flags, data.encode() or None),
        target,
    )


def unmount(target: str, *, flags: int = 0) -> None:
    """umount2(2)."""
    _checked(_libc.umount2(target.encode(), flags), target)


def change_root(folder: str) -> None:
    """Makes a mount point the root of this mount namespace, with nothing of the old root left to go back to."""
    os.chdir(folder)
    # pivot_root(".", ".") stacks the old root on the new one: pivot_root(2), NOTES.
    _checked(_libc.syscall(_PIVOT_ROOT, b".", b"."), folder)
    unmount(".", flags=DETACH)
    os.chdir("/")


def hide(name: str) -> None:
    """Gives this process a name and closes its `/proc` entry to whoever may not trace everything."""
    _libc.prctl(_SET_NAME, ctypes.cast(ctypes.c_char_p(name.encode()), ctypes.c_void_p).value or 0, 0, 0, 0)
    _checked(_libc.prctl(_SET_DUMPABLE, 0, 0, 0, 0))


def bound_capabilities(kept: frozenset[int]) -> None:
    """From the next exec on this process and its children can have `kept` at most."""
    with open("/proc/sys/kernel/cap_last_cap") as file:
        last = int(file.read())
    _checked(_libc.prctl(_AMBIENT, 4, 0, 0, 0))  # PR_CAP_AMBIENT_CLEAR_ALL
    for number in range(last + 1):
        if number not in kept:
            _checked(_libc.prctl(_DROP_BOUND, number, 0, 0, 0))
    _drop_inheritable()


def _drop_inheritable() -> None:
    header = struct.pack("=Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this thread
    sets = ctypes.create_string_buffer(24)
    _checked(_libc.capget(header, sets))
    words = list(struct.unpack("=6I", sets.raw))
    words[2] = words[5] = 0
    _checked(_libc.capset(header, struct.pack("=6I", *words)))


def new_keyring() -> None:
    """A session keyring of its own, so that the caller's is not inherited."""
    _libc.syscall(
        _KEYCTL, 1, None
    )  # KEYCTL_JOIN_SESSION_KEYRING; a kernel without keyrings has none to inherit


def set_filter(program: bytes) -> None:
    """Installs a seccomp filter (an array of `struct sock_filter`) for this process and its children."""
    code = ctypes.create_string_buffer(program, len(program))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    whole = Program(len(program) // 8, ctypes.addressof(code))
    _checked(_libc.prctl(_SET_SECCOMP, 2, ctypes.addressof(whole), 0, 0))


def sync(folder: int) -> None:
    """Writes the file system of an open folder out. Raises where a write was lost since the folder was opened."""
    _checked(_libc.syncfs(folder))


def loop_device(file: int, start: int, size: int) -> tuple[int, str]:
    """A loop device on a part of an open file: (its descriptor, its path). It is let go of with the last descriptor."""
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        while True:
            path = f"/dev/loop{fcntl.ioctl(control, 0x4C82)}"  # LOOP_CTL_GET_FREE
            device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            # struct loop_config with LO_FLAGS_AUTOCLEAR: linux/loop.h.
            config = struct.pack("=II3QQQ4I160x2Q64x", file, 0, 0, 0, 0, start, size, 0, 0, 0, 4, 0, 0)
            try:
                fcntl.ioctl(device, 0x4C0A, config)  # LOOP_CONFIGURE
            except OSError as error:
                os.close(device)
                if error.errno != errno.EBUSY:  # else somebody else took it first
                    raise
            else:
                return device, path
    finally:
        os.close(control)


def trim(folder: int) -> None:
    """Discards the free blocks of a file system, as far as it does not know that they are discarded already."""
    fcntl.ioctl(folder, _TRIM, struct.pack("=QQQ", 0, 2**63, 0))


def raise_loopback() -> None:
    """Brings `lo` up in this network namespace."""
    any_socket = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    # SIOCSIFFLAGS with IFF_UP | IFF_RUNNING: netdevice(7).
    fcntl.ioctl(any_socket.fileno(), 0x8914, struct.pack("16sh14x", b"lo", 0x1 | 0x40))
    any_socket.close()


def set_hostname(name: str) -> None:
    """The name of this UTS namespace's machine."""
    _socket.sethostname(name)
