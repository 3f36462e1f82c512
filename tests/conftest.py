"""What tests of different rooms share."""

from __future__ import annotations

from pathlib import Path

import pytest

# Here and nowhere else, so that there is one bed in a session: each module that imported them would have its own.
from tests.aws_bed.fixture import aws_bed, bed, key_pair

__all__ = ["aws_bed", "bed", "key_pair"]
pytest.register_assert_rewrite("ingot.testing.backend_suite")
DOWNLOADS = Path(__file__).parent.parent / ".cache" / "downloads"


@pytest.fixture(scope="session")
def shared_state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One state folder for all builds of a session, so that they share their base; downloads outlive it."""
    state = tmp_path_factory.mktemp("shared-state")
    DOWNLOADS.mkdir(parents=True, exist_ok=True)
    (state / "downloads").symlink_to(DOWNLOADS)
    return state
