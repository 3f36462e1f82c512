"""The golden cases: a folder each, with `ingot.yaml` and what comes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ingot.definition.load import Loaded, load
from ingot.errors import DefinitionError
from ingot.model.digest import plain

FOLDER = Path(__file__).parent.parent / "data" / "definitions"


def load_case(case: Path) -> Loaded:
    """Loads a case with its `arguments.json`, if it has one."""
    file = case / "arguments.json"
    arguments: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return load(
        case,
        variables=arguments.get("variables", {}),
        var_files=[case / name for name in arguments.get("var_files", ())],
        environment=arguments.get("environment", {}),
    )


def outcome(case: Path) -> tuple[str, str]:
    """(name of the expectation's file, its text): problems a line each, or the definition as JSON."""
    try:
        loaded = load_case(case)
    except DefinitionError as error:
        text = "".join(f"{problem}\n" for problem in error.problems)
        return "expected.txt", text.replace(str(case), "CASE")
    definition = plain(loaded.definition)
    definition["root"] = "CASE"
    value = {
        "definition": _without_defaults(definition),
        "secrets": {name: secret.reveal() for name, secret in loaded.secrets.items()},
        "warnings": [str(warning) for warning in loaded.warnings],
    }
    return "expected.json", json.dumps(value, indent=1, sort_keys=True) + "\n"


def _without_defaults(value: Any) -> Any:
    """Leaves out what is empty, so that a case shows what it is about."""
    if isinstance(value, dict):
        kept = {key: _without_defaults(item) for key, item in value.items()}
        return {key: item for key, item in kept.items() if item not in ("", None, [], {})}
    return [_without_defaults(item) for item in value] if isinstance(value, list) else value
