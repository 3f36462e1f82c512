"""Backends are found by name, and what is wrong with a name is told."""

from __future__ import annotations

import pytest

from ingot import backends
from ingot.errors import UsageError


def test_finds_ours() -> None:
    assert "local" in backends.names()
    assert callable(backends.find_backend("local"))


def test_unknown_name_is_told() -> None:
    with pytest.raises(UsageError, match="no backend 'nowhere'") as told:
        backends.find_backend("nowhere")
    assert "local" in told.value.hint


def test_missing_module_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "KNOWN", {"x": "ingot.backends.not_there:open"})
    monkeypatch.setattr(backends, "HINTS", {"x": "pip install ingot[x]"})
    with pytest.raises(UsageError, match="cannot be loaded") as told:
        backends.find_backend("x")
    assert told.value.hint == "pip install ingot[x]"
