"""Layers that computers share: files at any address that fsspec knows, each with a signed record.

Below the address, with keys and contents as hexadecimal digits:

    <key>/<content>.json             the record and its signature, in one file
    <key>/<content>.<checksum>.zst   the layer's bytes, packed by zstd

A layer is there once its record is, and that is written last: what a killed push leaves is found by nobody. The record
says all that whoever takes the layer has to believe, its key and its parent's content too, so that a signature is good
for one layer alone. Nothing is believed, and no byte unpacked, before `ssh-keygen -Y verify` has found a signer who is
allowed; each file is compared with its signed checksum before it is used.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ingot.errors import BackendError, DeadlineError, IngotError, RefusedError
from ingot.model.digest import Digest, canonical, plain, short
from ingot.model.events import Emit, Progress, Warned
from ingot.model.plan import ContentId, LayerKey, content_id
from ingot.model.units import Bytes, Seconds
from ingot.ports import Cancel, Parcel
from ingot.system import process

SCHEMA = 1
NAMESPACE = "ingot-layer"
_CHUNK = 4 * 2**20
_LARGEST_RECORD = 2**20
_QUICK, _LONG = Seconds(120.0), Seconds(6 * 3600.0)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_RENAMES = ("file", "local", "sftp", "ssh", "ftp", "smb", "webhdfs", "hdfs", "arrow_hdfs")
"""Where a file shows up while it is written, and is renamed for nothing: it gets its name when it is whole."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Signed:
    """A record that somebody allowed has signed: the layer, and the file that holds it, packed."""

    parcel: Parcel
    data: Digest
    packed: Bytes


