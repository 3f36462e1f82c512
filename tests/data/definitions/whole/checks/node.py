"""A check for the loader to find; it is never run."""

from typing import Any


def test_root_is_private(host: Any) -> None:
    assert host.file("/root").mode == 0o700
