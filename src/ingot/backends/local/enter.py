"""Runs a program of a chroot machine inside it: `enter <pid> <inode of its pid namespace> <program> <words>…`.

The other end of an SSH ProxyCommand: standard input and output are the connection. What the machine may not do is
settled before anything of the machine's own is executed. Standard library only, for it runs at each connection.
"""

from __future__ import annotations

import os
import resource
import signal

from ingot.backends.local import confine, kernel

# The pid namespace first: it takes effect on the child, and only the child enters the others, so that this
# process holds none of the machine's mounts.
_SPACES = (
    # The user namespace last: it gives up what entering the others needs.
    ("ipc", kernel.NEW_IPC), ("uts", kernel.NEW_UTS), ("net", kernel.NEW_NET), ("cgroup", kernel.NEW_CGROUP),
    ("mnt", kernel.NEW_NAMESPACE), ("user", kernel.NEW_USER),
)  # fmt: skip
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def main(words: list[str]) -> int:
    """The program's exit code; 255 if the machine is not there any more."""
    pid, inode, *argv = words
    try:
        folder = os.open(f"/proc/{pid}/ns", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        spaces = {name: os.open(name, os.O_RDONLY, dir_fd=folder) for name, _ in (*_SPACES, ("pid", 0))}
    except (FileNotFoundError, ProcessLookupError):
        return 255
    if os.fstat(spaces["pid"]).st_ino != int(inode):
        return 255
    own = os.stat("/proc/self/ns/user").st_ino  # noqa: PTH116 - pathlib would cost a good part of the start
    if os.fstat(spaces["user"]).st_ino == own:
        del spaces["user"]  # a chroot machine's is ours, and one's own cannot be entered
    kernel.enter(spaces["pid"], kernel.NEW_PID)
    # Not readable through /proc from the first moment inside on.
    kernel.hide("ingot-enter")
    child = os.fork()
    if not child:
        try:
            _become(spaces, argv)
        finally:
            os._exit(127)
    for number in (0, 1):
        os.close(number)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
    # ssh hangs up on us when the connection ends. Were we gone before our child, the machine could not end until the
    # builder's own process 1 has looked after it, a second or two later on some.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _become(spaces: dict[str, int], argv: list[str]) -> None:
    program = confine.call_filter()
    for name, kind in _SPACES:
        if name in spaces:
            kernel.enter(spaces[name], kind)
    if "user" in spaces:
        kernel.become_root()
    os.setsid()
    os.chdir("/")
    kernel.new_keyring()
    kernel.bound_capabilities(confine.KEPT)
    null = os.open("/dev/null", os.O_RDWR)
    # Our own standard error may be a person's terminal.
    os.dup2(null, 2)
    os.closerange(3, 65536)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    kernel.set_filter(program)
    os.execve(argv[0], argv, {"PATH": _PATH, "LANG": "C.UTF-8"})
