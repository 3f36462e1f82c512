"""Looks at a running machine that only SSH reaches: the leak scan, and what stands at some of its paths.

The machine needs a Python 3.6 and nothing of Ingot. What runs there (`agent`) is sent over standard input with the
request, for secrets may be seen neither among its arguments nor in its environment; nothing is written to its disk.
The agent decides nothing: what it sees is judged here, as `leaks` judges a disk that is mounted here.
"""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from ingot.disk.leaks import Claim, Judge, place
from ingot.disk.packaged import Packaged, brought_as, names
from ingot.disk.search import Sight
from ingot.errors import DeadlineError, ProvisionError
from ingot.model.units import Seconds
from ingot.ports import Cancel, Finding, Needle, SshAccess
from ingot.system import ssh

_MODULES = ("search", "agent")
_PYTHON = """
for python in python3 /usr/libexec/platform-python; do
  command -v "$python" >/dev/null && exec "$python" -IBS -c "$1"
done
echo "there is no Python 3" >&2
exit 127
"""
"""Red Hat's 8 keeps its own Python aside. -B: importing may write compiled files beside what is imported."""
_START = """
import json, sys, types
for name, text in json.loads(sys.stdin.buffer.readline().decode("ascii")):
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(text, name, "exec"), vars(module))
module.main()
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class MachineScan:
    """What was found on a machine, and which of its disks were read for it."""

    found: tuple[Finding, ...]
    disks: tuple[str, ...]
    """Disks whose blocks were read, all of them, by their names in /dev."""
    unread: tuple[str, ...]
    """Why blocks were not read, a sentence each; what was deleted may still be in them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """Something at an absolute path: its kind, and for a link that of where it leads, or "nothing"."""

    path: str
    kind: str
    to: str
    size: int
    data: bytes
    """What a file holds, where that was asked for."""


def scan_machine(
    access: SshAccess,
    needles: Sequence[Needle],
    *,
    since: int | None = None,
    cancel: Cancel,
    timeout: Seconds,
) -> MachineScan:
    """Leaks on the disks that hold the machine's root: in files as `leaks.scan_tree` does, and needles in raw blocks.

    Read are the file systems of those disks, as far as they are mounted and nothing is mounted over them, and then
    the disks whole where the machine has device nodes for them. A needle in a raw block is told where no file holds it.
    `timeout` is for both. Raises ProvisionError where the machine was lost or could not be looked at to the end.
    """
    judge = Judge(needles, set())
    scan = _Scan(judge)
    _ask(access, _request(judge, since), scan.hear, mask=judge.masked, cancel=cancel, timeout=timeout)
    records = _records(access, scan.paths(), cancel=cancel, timeout=timeout)
    packaged = Packaged(records)
    found = [
        claim.finding for claim in scan.claims if not (claim.exempt_if_packaged and claim.path in packaged)
    ]
    unread = scan.unread or ([] if scan.disks else ["no disk of the machine is known to hold its root"])
    return MachineScan(found=(*found, *scan.blocks), disks=tuple(scan.disks), unread=tuple(unread))


def list_paths(
    access: SshAccess,
    patterns: Iterable[str],
    *,
    contents: Sequence[str] = (),
    cancel: Cancel,
    timeout: Seconds,
) -> tuple[Entry, ...]:
    """What stands at these paths on the machine's own disks, with the bytes of the files at `contents`.

    Patterns are pathlib's, relative to the root. What is mounted from elsewhere (a /tmp in memory) is left out.
    """
    found: list[Entry] = []

    def hear(words: Mapping[str, Any]) -> None:
        data = base64.b64decode(words["data"])
        found.append(
            Entry(path=words["path"], kind=words["kind"], to=words["to"], size=words["size"], data=data)
        )

    request = {"do": "listing", "patterns": list(patterns), "contents": list(contents)}
    _ask(access, request, hear, cancel=cancel, timeout=timeout)
    return tuple(found)


