"""The state folder: runs, the local store, caches, the catalog's file, and the plans of the last builds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ingot.errors import IngotError
from ingot.model.digest import canonical
from ingot.model.plan import Plan
from ingot.system.files import write_atomically


def default_root(environment: Mapping[str, str]) -> Path:
    """`INGOT_STATE`, or the user's state folder as platformdirs has it (`~/.local/state/ingot`)."""
    if chosen := environment.get("INGOT_STATE", ""):
        return Path(chosen).expanduser().absolute()
    if home := environment.get("XDG_STATE_HOME", ""):
        return Path(home) / "ingot"
    import platformdirs

    return Path(platformdirs.user_state_path("ingot", appauthor=False))


class State:
    """Paths below the state folder; nothing is made before something is put there.

    runs/<id>/        what runs leave: events, journals, logs
    plans/<project>/  the plan of the last build of each image and target, for telling what changed
    local/            the local backend's own
    cache/            downloads; may be deleted at any time
    catalog.db        the catalog, unless it lies elsewhere
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def plans(self) -> Path:
        return self.root / "plans"

    @property
    def local(self) -> Path:
        return self.root / "local"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def catalog(self) -> Path:
        return self.root / "catalog.db"

    def save_plan(self, plan: Plan) -> None:
        """Remembers the plan as the one of the last build of its image and target."""
        path = self._plan(plan.project, plan.image, plan.target)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, canonical(plan))

    def last_plan(self, project: str, image: str, target: str) -> dict[str, Any] | None:
        """The plan of the last build as plain JSON; None before the first one, or where the file is damaged."""
        try:
            found = json.loads(self._plan(project, image, target).read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        except PermissionError as error:
            raise IngotError(
                f"{error.filename} cannot be read by this user", hint="run Ingot as the user who built before"
            ) from error
        return found if isinstance(found, dict) else None

    def _plan(self, project: str, image: str, target: str) -> Path:
        return self.plans / quote(project, safe="") / f"{quote(image, safe='')}@{quote(target, safe='')}.json"
