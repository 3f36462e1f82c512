"""`${name}` in text: our interpolation, which leaves Ansible's `{{ }}` alone. `$${` is a literal `${`."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ingot.definition.nodes import Items, Node, Path, Scalar, Table, TooBigError, from_plain, problem, weigh
from ingot.definition.suggest import did_you_mean
from ingot.errors import Problem
from ingot.model.secret import secret_names

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_REFERENCE = re.compile(r"\$\$\{|\$\{([^}\n]*)(\}?)")
_MAX_TEXT = 2**20


@dataclass(slots=True)
class Budget:
    """How many values interpolation may still make in one loading: references cannot blow a definition up."""

    left: int = 500_000

    def spend(self, count: int) -> None:
        """Raises TooBigError once nothing is left."""
        self.left -= count
        if self.left < 0:
            raise TooBigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Scope:
    """The names that text may refer to. A sensitive one's value is its placeholder; `broken` have none, as told."""

    values: Mapping[str, Any]
    broken: Collection[str] = ()
    budget: Budget = field(default_factory=Budget)

    def with_values(self, values: Mapping[str, Any]) -> Scope:
        """The scope with more (or other) values, as a matrix gives them."""
        return replace(self, values={**self.values, **values})


@dataclass(frozen=True, kw_only=True, slots=True)
class Interpolation:
    """One pass over nodes: the scope, where problems go, and at which paths a secret may stand."""

    scope: Scope
    problems: list[Problem]
    secrets_allowed: Callable[[Path], bool] = lambda path: False

    def apply(self, node: Node, path: Path = ()) -> Node:
        """The node with every reference filled in; what could not be is hollow, and told."""
        match node:
            case Items(items=items):
                return replace(
                    node, items=tuple(self.apply(item, (*path, i)) for i, item in enumerate(items))
                )
            case Table(entries=entries):
                return replace(
                    node, entries={key: self.apply(item, (*path, key)) for key, item in entries.items()}
                )
            case Scalar(value=str() as text) if "${" in text and not node.hollow:
                return self._fill(node, text, path)
            case _:
                return node

    def _fill(self, node: Scalar, text: str, path: Path) -> Node:
        whole = _REFERENCE.fullmatch(text)
        names = self._names(node, text, path)
        if names is None:
            return replace(node, hollow=True)
        try:
            if whole and whole[0] != "$${":
                value = self.scope.values[names[0]]
                self.scope.budget.spend(weigh(value))
                filled = from_plain(value, node.place, raw=text)
            else:
                filled = replace(node, value=self._text(text), raw=text, quoted=True)
        except TooBigError:
            self._tell("the references make this too large", node, path, "refer to large lists less often")
            return replace(node, hollow=True)
        except _NoTextError as error:
            name, kind = error.args
            hint = f'write "${{{name}}}" alone to get the {kind}'
            self._tell(f"`{name}` is a {kind} and cannot stand inside a text", node, path, hint)
            return replace(node, hollow=True)
        if secret_names(
            plain_leaf := filled.value if isinstance(filled, Scalar) else self.scope.values[names[0]]
        ):
            return self._secret(node, filled, plain_leaf, path)
        return filled

    def _secret(self, node: Scalar, filled: Node, value: Any, path: Path) -> Node:
        if self.secrets_allowed(path):
            return filled
        name = min(secret_names(value))
        hint = "secrets may stand in `vars`, in a script's `inline`, `args` and `env`, in a file's `text`, and in `cloud_init`'s `inline`"
        self._tell(f"`{name}` is sensitive, and this must be plain", node, path, hint)
        return replace(node, hollow=True)

    def _names(self, node: Scalar, text: str, path: Path) -> list[str] | None:
        """The variables that the text refers to; None where one of them is not there."""
        names, sound = [], True
        for found in _REFERENCE.finditer(text):
            if found[0] == "$${":
                continue
            name = found[1]
            names.append(name)
            if not found[2] or not NAME.fullmatch(name):
                shown = found[0] if len(found[0]) <= 40 else found[0][:39] + "…"
                hint = "write `$${` where `${` is meant literally, as for the shell"
                self._tell(f"`{shown}` is not a reference to a variable", node, path, hint)
                sound = False
            elif name in self.scope.broken:
                sound = False
            elif name not in self.scope.values:
                hint = did_you_mean(name, {*self.scope.values, *self.scope.broken}, noun="the only variable")
                close = hint.startswith("did")
                literal = "write `$${" + name + "}` if the shell is to fill it in"
                remedy = "; ".join(part for part in (hint, "" if close else literal) if part)
                self._tell(f"there is no variable `{name}`", node, path, remedy)
                sound = False
        return names if sound else None

    def _text(self, text: str) -> str:
        filled = _REFERENCE.sub(lambda found: "${" if found[0] == "$${" else self._word(found[1]), text)
        if len(filled) > _MAX_TEXT:
            raise TooBigError
        return filled

    def _word(self, name: str) -> str:
        value = self.scope.values[name]
        if isinstance(value, (list, tuple, Mapping)):
            raise _NoTextError(name, "map" if isinstance(value, Mapping) else "list")
        return str(value).lower() if isinstance(value, bool) else str(value)

    def _tell(self, message: str, node: Scalar, path: Path, hint: str = "") -> None:
        self.problems.append(problem(message, node.place, path=path, hint=hint))


class _NoTextError(Exception):
    """(name, kind) of a list or map that was to stand inside a text."""


def references(node: Node) -> frozenset[str]:
    """The names that a node refers to."""
    match node:
        case Items(items=items):
            return frozenset().union(*(references(item) for item in items))
        case Table(entries=entries):
            return frozenset().union(*(references(item) for item in entries.values()))
        case Scalar(value=str() as text):
            return frozenset(
                found[1] for found in _REFERENCE.finditer(text) if found[1] and found[0] != "$${"
            )
        case _:
            return frozenset()
