"""The variables that a build was given, for whoever builds the same later or in another process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ingot.api.workspace import Workspace


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """What came from outside the definition and its files. Sensitive ones of the environment are looked up anew."""

    texts: Mapping[str, str]
    """Values as `--var` takes them."""
    secrets: tuple[str, ...]
    """Names of the sensitive ones of the command line, whose values are kept nowhere and sent nowhere."""


def given_variables(workspace: Workspace) -> Given:
    """What the workspace's variables were given by the environment and on the command line."""
    texts: dict[str, str] = {}
    secrets: list[str] = []
    for name, variable in sorted(workspace.definition.variables.items()):
        if variable.origin not in ("environment", "command line"):
            continue
        if not variable.sensitive:
            value = variable.value
            texts[name] = value if isinstance(value, str) else json.dumps(value)
        elif variable.origin == "command line":
            secrets.append(name)
    return Given(texts=texts, secrets=tuple(secrets))
