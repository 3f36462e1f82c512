"""Text → Definition, or every problem at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ingot.definition.images import read_images
from ingot.definition.include import Sources, read_sources
from ingot.definition.interpolate import Interpolation, Scope
from ingot.definition.lint import Subject, lint, warn
from ingot.definition.nodes import Scalar, Table, TooBigError, problem
from ingot.definition.roles import RoleSearch
from ingot.definition.settings import read_settings
from ingot.definition.targets import no_shapes, read_places, usable_name
from ingot.definition.variables import read_var_files, resolve_variables
from ingot.errors import DefinitionError, Problem
from ingot.model.definition import Definition
from ingot.model.secret import Secret
from ingot.ports import ShapeOf

FILE = "ingot.yaml"
_MOST_TOLD = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Loaded:
    """A sound definition, the values of its sensitive variables, and what may not be meant as it is."""

    definition: Definition
    secrets: Mapping[str, Secret]
    warnings: tuple[Problem, ...] = field(default=())


def load(
    path: Path,
    *,
    variables: Mapping[str, str] = {},
    var_files: Sequence[Path] = (),
    environment: Mapping[str, str] = {},
    shape_of: ShapeOf = no_shapes,
) -> Loaded:
    """The definition in `path` (`ingot.yaml` or its folder), with its variables filled in and its matrix multiplied.

    A variable's value: default < `var_files` in order < `environment` < `variables` (of the command line).
    `shape_of` gives what a backend's targets and bases may say; what it does not know is taken as it is.
    Raises DefinitionError with the problems of all files, each with its place, path and hint.
    """
    file = (path / FILE if path.is_dir() else path).absolute()
    problems: list[Problem] = []
    try:
        loaded = _load(file, variables, var_files, environment, shape_of, problems)
    except TooBigError:
        message = "the definition's references make it too large"
        problems.append(
            Problem(
                message=message,
                hint="refer to large lists and maps less often",
                file=file.name,
                line=1,
                column=1,
            )
        )
    if problems:
        raise DefinitionError(problems=_ordered(problems))
    return loaded


def _load(
    file: Path,
    variables: Mapping[str, str],
    var_files: Sequence[Path],
    environment: Mapping[str, str],
    shape_of: ShapeOf,
    problems: list[Problem],
) -> Loaded:
    sources = read_sources(file, problems=problems)
    unread = bool(problems) and not any(table.entries for table in sources.sections.values())
    found = resolve_variables(
        sources.sections["variables"],
        command_line={} if unread else variables,
        files={} if unread else read_var_files(var_files, problems=problems),
        environment=environment,
        problems=problems,
    )
    filling = Interpolation(scope=found.scope, problems=problems)
    sections = {name: _filled(filling, name, sources) for name in ("targets", "bases")}
    places = read_places(sections["targets"], sections["bases"], problems=problems, shape_of=shape_of)
    settings = read_settings(sources, filling, problems=problems)
    images = read_images(sources.sections["images"], scope=found.scope, problems=problems)
    definition = Definition(
        name="" if unread else _name(sources, found.scope, problems),
        root=str(file.parent),
        variables=found.declared,
        targets=places.targets,
        bases=places.bases,
        images=images.images,
        freshness=settings.freshness,
        cache=settings.cache,
        files=tuple(sources.files),
    )
    warnings: list[Problem] = []
    if not unread:
        subject = Subject(
            definition=definition,
            images=images,
            places=places,
            image_names=frozenset(sources.sections["images"].entries),
            search=RoleSearch(root=file.parent),
        )
        problems.extend(lint(subject))
        warnings = warn(subject)
    return Loaded(definition=definition, secrets=found.secrets, warnings=_ordered(warnings))


def _filled(filling: Interpolation, name: str, sources: Sources) -> Table:
    filled = filling.apply(sources.sections[name], (name,))
    assert isinstance(filled, Table)
    return filled


def _name(sources: Sources, scope: Scope, problems: list[Problem]) -> str:
    node = sources.name
    if node is None:
        problems.append(
            Problem(
                message="`name` is missing",
                hint="begin with `name: …`",
                file=sources.files[0],
                line=1,
                column=1,
            )
        )
        return ""
    told: list[Problem] = []
    filled = Interpolation(scope=scope, problems=told).apply(node, ("name",))
    problems.extend(told)
    if isinstance(filled, Scalar) and filled.hollow:
        return ""
    if not isinstance(filled, Scalar) or not isinstance(filled.value, str):
        hint = f'quote it: "{node.raw}"' if isinstance(node, Scalar) and node.raw else "such as `name: acme`"
        problems.append(problem("the project's name is text", node.place, path=("name",), hint=hint))
        return ""
    usable_name(filled.value, node.place, ("name",), problems)
    return filled.value


def _ordered(problems: Sequence[Problem]) -> tuple[Problem, ...]:
    """Each problem once, by file as first met, line and column; the matrix tells the same one for each variant."""
    unique = list(dict.fromkeys(problems))
    files = list(dict.fromkeys(found.file for found in unique))
    ordered = sorted(unique, key=lambda found: (files.index(found.file), found.line, found.column))
    if len(ordered) > _MOST_TOLD:
        rest = Problem(
            message=f"and {len(ordered) - _MOST_TOLD} problems more",
            hint="mend these first",
            line=1,
            file=ordered[0].file,
        )
        return (*ordered[:_MOST_TOLD], rest)
    return tuple(ordered)
