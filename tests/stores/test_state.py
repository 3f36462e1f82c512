"""Where state lies, and the plans of last builds."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingot.model.digest import plain
from ingot.stores.state import State, default_root
from tests.engine.bench import PLAN


def test_the_environment_decides_first() -> None:
    assert default_root({"INGOT_STATE": "/srv/ingot"}) == Path("/srv/ingot")
    assert default_root({"XDG_STATE_HOME": "/home/u/state"}) == Path("/home/u/state/ingot")
    assert default_root({}).name == "ingot"
    assert default_root({"INGOT_STATE": "here"}).is_absolute()


def test_the_last_plan_comes_back_as_plain_json(tmp_path: Path) -> None:
    state = State(tmp_path)
    assert state.last_plan("acme", "node", "local") is None
    state.save_plan(PLAN)
    assert state.last_plan("acme", "node", "local") == plain(PLAN)
    assert state.last_plan("acme", "node", "other") is None


@pytest.mark.parametrize("damage", ["", "{", "[]", "\x00"])
def test_a_damaged_plan_is_as_good_as_none(tmp_path: Path, damage: str) -> None:
    state = State(tmp_path)
    state.save_plan(PLAN)
    (file,) = (path for path in state.plans.rglob("*") if path.is_file())
    file.write_text(damage)
    assert state.last_plan("acme", "node", "local") is None
