"""Secrets: a type whose text is `***`, and the placeholder that stands for one in a definition or plan.

A sensitive variable's value never enters a definition or a plan. `${token}` of a sensitive variable stays in
the text as a placeholder, which `reveal` fills in at the last moment, on the way to the machine.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any


class Secret:
    """A value that prints, formats and pickles no further than `***`; `reveal()` gives the text."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The text itself."""
        return self._value

    def __str__(self) -> str:
        return "***"

    def __repr__(self) -> str:
        return "Secret('***')"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("a secret does not leave its process; pass its name")


_SHORTEST = 4  # a secret shorter than this would blank out half of all that is said


def scrubber(secrets: Mapping[str, Secret]) -> Callable[[str], str]:
    """What replaces the values of secrets, and each line of them, by `***` in a text."""
    parts = {
        part
        for secret in secrets.values()
        for part in (secret.reveal(), *secret.reveal().splitlines())
        if len(part) >= _SHORTEST
    }
    values = tuple(sorted(parts, key=len, reverse=True))

    def scrub(text: str) -> str:
        for value in values:
            text = text.replace(value, "***")
        return text

    return scrub


# Private-use characters: they cannot stand in a file that Ingot read (load refuses them), so no text is mistaken.
_OPEN, _CLOSE = "\ue000", "\ue001"
_PLACEHOLDER = re.compile(f"{_OPEN}([A-Za-z_][A-Za-z0-9_]*){_CLOSE}")


def placeholder(name: str) -> str:
    """The text that stands for the secret `name`."""
    return f"{_OPEN}{name}{_CLOSE}"


def secret_names(value: Any) -> frozenset[str]:
    """The names of all secrets that a plain value (text, mappings, sequences) refers to."""
    if isinstance(value, str):
        return frozenset(_PLACEHOLDER.findall(value))
    if isinstance(value, Mapping):
        return frozenset().union(*(secret_names(v) for v in value.values()))
    if isinstance(value, (list, tuple)):
        return frozenset().union(*(secret_names(v) for v in value))
    return frozenset()


def reveal(value: Any, secrets: Mapping[str, Secret]) -> Any:
    """The value with every placeholder filled in. Raises KeyError for a secret that is not given."""
    if isinstance(value, str):
        return _PLACEHOLDER.sub(lambda found: secrets[found[1]].reveal(), value)
    if isinstance(value, Mapping):
        return {key: reveal(item, secrets) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(reveal(item, secrets) for item in value)
    return value


def readable(text: str) -> str:
    """The text for people: `${name}` where a secret will stand."""
    return _PLACEHOLDER.sub(lambda found: "${" + found[1] + "}", text)
