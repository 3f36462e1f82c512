"""Variables: what the definition declares, and the value each has now."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ingot.definition.interpolate import NAME, Budget, Interpolation, Scope, references
from ingot.definition.messages import describe, validate
from ingot.definition.nodes import (
    Items,
    Node,
    Scalar,
    Table,
    TooBigError,
    from_plain,
    leaves,
    place_at,
    plain,
    problem,
    weigh,
)
from ingot.definition.schema import VariableModel
from ingot.definition.suggest import did_you_mean
from ingot.definition.yaml import parse_json, parse_yaml, unusable
from ingot.errors import Problem
from ingot.model.definition import Origin, Variable
from ingot.model.secret import Secret, placeholder
from ingot.model.step import Place

Kind = Literal["string", "number", "boolean", "list", "map"]
_WORDS = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}
_HINTS: dict[Kind, str] = {
    "string": "write text",
    "number": "such as 4 or 0.5",
    "boolean": "write true or false",
    "list": "write a,b,c or [a, b, c]",
    "map": "write {key: value}",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """A value from outside the definition, with where it comes from."""

    node: Node
    origin: Origin


@dataclass(frozen=True, kw_only=True, slots=True)
class Variables:
    """The declared variables with their values, the secrets apart, and the scope that text is filled in from."""

    declared: Mapping[str, Variable]
    secrets: Mapping[str, Secret]
    scope: Scope


@dataclass(frozen=True, kw_only=True, slots=True)
class _Declared:
    name: str
    kind: Kind
    model: VariableModel
    default: Node | None
    place: Place


def resolve_variables(
    table: Table,
    *,
    command_line: Mapping[str, str],
    files: Mapping[str, Given],
    environment: Mapping[str, str],
    problems: list[Problem],
) -> Variables:
    """Every variable's value: default < var-files < environment < command line."""
    declarations = {
        name: _declare(name, node, table.keys[name], problems) for name, node in table.entries.items()
    }
    known = {name: found for name, found in declarations.items() if found}
    _refuse_unknown(known, command_line, files, problems)
    resolving = _Resolving(known=known, problems=problems, broken=set(table.entries) - set(known))
    for name, declared in known.items():
        given = _outside(declared, command_line, files, environment, problems)
        if given is not None:
            resolving.given[name] = given
    for name in known:
        resolving.resolve(name, ())
    return resolving.finish()


def read_var_files(paths: Sequence[Path], *, problems: list[Problem]) -> dict[str, Given]:
    """The values of all var-files; a later file wins."""
    found: dict[str, Given] = {}
    for path in paths:
        node = _read_var_file(path, problems)
        if isinstance(node, Table):
            found.update({name: Given(node=value, origin="file") for name, value in node.entries.items()})
        elif node is not None and not (isinstance(node, Scalar) and node.value is None):
            problems.append(
                problem(
                    "a var-file is a map of names to values", node.place, hint="such as `partition: debug`"
                )
            )
    return found


def _read_var_file(path: Path, problems: list[Problem]) -> Node | None:
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        message = f"the var-file cannot be read: {error.strerror or error}"
        problems.append(
            Problem(
                message=message,
                hint="look at the path given with --var-file",
                file=str(path),
                line=1,
                column=1,
            )
        )
        return None
    except ValueError:
        problems.append(
            Problem(
                message="the var-file is not UTF-8 text",
                hint="save it as UTF-8",
                file=str(path),
                line=1,
                column=1,
            )
        )
        return None
    if path.suffix == ".hcl":
        hint = "write the same values as YAML or JSON"
        problems.append(
            Problem(message="HCL var-files cannot be read here", hint=hint, file=str(path), line=1, column=1)
        )
        return None
    parse = parse_json if path.suffix == ".json" else parse_yaml
    node, told = parse(text, file=str(path))
    problems.extend(told)
    return node


