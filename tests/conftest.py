"""What tests of different rooms share."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.register_assert_rewrite("ingot.testing.backend_suite")
DOWNLOADS = Path(__file__).parent.parent / ".cache" / "downloads"


@pytest.fixture(scope="session")
def shared_state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One state folder for all builds of a session, so that they share their base; downloads outlive it."""
    state = tmp_path_factory.mktemp("shared-state")
    DOWNLOADS.mkdir(parents=True, exist_ok=True)
    (state / "downloads").symlink_to(DOWNLOADS)
    return state