class _Scan:
    """Hears what the agent says of a search."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self.claims: list[Claim] = []
        self.blocks: list[Finding] = []
        self.disks: list[str] = []
        self.unread: list[str] = []

    def hear(self, words: Mapping[str, Any]) -> None:
        match words["say"]:
            case "sight":
                path = words["path"].encode("utf-8", "surrogateescape")
                data = base64.b64decode(words["data"])
                claim = self._judge.claim(Sight(words["kind"], path, words["number"], data, words["at"]))
                self.claims += [claim] if claim else []
            case "block":
                what = self._judge.literals[words["number"]].what
                self.blocks.append(Finding(what=what, where=place(words["offset"])))
            case "read":
                self.disks.append(words["disk"])
            case "unread":
                self.unread.append(f"the disk {words['disk']} cannot be read there: {words['why']}")

    def paths(self) -> set[str]:
        """The files whose packages decide."""
        return {claim.path for claim in self.claims if claim.exempt_if_packaged}


def _request(judge: Judge, since: int | None) -> dict[str, Any]:
    sought = judge.sought(since)
    return {
        "do": "search",
        "texts": [
            (_text(text.text), _text(text.anyof.pattern) if text.anyof else "", text.bare)
            for text in sought.texts
        ],
        "behind": sought.behind,
        "ahead": sought.ahead,
        "whole": [_text(text) for text in sought.whole],
        "named": sought.named,
        "since": sought.since,
    }


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


@dataclass(kw_only=True, slots=True)
class _Told:
    """A machine's `packaged.Records`, of the paths that were asked for alone."""

    has_dpkg: bool = False
    checksums: bytes = b""
    conffiles: bytes = b""
    digests: dict[str, str | None] = field(default_factory=dict)

    def digest(self, path: str) -> str | None:
        return self.digests[path]

    def hear(self, words: Mapping[str, Any]) -> None:
        match words["say"]:
            case "dpkg":
                self.has_dpkg = words["lists"]
            case "checksum":
                self.checksums += base64.b64decode(words["line"])
            case "conffile":
                self.conffiles += base64.b64decode(words["line"])
            case "digest":
                self.digests[words["path"]] = words["md5"]


def _records(access: SshAccess, paths: Iterable[str], *, cancel: Cancel, timeout: Seconds) -> _Told:
    told = _Told()
    brought = sorted({brought_as(path) for path in paths})
    if brought:
        listed = sorted({name for path in brought for name in names(path)})
        request = {"do": "packages", "paths": brought, "names": [_text(name) for name in listed]}
        _ask(access, request, told.hear, cancel=cancel, timeout=timeout)
    return told


def _ask(
    access: SshAccess,
    request: Mapping[str, Any],
    hear: Callable[[Mapping[str, Any]], None],
    *,
    mask: Callable[[str], str] = str,
    cancel: Cancel,
    timeout: Seconds,
) -> None:
    """Sends the agent with a request, and hears its answers one by one. None of them is kept or logged."""
    said: list[str] = []
    complete = False

    def on_line(stream: str, line: str) -> None:
        nonlocal complete
        words = _answer(line) if stream == "stdout" else {}
        if words and words["say"] == "done":
            complete = True
        elif words and words["say"] != "alive":
            hear(words)
        elif stream == "stderr":
            said.append(line)

    texts = [(f"ingot.disk.{name}", _source(name)) for name in _MODULES]
    text = f"{json.dumps(texts)}\n{json.dumps(request)}".encode()
    try:
        code = ssh.run(
            access,
            ["sh", "-c", _PYTHON, "sh", _START],
            timeout=timeout,
            cancel=cancel,
            input=text,
            on_line=on_line,
            kept=False,
            check=False,
        ).code
    except DeadlineError as error:
        raise DeadlineError(
            f"the machine {access.host} could not be looked at within {timeout:.0f} s",
            hint="its disk may be slow at first, or large; give the scan more time",
        ) from error
    if code or not complete:
        raise _failure(access, code, [mask(line) for line in said])


def _answer(line: str) -> dict[str, Any]:
    """The agent's answer; {} for what a login shell's own files print."""
    with contextlib.suppress(ValueError):
        words = json.loads(line)
        if isinstance(words, dict) and "say" in words:
            return words
    return {}


def _source(name: str) -> str:
    return resources.files("ingot.disk").joinpath(f"{name}.py").read_text()


def _failure(access: SshAccess, code: int, said: Sequence[str]) -> ProvisionError:
    last = next((line.strip() for line in reversed(said) if line.strip()), f"exit code {code}")
    if code == 255:
        return ProvisionError(
            f"the machine {access.host} was lost while its disk was looked at: {last}",
            hint="see whether it still runs, and build again",
        )
    if code == 127:
        return ProvisionError(
            f"the machine {access.host} cannot be searched for leaks: {last}",
            hint="install python3 in one of the image's steps: what searches the disk runs on it",
        )
    return ProvisionError(
        f"the machine {access.host} was not looked at to the end: {last}",
        hint="nothing is known of what its disk holds; build again, and tell us if it stays so",
        tail=tuple(said),
    )