def _declare(name: str, node: Node, place: Place, problems: list[Problem]) -> _Declared | None:
    path = ("variables", name)
    if not NAME.fullmatch(name):
        hint = f"for example `{re.sub('[^A-Za-z0-9_]', '_', name)[:40]}`"
        problems.append(
            problem(
                f"`{name}` is not a variable's name: letters, digits and `_`", place, path=path, hint=hint
            )
        )
        return None
    if not isinstance(node, Table):  # the short form: just the default
        short = Table(entries={"default": node}, keys={"default": node.place}, place=node.place)
        return _Declared(
            name=name,
            kind=_kind_of(node),
            model=VariableModel(),
            default=short.entries["default"],
            place=place,
        )
    if (
        isinstance(default := node.entries.get("default"), Scalar)
        and default.value is None
        and not default.hollow
    ):
        default = None
    shape = {key: item for key, item in node.entries.items() if key != "default"}
    model = validate(VariableModel, replace(node, entries=shape), path=path, problems=problems)
    if model is None:
        return None
    kind = model.type or (_kind_of(default) if default else "string")
    if model.sensitive and kind != "string":
        where = place_at(node, ("type",))
        problems.append(problem("a sensitive variable is text", where, path=path, hint="remove the `type`"))
        return None
    if model.rev and not model.sensitive:
        where = place_at(node, ("rev",))
        hint = "only a sensitive variable's value does not count by itself; remove `rev`"
        problems.append(problem("`rev` belongs to sensitive variables", where, path=path, hint=hint))
    return _Declared(name=name, kind=kind, model=model, default=default, place=place)


def _kind_of(node: Node) -> Kind:
    match node:
        case Items():
            return "list"
        case Table():
            return "map"
        case Scalar(value=bool()):
            return "boolean"
        case Scalar(value=int() | float()):
            return "number"
        case _:
            return "string"


def _refuse_unknown(
    known: Mapping[str, _Declared],
    command_line: Mapping[str, str],
    files: Mapping[str, Given],
    problems: list[Problem],
) -> None:
    for name in command_line:
        if name not in known:
            hint = did_you_mean(name, known) or "declare it under `variables`"
            problems.append(
                Problem(message=f"there is no variable `{name}`", hint=hint, path=f"--var {name}")
            )
    for name, given in files.items():
        if name not in known:
            hint = did_you_mean(name, known) or "declare it under `variables`"
            problems.append(problem(f"there is no variable `{name}`", given.node.place, hint=hint))


def _outside(
    declared: _Declared,
    command_line: Mapping[str, str],
    files: Mapping[str, Given],
    environment: Mapping[str, str],
    problems: list[Problem],
) -> Given | None:
    """The value that the strongest source outside the definition gives, or None."""
    name = declared.name
    sources: list[tuple[str, Mapping[str, str], str, Origin]] = [
        (name, command_line, f"--var {name}", "command line"),
        (f"INGOT_VAR_{name}", environment, f"the environment's INGOT_VAR_{name}", "environment"),
    ]
    if declared.model.env:
        shown = f"the environment's {declared.model.env}"
        sources.append((declared.model.env, environment, shown, "environment"))
    for key, values, shown, origin in sources:
        if key in values:
            return Given(node=_parse_text(declared, values[key], Place(file=shown), problems), origin=origin)
    return files.get(name)


def _parse_text(declared: _Declared, text: str, place: Place, problems: list[Problem]) -> Node:
    """Text from the command line or the environment as a value of the declared type; hollow where it is none."""
    kind, hollow = declared.kind, Scalar(value=None, hollow=True, place=place)
    if wrong := unusable(text):
        problems.append(problem(wrong, place, path=("variables", declared.name), hint="remove it"))
        return hollow
    match kind:
        case "string":
            return Scalar(value=text, raw=text, place=place)
        case "boolean" if text.strip().lower() in _WORDS:
            return Scalar(value=_WORDS[text.strip().lower()], raw=text, place=place)
        case "number" if re.fullmatch(r"[-+]?\d{1,18}", text.strip(), re.ASCII):
            return Scalar(value=int(text), raw=text, place=place)
        case "number" if re.fullmatch(r"[-+]?\d{1,18}\.\d{1,18}", text.strip(), re.ASCII):
            return Scalar(value=float(text), raw=text, place=place)
        case "list" if not text.lstrip().startswith("["):
            return from_plain([part.strip() for part in text.split(",") if part.strip()], place)
        case "list" | "map":
            node, told = parse_yaml(text, file=place.file)
            if node is not None and not told and _kind_of(node) == kind:
                return node
        case _:
            pass
    shown = "" if declared.model.sensitive else f" {text[:60]!r}"
    message = f"the value{shown} is not a {kind}"
    problems.append(problem(message, place, path=("variables", declared.name), hint=_HINTS[kind]))
    return hollow