class RemoteLayers:
    """Implements `ports.LayerCache`. For several threads."""

    def __init__(self, url: str, *, signers: Path, key: Path | None = None) -> None:
        self.url = url
        self._signers = signers
        self._key = key
        self._giving = threading.Lock()  # two images of one run would send the layers that they share twice
        self._opened: tuple[Any, str] | None = None

    @property
    def gives(self) -> bool:
        """Whether there is a key to sign with."""
        return self._key is not None

    def find(
        self, keys: Sequence[LayerKey], *, kind: str, standing: Sequence[ContentId | None], emit: Emit
    ) -> tuple[Parcel, ...]:
        """The chain to the deepest layer that is offered. One listing, and a record for each layer of the chain."""
        there = set(self._names(""))
        for top in range(len(keys) - 1, len(standing) - 1, -1):
            if _hex(keys[top]) not in there:
                continue
            for parcel in self._offers(keys[top], kind, emit):
                chain = self._chain(parcel, keys[:top], kind=kind, standing=standing, emit=emit)
                if chain:
                    return chain
        return ()

    def has(self, key: LayerKey, content: ContentId) -> bool:
        """Whether its record is there, and signed by somebody allowed."""
        try:
            return self._read(key, content) is not None
        except RefusedError:
            return False

    def take(self, parcel: Parcel, folder: Path, *, subject: str, emit: Emit, cancel: Cancel) -> Path:
        """Fetches and unpacks a layer. Raises RefusedError where a byte differs from what was signed."""
        signed = self._read(parcel.key, parcel.content)
        if signed is None or signed.parcel != parcel:
            raise RefusedError("its record was removed or replaced meanwhile")
        packed, file = folder / "layer.zst", folder / "layer"
        name = _data_name(parcel, signed.data)
        with _told(f"{name} could not be read"):
            fs, root = self._open()
            with fs.open(f"{root}/{name}", "rb") as source, packed.open("wb") as target:
                what = f"pulling {subject}"
                found = _copy(
                    source, target, signed.packed, what=what, subject=subject, emit=emit, cancel=cancel
                )
        if found != signed.data:
            raise RefusedError(
                "its bytes are not those that were signed: it is damaged, or was tampered with"
            )
        process.run(
            ["zstd", "--decompress", "--quiet", "--force", "--rm", str(packed), "-o", str(file)],
            timeout=_LONG,
            cancel=cancel,
        )
        if file.stat().st_size != parcel.bytes:
            raise RefusedError("unpacked, it has another size than was signed")
        return file

    def give(
        self, parcel: Parcel, file: Path, folder: Path, *, subject: str, emit: Emit, cancel: Cancel
    ) -> Bytes:
        """Packs, sends, and then signs a layer; what somebody else has given meanwhile is not sent again."""
        with self._giving:
            if self.has(parcel.key, parcel.content):
                return Bytes(0)
            packed = folder / "layer.zst"
            words = ["zstd", "-3", "-T0", "--quiet", "--force", str(file), "-o", str(packed)]
            process.run(words, timeout=_LONG, cancel=cancel)
            signed = Signed(parcel=parcel, data=_digest_of(packed), packed=Bytes(packed.stat().st_size))
            record = self._sign(signed)
            with packed.open("rb") as source:
                self._write(_data_name(parcel, signed.data), source, signed.packed, subject, emit, cancel)
            with _told("its record could not be written"):
                self._pipe(_record_name(parcel.key, parcel.content), record)
            packed.unlink()
            return signed.packed

    def _open(self) -> tuple[Any, str]:
        """The file system and the path on it."""
        if self._opened is None:
            from fsspec.core import url_to_fs

            self._opened = url_to_fs(self.url, use_listings_cache=False, skip_instance_cache=True)
        return self._opened

    def _names(self, folder: str) -> tuple[str, ...]:
        with _told("it could not be listed"):
            fs, root = self._open()
            try:
                found = fs.ls(f"{root}/{folder}".rstrip("/"), detail=False)
            except FileNotFoundError:
                return ()
        return tuple(str(path).rstrip("/").rpartition("/")[2] for path in found)

    def _offers(self, key: LayerKey, kind: str, emit: Emit) -> Iterator[Parcel]:
        """The layers of a key, the newest first. What is not as it must be is told, and left out."""
        found = []
        for name in self._names(_hex(key)):
            content = ContentId(f"sha256:{name.removesuffix('.json')}")
            if name.endswith(".json") and _DIGEST.fullmatch(content):
                parcel = self._offer(key, content, kind, emit)
                found += [parcel] if parcel else []
        yield from sorted(found, key=lambda parcel: parcel.created, reverse=True)

    def _offer(self, key: LayerKey, content: ContentId, kind: str, emit: Emit) -> Parcel | None:
        try:
            signed = self._read(key, content)
        except RefusedError as error:
            emit(
                Warned(
                    message=f"the layer {short(key)} of the cache {self.url} is not used: {error}",
                    hint=error.hint
                    or f"remove {_record_name(key, content)} there; the next build offers it anew",
                )
            )
            return None
        return signed.parcel if signed and signed.parcel.kind == kind else None

    def _chain(
        self,
        top: Parcel,
        keys: Sequence[LayerKey],
        *,
        kind: str,
        standing: Sequence[ContentId | None],
        emit: Emit,
    ) -> tuple[Parcel, ...]:
        """The layer with those below it that are not standing, the lowest first; () where one is missing."""
        chain = [top]
        for index in range(len(keys) - 1, -1, -1):
            below = chain[-1].parent
            if below is None or (index < len(standing) and standing[index] == below):
                return tuple(reversed(chain))
            parcel = self._offer(keys[index], below, kind, emit)
            if parcel is None:
                return ()
            chain.append(parcel)
        return tuple(reversed(chain)) if chain[-1].parent is None else ()

    def _read(self, key: LayerKey, content: ContentId) -> Signed | None:
        """The record of this very layer; None where there is none. Raises RefusedError for one not to be believed."""
        with _told("a record could not be read"):
            fs, root = self._open()
            try:
                with fs.open(f"{root}/{_record_name(key, content)}", "rb") as file:
                    data = file.read(_LARGEST_RECORD + 1)
            except FileNotFoundError:
                return None
        text, signature = _envelope(data)
        self._verify(text, signature)
        signed = _parsed(text)
        if signed is None:
            raise RefusedError("its record was written by another version of Ingot")
        parcel = signed.parcel
        if (parcel.key, parcel.content) != (key, content):
            raise RefusedError("its record is that of another layer")
        if content_id(parcel.parent, parcel.file) != content:
            raise RefusedError("its record contradicts itself")
        return signed

    def _verify(self, text: bytes, signature: bytes) -> None:
        if not signature:
            raise RefusedError("it is not signed")
        with _in_memory(signature) as place:
            words = ["ssh-keygen", "-Y", "find-principals", "-s", place, "-f", str(self._signers)]
            fd = (int(place.rpartition("/")[2]),)
            found = _ask(words, pass_fds=fd)
            who = (
                found.stdout.splitlines()[0].split(",")[0] if found.code == 0 and found.stdout.strip() else ""
            )
            if not who:
                raise RefusedError(
                    "nobody whom `signers` allows has signed it",
                    hint=f"if you trust who did, add their key to {self._signers}",
                )
            words = ["ssh-keygen", "-Y", "verify", "-f", str(self._signers), "-I", who, "-n", NAMESPACE]
            checked = _ask([*words, "-s", place], input=text, pass_fds=fd)
        if checked.code:
            raise RefusedError(f"its signature does not hold: {' '.join(checked.tail[-1:]).strip()}")

    def _sign(self, signed: Signed) -> bytes:
        text = canonical({"schema": SCHEMA, **plain(signed)})
        words = ["ssh-keygen", "-Y", "sign", "-q", "-f", str(self._key), "-n", NAMESPACE]
        done = _ask(words, input=text)
        if done.code:
            raise BackendError(
                f"{self._key} could not sign: {' '.join(done.tail[-1:]).strip()}",
                hint="a key with a passphrase signs through `ssh-agent`; `key` may be its public half then",
            )
        return canonical({"record": text.decode(), "signature": done.stdout})

    def _write(self, name: str, source: Any, size: Bytes, subject: str, emit: Emit, cancel: Cancel) -> None:
        what = f"pushing {subject}"
        with (
            _told(f"{name} could not be written"),
            self._named(name) as (fs, path),
            fs.open(path, "wb") as target,
        ):
            _copy(source, target, size, what=what, subject=subject, emit=emit, cancel=cancel)

    def _pipe(self, name: str, data: bytes) -> None:
        with self._named(name) as (fs, path):
            fs.pipe_file(path, data)

    @contextmanager
    def _named(self, name: str) -> Iterator[tuple[Any, str]]:
        """Where to write what gets this name once it is whole."""
        fs, root = self._open()
        final = f"{root}/{name}"
        names = (fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol
        if not set(names) & set(_RENAMES):
            yield fs, final
            return
        part = f"{final}.{uuid.uuid4().hex[:12]}.part"
        fs.makedirs(final.rpartition("/")[0], exist_ok=True)
        try:
            yield fs, part
            fs.mv(part, final)
        except BaseException:
            with suppress(Exception):  # the failure itself is what is told
                fs.rm_file(part)
            raise


def _ask(
    words: Sequence[str], *, input: bytes | None = None, pass_fds: Sequence[int] = ()
) -> process.Completed:
    """What `ssh-keygen` says. One that does not answer (an agent that waits for a person) is no reason to fail a build."""
    try:
        return process.run(words, timeout=_QUICK, check=False, input=input, pass_fds=pass_fds)
    except DeadlineError as error:
        raise BackendError(f"`ssh-keygen` gave no answer within {_QUICK:.0f} s", hint=error.hint) from error


def _record_name(key: LayerKey, content: ContentId) -> str:
    return f"{_hex(key)}/{_hex(content)}.json"


def _data_name(parcel: Parcel, data: Digest) -> str:
    return f"{_hex(parcel.key)}/{_hex(parcel.content)}.{_hex(data)[:16]}.zst"


def _hex(value: str) -> str:
    return value.removeprefix("sha256:")


def _envelope(data: bytes) -> tuple[bytes, bytes]:
    """(the text that was signed, its signature)."""
    try:
        value = json.loads(data[:_LARGEST_RECORD])
        return value["record"].encode(), value.get("signature", "").encode()
    except (ValueError, TypeError, KeyError, AttributeError):
        raise RefusedError("its record is damaged") from None


def _parsed(text: bytes) -> Signed | None:
    """What a signed text says; None where it is not in a form known here."""
    try:
        value = json.loads(text)
        if value.pop("schema") != SCHEMA:
            return None
        made = Signed(**{**value, "parcel": Parcel(**value["parcel"])})
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    parcel = made.parcel
    digests = (
        parcel.key,
        parcel.content,
        parcel.file,
        made.data,
        *([parcel.parent] if parcel.parent else []),
    )
    sound = all(isinstance(one, str) and _DIGEST.fullmatch(one) for one in digests)
    known = {field.name for field in fields(Parcel)} == value["parcel"].keys()
    return made if sound and known else None


def _copy(
    source: Any, target: Any, size: Bytes, *, what: str, subject: str, emit: Emit, cancel: Cancel
) -> Digest:
    """Copies at most one chunk more than `size` bytes, a chunk at a time; returns their checksum."""
    digest, done = hashlib.sha256(), 0
    while done <= size and (data := source.read(_CHUNK)):
        cancel.check()
        target.write(data)
        digest.update(data)
        done += len(data)
        emit(Progress(subject=subject, what=what, done=done, total=size, unit="B"))
    return Digest(f"sha256:{digest.hexdigest()}")


def _digest_of(path: Path) -> Digest:
    with path.open("rb") as file:
        return Digest("sha256:" + hashlib.file_digest(file, "sha256").hexdigest())


@contextmanager
def _in_memory(data: bytes) -> Iterator[str]:
    """A path that our processes can read this from, given its number in `pass_fds`."""
    fd = os.memfd_create("ingot-signature")
    try:
        os.write(fd, data)
        yield f"/dev/fd/{fd}"
    finally:
        os.close(fd)


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Translates whatever a file system raises: each has errors of its own."""
    try:
        yield
    except IngotError:
        raise
    except ImportError as error:
        raise BackendError(f"{error}", hint="install it beside Ingot, or use another address") from error
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BackendError(
            f"{what}: {reason}", hint="check its address, the network and your rights there"
        ) from error
