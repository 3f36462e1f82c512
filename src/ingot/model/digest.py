"""Content digests: canonical JSON in, `sha256:…` out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import PurePath
from typing import Any, NewType

Digest = NewType("Digest", str)
"""`sha256:` and 64 hexadecimal digits."""

NO_DIGEST = Digest("")
"""Stands in a step of a definition where a plan has the digest of the files it names."""


def digest(value: Any) -> Digest:
    """The digest of a plain value (mappings, sequences, dataclasses, text, numbers) by its canonical JSON."""
    return digest_bytes(canonical(value))


def digest_bytes(data: bytes) -> Digest:
    """The digest of bytes as they are."""
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


def canonical(value: Any) -> bytes:
    """One JSON text for equal values: keys sorted, no spaces, no NaN. Raises TypeError for what is not plain."""
    return json.dumps(
        plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def plain(value: Any) -> Any:
    """The value as JSON would have it: dataclasses by field, tuples as lists, enums by value, paths as text."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(plain(item) for item in value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, PurePath):
        return str(value)
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise TypeError(f"{type(value).__name__} has no canonical form")


def short(value: str) -> str:
    """The first twelve digits, for people."""
    return value.removeprefix("sha256:")[:12]
