"""A fresh workshop for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from .bench import Workshop


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(root=tmp_path)
