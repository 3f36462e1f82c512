from __future__ import annotations

import pytest

from ingot.model.reference import parse_reference

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("alpine", "docker.io/library/alpine:latest"),
        ("alpine:3.20", "docker.io/library/alpine:3.20"),
        ("acme/tools", "docker.io/acme/tools:latest"),
        ("docker.io/alpine", "docker.io/library/alpine:latest"),
        ("registry:5000/tools", "registry:5000/tools:latest"),
        ("localhost/tools:1", "localhost/tools:1"),
        ("nvcr.io/nvidia/cuda:12.2.0-base-ubuntu22.04", "nvcr.io/nvidia/cuda:12.2.0-base-ubuntu22.04"),
        (f"ghcr.io/a/b/c@{DIGEST}", f"ghcr.io/a/b/c@{DIGEST}"),
        (f"alpine:3.20@{DIGEST}", f"docker.io/library/alpine:3.20@{DIGEST}"),
    ],
)
def test_what_is_left_out_is_filled_in(text: str, meant: str) -> None:
    found = parse_reference(text)
    assert found and str(found) == meant
    assert parse_reference(meant) == found


@pytest.mark.parametrize(
    "text", ["", "Alpine", "http://x/y", "x:", "a b", "x@sha256:12", "a//b", "-x", "x" * 500, "x\n"]
)
def test_what_is_none(text: str) -> None:
    assert parse_reference(text) is None


@pytest.mark.parametrize(
    ("text", "local"),
    [
        ("127.0.0.1:5000/x", True),
        ("localhost/x", True),
        ("127.example.org/x", False),
        ("localhost.org/x", False),
    ],
)
def test_registries_of_this_computer(text: str, local: bool) -> None:
    found = parse_reference(text)
    assert found and found.is_local is local