@dataclass(slots=True)
class _Resolving:
    """Values found so far; a default may refer to other variables, so one asks for another."""

    known: Mapping[str, _Declared]
    problems: list[Problem]
    broken: set[str]
    given: dict[str, Given] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, Origin] = field(default_factory=dict)
    secrets: dict[str, Secret] = field(default_factory=dict)
    budget: Budget = field(default_factory=Budget)

    def resolve(self, name: str, waiting: tuple[str, ...]) -> None:
        """Finds the value of `name`, after those that it refers to."""
        if name in self.values or name in self.broken or name not in self.known:
            return
        declared = self.known[name]
        given = self.given.get(name)
        node = given.node if given else declared.default
        self.origins[name] = given.origin if given else "default"
        if node is None:
            self._break(name, f"the variable `{name}` has no value", declared.place, self._remedy(declared))
            return
        if given is None:
            if name in waiting:
                circle = " → ".join([*waiting[waiting.index(name) :], name])
                self._break(
                    name,
                    f"variables refer to each other in a circle: {circle}",
                    declared.place,
                    "give one of them a value of its own",
                )
                return
            if len(waiting) > 50:
                self._break(
                    name, "variables refer to each other more than 50 deep", declared.place, "refer to fewer"
                )
                return
            for other in sorted(references(node)):
                self.resolve(other, (*waiting, name))
            if name in self.broken:
                return
            scope = Scope(values=self.values, broken=self.broken, budget=self.budget)
            filling = Interpolation(
                scope=scope, problems=self.problems, secrets_allowed=lambda path: not declared.model.sensitive
            )
            node = filling.apply(node, ("variables", name, "default"))
        self._take(declared, node)

    def _take(self, declared: _Declared, node: Node) -> None:
        name, value = declared.name, plain(node)
        if any(leaf.hollow for _, leaf in leaves(node)):
            self.broken.add(name)
        elif _kind_of(node) != declared.kind:
            hint = (
                f'quote it: "{node.raw}"'
                if isinstance(node, Scalar) and declared.kind == "string"
                else _HINTS[declared.kind]
            )
            shown = "something else" if declared.model.sensitive else describe(node)
            self._break(name, f"`{name}` is a {declared.kind}, and this is {shown}", node.place, hint)
        elif declared.model.choices and value not in declared.model.choices:
            known = [str(choice) for choice in declared.model.choices]
            shown = "the value" if declared.model.sensitive else describe(node)
            self._break(
                name, f"{shown} is not one of the choices", node.place, did_you_mean(str(value), known)
            )
        elif self._too_big(value):
            self._break(
                name,
                f"the value of `{name}` is too large",
                node.place,
                "read large data in a role or a script",
            )
        elif declared.model.sensitive:
            self.secrets[name] = Secret(value)
            self.values[name] = placeholder(name)
        else:
            self.values[name] = value

    def _too_big(self, value: Any) -> bool:
        try:
            weigh(value)
        except TooBigError:
            return True
        return False

    def _break(self, name: str, message: str, place: Place, hint: str = "") -> None:
        self.broken.add(name)
        self.problems.append(problem(message, place, path=("variables", name), hint=hint))

    def _remedy(self, declared: _Declared) -> str:
        ways = [f"--var {declared.name}=…", f"INGOT_VAR_{declared.name}"]
        if declared.model.env:
            ways.append(declared.model.env)
        return (
            f"give it with {', '.join(ways)}, or a `default`"
            if not declared.model.sensitive
            else f"give it with {', '.join(ways)}"
        )

    def finish(self) -> Variables:
        declared = {
            name: Variable(
                name=name,
                type=found.kind,
                description=found.model.description,
                choices=() if found.model.sensitive else tuple(found.model.choices),
                sensitive=found.model.sensitive,
                rev=found.model.rev,
                value=None if found.model.sensitive else self.values.get(name),
                origin=self.origins.get(name, "default"),
                place=found.place,
            )
            for name, found in self.known.items()
        }
        scope = Scope(values=self.values, broken=frozenset(self.broken), budget=self.budget)
        return Variables(declared=declared, secrets=self.secrets, scope=scope)
