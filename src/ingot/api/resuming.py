"""Resuming a build: what a run was asked for is noted in its folder, and asked for again."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingot.api.given import given_variables
from ingot.errors import NotFoundError, RefusedError, UsageError
from ingot.model.digest import plain
from ingot.model.events import Emit
from ingot.system.files import write_atomically

if TYPE_CHECKING:
    from ingot.api.making import Wish
    from ingot.api.outcomes import Built
    from ingot.api.workspace import Workspace
    from ingot.engine.run import Run
    from ingot.ports import Cancel

NAME = "wish.json"


def remember(workspace: Workspace, wish: Wish, run: Run) -> None:
    """Notes what a build was asked for, with the variables that it was given. Of secrets only the names."""
    given = given_variables(workspace)
    note = {
        "project": str(workspace.root),
        "variables": given.texts,
        "secrets": given.secrets,
        "var_files": [str(path.absolute()) for path in workspace.var_files],
        "wish": plain(wish),
    }
    write_atomically(run.directory / NAME, json.dumps(note) + "\n", mode=0o600)


def resume(workspace: Workspace, name: str, *, emit: Emit, cancel: Cancel) -> Built:
    """Builds again what that run was asked for; layers that were finished are there already.

    Nobody is asked this time: where the wish was to ask, a machine on which something fails is kept.
    """
    from ingot.api import adapters, building, looking
    from ingot.api.making import Wish
    from ingot.engine.sweep import sweep

    found = looking.run(workspace.state.runs, name)
    if found.state == "running":
        raise RefusedError(f"run {found.id} still goes on", hint=f"`ingot cancel {found.id}` ends it")
    note = _read(found.folder / NAME, run=found.id)
    missing = [secret for secret in note["secrets"] if secret not in workspace.variables]
    if missing:
        raise UsageError(
            f"run {found.id} was given the secret {missing[0]!r} on its command line, which is kept nowhere",
            hint=f"give it again: `ingot resume {found.id} --var {missing[0]}=…`",
        )
    again = replace(
        workspace,
        project=Path(note["project"]),
        variables={**note["variables"], **workspace.variables},
        var_files=(*map(Path, note["var_files"]), *workspace.var_files),
    )
    sweep(again.state.runs, adapters.open_place(again), emit=emit, names=[found.id])
    # What was to be made anew has been, as far as the run came.
    wish = replace(Wish(**note["wish"]), no_cache=False, from_step="")
    if wish.on_error == "ask":
        wish = replace(wish, on_error="keep")
    return building.build(again, wish, emit=emit, cancel=cancel)


def _read(path: Path, *, run: str) -> dict[str, Any]:
    from ingot.api.making import Wish

    try:
        note: dict[str, Any] = json.loads(path.read_text())
        known = {field.name for field in fields(Wish)}
        return {**note, "wish": {key: value for key, value in note["wish"].items() if key in known}}
    except (OSError, ValueError, KeyError) as error:
        raise NotFoundError(
            f"run {run} is not a build that can be resumed",
            hint="`ingot build` goes on from the last finished layers all the same",
        ) from error
