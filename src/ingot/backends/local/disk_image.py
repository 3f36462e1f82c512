"""A base that is a cloud image: fetched once, checked, made a disk of the wanted size."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit

from ingot.backends.local import chain, grow, holder
from ingot.errors import BackendError
from ingot.model.definition import DiskImageBase
from ingot.model.events import Emit, Progress
from ingot.model.plan import Base
from ingot.model.units import Seconds, format_bytes
from ingot.ports import Cancel
from ingot.system import files, process

_CHUNK = 2**20
_PATIENCE = Seconds(60.0)
_ATTEMPTS = 4
_FOREIGN = {
    b"\xfd7zXZ\x00": ("xz", "`xz -d`"),
    b"\x1f\x8b": ("gzip", "`gunzip`"),
    b"\x28\xb5\x2f\xfd": ("zstd", "`zstd -d`"),
    b"BZh": ("bzip2", "`bunzip2`"),
    b"KDMV": ("vmdk", "`qemu-img convert -O qcow2`"),
    b"conectix": ("vhd", "`qemu-img convert -f vpc -O qcow2`"),
    b"vhdxfile": ("vhdx", "`qemu-img convert -O qcow2`"),
}


def fetch(source: DiskImageBase, *, root: Path, cache: Path, emit: Emit, cancel: Cancel) -> Path:
    """The image's file on this computer: the project's own, or the cache's, each with the wanted checksum.

    Raises BackendError for a file that is not there, a server that does not answer, or another checksum.
    """
    parts = urlsplit(source.url)
    wanted = source.sha256.removeprefix("sha256:").lower()
    if parts.scheme in ("http", "https"):
        return _fetch_url(source.url, wanted, cache, emit, cancel)
    path = Path(unquote(parts.path)) if parts.scheme == "file" else root / source.url
    if not path.is_file():
        raise BackendError(f"the image {source.url!r} is not there", hint=f"it was looked for at {path}")
    if wanted:
        _refuse_other(source.url, wanted, _sha256(path, cancel))
    return path


def _fetch_url(url: str, wanted: str, cache: Path, emit: Emit, cancel: Cancel) -> Path:
    if not wanted:
        raise BackendError(f"the image {url} has no checksum", hint="give its `sha256:` beside the URL")
    kept = cache / wanted
    if kept.is_file():
        if _sha256(kept, cancel) == wanted:
            return kept
        kept.unlink()
    cache.mkdir(parents=True, exist_ok=True)
    part = cache / f"{wanted}.{os.getpid()}.part"
    try:
        with part.open("wb") as file:
            found = _download(url, file, emit, cancel)
            os.fsync(file.fileno())
        _refuse_other(url, wanted, found)
        part.rename(kept)
        files.sync_folder(cache)
    except OSError as error:
        raise BackendError(
            f"the image {url} could not be kept: {error.strerror}", hint="free some disk space"
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return kept


def _download(url: str, file: IO[bytes], emit: Emit, cancel: Cancel) -> str:
    """Streams a URL into a file, going on where a connection broke; returns the SHA-256 of all."""
    digest = hashlib.sha256()
    done = 0
    for attempt in range(_ATTEMPTS):
        request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
        try:
            with urllib.request.urlopen(request, timeout=_PATIENCE) as answer:
                if done and answer.status != 206:
                    file.seek(0)
                    file.truncate()
                    digest, done = hashlib.sha256(), 0
                total = done + int(answer.headers.get("Content-Length") or 0)
                while data := answer.read(_CHUNK):
                    cancel.check()
                    file.write(data)
                    digest.update(data)
                    done += len(data)
                    emit(Progress(what=f"downloading {url}", done=done, total=total, unit="B"))
                if done < total:
                    raise http.client.IncompleteRead(b"", total - done)
                return digest.hexdigest()
        except urllib.error.HTTPError as error:
            reason = f"{error.code} {error.reason}"
            error.close()
            if error.code < 500 or attempt + 1 == _ATTEMPTS:
                raise _not_fetched(url, reason) from error
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            if attempt + 1 == _ATTEMPTS or (not done and attempt):
                raise _not_fetched(url, str(getattr(error, "reason", error))) from error
        cancel.wait(Seconds(0.5 * 2**attempt))
        cancel.check()
    raise _not_fetched(url, "the connection broke again and again")


def _not_fetched(url: str, reason: str) -> BackendError:
    return BackendError(
        f"the image {url} could not be fetched: {reason}", hint="check the URL, the network and `https_proxy`"
    )


def _refuse_other(name: str, wanted: str, found: str) -> None:
    if found != wanted:
        raise BackendError(
            f"the image {name} has the SHA-256 {found}, but {wanted} was asked for",
            hint="if the new one is the one you mean, write its checksum (or run `ingot lock --update`)",
        )


def _sha256(path: Path, cancel: Cancel) -> str:
    cancel.check()
    return files.file_digest(path).removeprefix("sha256:")


def detect_format(path: Path) -> str:
    """`qcow2` or `raw`. Raises BackendError for what is neither, and for a qcow2 file that points to other files."""
    with path.open("rb") as file:
        head = file.read(4096)
        size = os.fstat(file.fileno()).st_size
    if head[:4] == b"QFI\xfb":
        chain.refuse_foreign(path)
        return "qcow2"
    for magic, (kind, remedy) in _FOREIGN.items():
        if head.startswith(magic):
            raise BackendError(
                f"the image {path} is a {kind} file, not a qcow2 or raw disk", hint=f"first {remedy}"
            )
    if size % 512 or head[510:512] != b"\x55\xaa":
        raise BackendError(
            f"the image {path} is neither qcow2 nor a raw disk with a partition table",
            hint="`qemu-img info` and `file` tell what it is",
        )
    return "raw"


def build(image: Path, base: Base, disk: Path, *, folder: Path, cancel: Cancel) -> None:
    """Writes the image as a flat qcow2 disk of the base's size; partition and file system grow with it, given root."""
    kind = detect_format(image)
    argv = ["qemu-img", "convert", "-q", "-f", kind, "-O", "qcow2", str(image.absolute()), str(disk)]
    process.run(argv, timeout=Seconds(3600.0), cancel=cancel)
    size = chain.read_header(disk).size
    if size > base.disk:
        raise BackendError(
            f"the image of the base {base.name!r} is a disk of {format_bytes(size)}, larger than the "
            f"{format_bytes(base.disk)} of the target",
            hint=f"set `disk:` to {format_bytes(size)} or more; disks are never made smaller",
        )
    if size < base.disk:
        process.run(["qemu-img", "resize", "-q", "-f", "qcow2", str(disk), str(base.disk)], timeout=_PATIENCE)
    if os.geteuid() == 0:
        _fit(disk, folder, cancel=cancel, grow_it=size < base.disk)


def _fit(disk: Path, folder: Path, *, cancel: Cancel, grow_it: bool) -> None:
    """Grows the root file system to the disk's end, and refuses a disk on which no system is."""
    with holder.hold(folder / "hold") as held:
        held.export([disk], writable=True, cancel=cancel)
        if grow_it:
            grow.grow_partition(held, [disk], cancel=cancel)
        held.mount()
        if grow_it:
            grow.grow_file_system(held)
        if held.read("/etc/os-release", "/usr/lib/os-release") == [None, None]:
            raise BackendError(
                "the image's largest Linux file system holds no system: it has no /etc/os-release",
                hint="use an image of a whole disk, such as a distribution's cloud image",
            )
        held.unmount(trim=False)
        held.unexport()
