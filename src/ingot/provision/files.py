"""Files: a file, a folder or a text of the project, copied to an absolute path of the machine.

What is sent is a tar stream over SSH's standard input. It is unpacked beside its destination and renamed into place
file by file, so that nobody on the machine ever sees half a file.
"""

from __future__ import annotations

import io
import os
import stat
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from ingot.errors import ProvisionError
from ingot.model.secret import Secret, reveal
from ingot.model.step import FilesStep
from ingot.ports import Cancel, Machine
from ingot.provision.log import StepLog
from ingot.system import process, ssh

# $1 destination, $2 owner, $3 group, $4 "file" or "folder". Folders that are there already keep what they are.
_RECEIVER = r"""
set -eu
umask 022
target=$1; owner=$2; group=$3; kind=$4
case $target in */) test "$kind" = folder || { echo "NEEDS-NAME" >&2; exit 91; };; esac
test "$kind" = folder -o ! -d "$target" -o -L "$target" || { echo "IS-FOLDER" >&2; exit 91; }
test "$kind" = file -o -d "$target" -o ! -e "$target" || { echo "IS-FILE" >&2; exit 91; }
getent passwd "$owner" >/dev/null || expr "$owner" : '[0-9][0-9]*$' >/dev/null || { echo "NO-OWNER" >&2; exit 91; }
getent group "$group" >/dev/null || expr "$group" : '[0-9][0-9]*$' >/dev/null || { echo "NO-GROUP" >&2; exit 91; }
if test "$kind" = folder; then mkdir -p "$target"; home=$target; else home=$(dirname "$target"); mkdir -p "$home"; fi
stage=$(mktemp -d "$home/.ingot.XXXXXX")
trap 'rm -rf "$stage"' EXIT
trap 'exit 143' HUP TERM INT
tar -x -p -f - -C "$stage"
chown -hR "$owner:$group" "$stage"
if test "$kind" = file; then mv -fT "$stage/file" "$target"; exit; fi
cd "$stage"
find . -mindepth 1 -type d | LC_ALL=C sort | while IFS= read -r folder; do
  test -d "$target/$folder" || { mkdir "$target/$folder"
    chown --reference="$folder" "$target/$folder"; chmod --reference="$folder" "$target/$folder"; }
done
find . -mindepth 1 ! -type d | while IFS= read -r file; do mv -fT "$file" "$target/$file"; done
"""


def apply(
    step: FilesStep,
    machine: Machine,
    *,
    root: Path,
    secrets: Mapping[str, Secret],
    log: StepLog,
    cancel: Cancel,
) -> None:
    """Copies. An existing file or link at the destination is replaced, a folder's content is merged into it.

    Raises ProvisionError: a destination that is not absolute, a source that can't be read, an owner who is unknown.
    """
    if not step.dest.startswith("/"):
        raise ProvisionError(
            f"the destination {step.dest!r} is not absolute", hint="write the whole path, such as `/etc/motd`"
        )
    source = None if step.text is not None else root / step.src
    if source and not source.exists():
        raise ProvisionError(
            f"the file {step.src!r} is not there", hint=f"`src` is relative to the project, {root}"
        )
    folder = source is not None and source.is_dir()
    dest = step.dest
    if source and dest.endswith("/") and not folder:
        dest += source.name
    with tempfile.TemporaryFile() as stream:
        if source is None:
            text: str = reveal(step.text, secrets)
            _pack_text(text.encode(), stream, mode=step.mode)
        else:
            _pack(source, stream, mode=step.mode)
        stream.seek(0)
        words = ["sh", "-c", _RECEIVER, "ingot", dest, step.owner, step.group, "folder" if folder else "file"]
        done = process.run(
            ssh.argv(machine.ssh, *words),
            stdin=stream,
            timeout=step.timeout,
            cancel=cancel,
            on_line=log.line,
            check=False,
        )
    if done.code:
        raise ProvisionError(
            explain(step, done, tail=tuple(log.tail)),
            hint=f"its whole output is in {log.path}",
            file=step.place.file,
            line=step.place.line,
            code=done.code,
        )


def explain(step: FilesStep, done: process.Completed, *, tail: tuple[str, ...]) -> str:
    """One sentence for a copy that failed."""
    said = done.tail[-1].strip() if done.tail else ""
    known = {
        "NEEDS-NAME": f"the text needs a file's name, but {step.dest!r} names a folder",
        "IS-FOLDER": f"{step.dest!r} is a folder on the machine; end `dest` with `/` to copy into it",
        "IS-FILE": f"a folder cannot be copied to {step.dest!r}: that is a file on the machine",
        "NO-OWNER": f"the machine has no user {step.owner!r}; make it in an earlier step",
        "NO-GROUP": f"the machine has no group {step.group!r}; make it in an earlier step",
    }
    if said in known:
        return known[said]
    if done.code == 255:
        return f"{step.dest!r} was not copied: the machine could not be reached, or was lost: {said}"
    return f"{step.dest!r} was not copied: {' '.join(tail[-1:]) or f'exit code {done.code}'}"


def _pack_text(data: bytes, stream: IO[bytes], *, mode: str) -> None:
    with tarfile.open(fileobj=stream, mode="w") as archive:
        info = tarfile.TarInfo("file")
        info.size, info.mode, info.mtime = len(data), int(mode or "0644", 8), int(time.time())
        archive.addfile(info, io.BytesIO(data))


def _pack(source: Path, stream: IO[bytes], *, mode: str) -> None:
    """Writes a tar stream of a file (named `file`) or of a folder's content. Links stay links, but for `source`."""
    with tarfile.open(fileobj=stream, mode="w") as archive:
        if not source.is_dir():
            _add(archive, source.resolve(), "file", mode=mode)
            return
        for path in _walk(source):
            _add(archive, path, str(path.relative_to(source)), mode=mode)


def _walk(folder: Path) -> Iterator[Path]:
    """Everything below the folder, parents first, by name. Hidden files count; `.git` does not."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name == ".git":
            continue
        yield Path(entry.path)
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path))


def _add(archive: tarfile.TarFile, path: Path, name: str, *, mode: str) -> None:
    try:
        kind = path.lstat().st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind) or stat.S_ISLNK(kind)):
            raise ProvisionError(
                f"{path} is neither a file, a folder nor a link", hint="take it out of the folder"
            )
        info = archive.gettarinfo(path, name)
        info.type = (
            tarfile.REGTYPE if info.islnk() else info.type
        )  # a second name of one file is sent as a file
        info.uid = info.gid = 0
        info.uname = info.gname = ""
        if mode and not stat.S_ISLNK(kind):
            wanted = int(mode, 8)
            # Whoever may read a file may enter its folder.
            info.mode = wanted | ((wanted & 0o444) >> 2) if info.isdir() else wanted
        if info.isreg():
            info.size = path.stat().st_size
            with path.open("rb") as file:
                archive.addfile(info, file)
        else:
            archive.addfile(info)
    except OSError as error:
        raise ProvisionError(
            f"{path} cannot be read: {error.strerror}", hint="files are read with your rights"
        ) from error
