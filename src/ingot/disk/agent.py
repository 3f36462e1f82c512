"""What looks at the machine that it runs on, for `ingot.disk.machine`, which sends it there over SSH.

It answers one request in lines of JSON, decides nothing, and writes nothing to the machine's disk. With
`ingot.disk.search`, which is sent along, it needs nothing but Python's standard library, from 3.6 on.
"""

import base64
import json
import os
import pathlib
import re
import signal
import stat
import sys
import time
from typing import Any, Dict, Iterator, List, NamedTuple, Set, Tuple

from ingot.disk.search import WINDOW, Sought, Text, blocks, md5, sights

_READ = 4 * WINDOW
_BEAT = 5.0
"""Seconds between signs of life, which tell the agent whether anybody still listens."""


class Mount(NamedTuple):
    """A mount of this machine, and the whole disks below it, by their names in /sys; none where it has no disk."""

    point: bytes
    disks: Set[str]


def mounts() -> List[Mount]:
    """The mounts, root first, those above before those below."""
    found: Dict[bytes, Mount] = {}
    with open("/proc/self/mountinfo", "rb") as lines:
        for line in lines:
            before, _, after = line.partition(b" - ")
            point = _unescaped(before.split()[4])
            number = _device(before.split()[2].decode(), _unescaped(after.split()[1]))
            found[point] = Mount(point, disks_of(number))
    return sorted(found.values(), key=lambda mount: (mount.point.count(b"/"), len(mount.point), mount.point))


def _unescaped(text: bytes) -> bytes:
    return re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found.group(1), 8)]), text)


def _device(number: str, source: bytes) -> str:
    """major:minor of the device of a mount. Btrfs gives its mounts numbers that no device has."""
    try:
        about = os.stat(source)
    except OSError:
        return number
    if not number.startswith("0:") or not stat.S_ISBLK(about.st_mode):
        return number
    return "%d:%d" % (os.major(about.st_rdev), os.minor(about.st_rdev))


def disks_of(number: str) -> Set[str]:
    """The whole disks on which the device major:minor stands: a partition on one, a volume perhaps on several."""
    folder = os.path.realpath("/sys/dev/block/" + number)
    if not os.path.isdir(folder):
        return set()
    below = os.path.join(folder, "slaves")
    names = os.listdir(below) if os.path.isdir(below) else []
    if names:
        return {disk for name in names for disk in disks_of(_line(os.path.join(below, name, "dev")))}
    whole = os.path.dirname(folder) if os.path.exists(os.path.join(folder, "partition")) else folder
    return {os.path.basename(whole)}


def _line(path: str) -> str:
    with open(path) as file:
        return file.readline().strip()


def own_folders() -> Tuple[List[bytes], List[str]]:
    """Where the file systems of root's own disks are mounted, each once, and those disks."""
    mounted = mounts()
    own = next((mount.disks for mount in mounted if mount.point == b"/"), set())
    folders = {os.lstat(b"/").st_dev: b"/"}
    for mount in mounted:
        if mount.disks & own:
            try:
                folders.setdefault(os.lstat(mount.point).st_dev, mount.point)
            except OSError:
                continue
    return list(folders.values()), sorted(own)


def read_disk(file: int) -> Iterator[Tuple[int, bytes]]:
    """(offset, bytes) of an opened disk, which stay in no cache."""
    at = 0
    while True:
        data = os.pread(file, _READ, at)
        if not data:
            return
        for start in range(0, len(data), WINDOW):
            yield at + start, data[start : start + WINDOW]
        os.posix_fadvise(file, at, len(data), os.POSIX_FADV_DONTNEED)
        at += len(data)


def search(request: Dict[str, Any]) -> None:
    """Says each sight in the files of root's own disks, then where their blocks hold bare texts that no file holds."""
    texts = [
        Text(_bytes(text), re.compile(_bytes(anyof)) if anyof else None, bare)
        for text, anyof, bare in request["texts"]
    ]
    whole = [_bytes(text) for text in request["whole"]]
    sought = Sought(texts, request["behind"], request["ahead"], whole, request["named"], request["since"])
    beat = Beat()
    folders, disks = own_folders()
    left = {number for number, text in enumerate(texts) if text.bare}
    for sight in sights(folders, sought, check=beat):
        left.discard(sight.number if sight.kind == "text" else -1)
        _say(
            "sight",
            kind=sight.kind,
            path=_name(sight.path),
            number=sight.number,
            data=_text(sight.data),
            at=sight.at,
        )
    os.sync()
    for disk in disks:
        try:
            file = os.open("/dev/" + disk.replace("!", "/"), os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            _say("unread", disk=disk, why=os.strerror(error.errno or 0))
            continue
        for number, offset in blocks(read_disk(file), texts, left, beat):
            _say("block", disk=disk, number=number, offset=offset)
        os.close(file)
        _say("read", disk=disk)


def packages(request: Dict[str, Any]) -> None:
    """Says what dpkg recorded of the files of these names, and the checksums of these paths."""
    names = {_bytes(name) for name in request["names"]}
    info = pathlib.Path("/var/lib/dpkg/info")
    lists = sorted(info.glob("*.md5sums"))
    _say("dpkg", lists=any(path.stat().st_size for path in lists))
    for path in lists:
        with path.open("rb") as lines:
            for line in lines:
                if line[34:].rstrip(b"\n") in names:
                    _say("checksum", line=_text(line))
    status = pathlib.Path("/var/lib/dpkg/status")
    if lists and status.exists():
        with status.open("rb") as lines:
            for line in lines:
                if line.startswith(b" /") and line.split()[0][1:] in names:
                    _say("conffile", line=_text(line))
    for name in request["paths"]:
        _say("digest", path=name, md5=md5(name.encode("utf-8", "surrogateescape")) if lists else None)


def listing(request: Dict[str, Any]) -> None:
    """Says what stands at these patterns (of pathlib, relative to the root) on root's own disks; what some hold, too."""
    own = {os.lstat(folder).st_dev for folder in own_folders()[0]}
    for pattern in request["patterns"]:
        for path in sorted(pathlib.Path("/").glob(os.fsdecode(pattern.encode("utf-8", "surrogateescape")))):
            try:
                about = path.lstat()
                if about.st_dev not in own:
                    continue
                kind, size, to, data = _kind(about), about.st_size, "", b""
                if stat.S_ISLNK(about.st_mode):
                    to = _kind(path.stat()) if path.exists() else "nothing"
                elif str(path)[1:] in request["contents"]:
                    data = path.read_bytes()
            except FileNotFoundError:
                continue
            _say("entry", path=_name(os.fsencode(str(path))), kind=kind, to=to, size=size, data=_text(data))


def _kind(about: os.stat_result) -> str:
    if stat.S_ISDIR(about.st_mode):
        return "folder"
    return "link" if stat.S_ISLNK(about.st_mode) else "file"


class Beat:
    """A sign of life now and then. Where nobody listens any more it ends the agent."""

    def __init__(self) -> None:
        self._next = time.monotonic() + _BEAT

    def __call__(self) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _BEAT
            _say("alive")


def _say(say: str, **words: Any) -> None:
    sys.stdout.write(json.dumps(dict(words, say=say)) + "\n")
    sys.stdout.flush()


def _name(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def main() -> None:
    """Answers the request on standard input. The last line says that all was said."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    request = json.loads(sys.stdin.buffer.read().decode("ascii"))
    {"search": search, "packages": packages, "listing": listing}[request["do"]](request)
    _say("done")
