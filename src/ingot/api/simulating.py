"""Building in a pretend cloud: the real definition, plans and engine; no machine, no disk, nothing recorded."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ingot.api import building
from ingot.api.making import Wish
from ingot.errors import UsageError
from ingot.model.events import Emit

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from ingot.api.outcomes import Built
    from ingot.api.workspace import Workspace
    from ingot.ports import Cancel


def build(
    workspace: Workspace,
    wish: Wish,
    *,
    habits: str,
    executor: Executor | None = None,
    emit: Emit,
    cancel: Cancel,
) -> Built:
    """What a build would come to if every call took as long, and failed, as the habits say.

    Raises UsageError for habits that are none, and for checks: there is nothing to boot.
    """
    from ingot.backends.memory.habits import parse_habits
    from ingot.stores.state import State

    parse_habits(habits)
    if wish.check:
        raise UsageError("a simulated build has nothing to boot", hint="leave out `--check`")
    with tempfile.TemporaryDirectory(prefix="ingot-simulated-") as folder:
        pretend = replace(workspace, state=State(Path(folder)), simulated=habits)
        built = building.build(pretend, wish, executor=executor, emit=emit, cancel=cancel)
    # What the pretend cloud called them is gone with it.
    outcomes = tuple(replace(outcome, version=None, ref="", log="") for outcome in built.outcomes)
    return replace(built, outcomes=outcomes, simulated=True)
