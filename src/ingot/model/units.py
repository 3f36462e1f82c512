"""Quantities with their unit in the type: bytes and seconds, parsed from and printed for people."""

from __future__ import annotations

import re
from typing import NewType

Bytes = NewType("Bytes", int)
Seconds = NewType("Seconds", float)

_SIZES = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
          "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}  # fmt: skip
_TIMES = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_QUANTITY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*")


def parse_bytes(text: str) -> Bytes:
    """`8 GiB`, `512MiB`, `20 GB` as bytes. Raises ValueError with a sentence; a bare number has no unit."""
    found = _QUANTITY.fullmatch(text)
    if not found or found[2] not in _SIZES:
        raise ValueError(f"{text!r} is not a size; write a number and a unit, such as `8 GiB`")
    return Bytes(int(float(found[1]) * _SIZES[found[2]]))


def parse_seconds(text: str) -> Seconds:
    """`90 s`, `10m`, `4 h`, `7d` as seconds. Raises ValueError with a sentence."""
    found = _QUANTITY.fullmatch(text)
    if not found or found[2] not in _TIMES:
        raise ValueError(f"{text!r} is not a duration; write a number and a unit, such as `10m` or `4 h`")
    return Seconds(float(found[1]) * _TIMES[found[2]])


def format_bytes(value: int) -> str:
    """`1.4 GiB`: binary units, one decimal from KiB on."""
    size = float(value)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(size) < 1024 or unit == "TiB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError


def format_seconds(value: float) -> str:
    """`0.4s`, `12s`, `3m05s`, `1h02m`."""
    if value < 10:
        return f"{value:.1f}s"
    whole = round(value)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02}m"
