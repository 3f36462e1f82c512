"""Steps as written → the frozen steps of the model."""

from __future__ import annotations

from typing import Any, assert_never

from ingot.definition.messages import validate
from ingot.definition.nodes import Items, Node, Path, find, place_at, problem
from ingot.definition.step_schema import (
    AnyStep,
    CloudInitBody,
    CloudInitModel,
    ContainersBody,
    ContainersModel,
    FileBody,
    FilesModel,
    PackagesBody,
    PackagesModel,
    PlaybookModel,
    RebootModel,
    RolesModel,
    ScriptBody,
    ScriptModel,
    StepModel,
)
from ingot.definition.when import NEEDS_REBOOT, WhenError, decide
from ingot.errors import Problem
from ingot.model.reference import reference
from ingot.model.step import (
    CloudInitStep,
    ContainersStep,
    FilesStep,
    MachineKind,
    PackagesStep,
    Place,
    PlaybookStep,
    RebootStep,
    RolesStep,
    ScriptStep,
    Step,
)
from ingot.model.units import parse_seconds


def read_step(node: Node, *, path: Path, problems: list[Problem]) -> AnyStep | None:
    """One step as the schema has it; None after telling what is wrong."""
    model = validate(StepModel, node, path=path, problems=problems)
    return model.root if model else None


def is_wanted(
    step: AnyStep, node: Node, *, values: dict[str, Any], path: Path, problems: list[Problem]
) -> bool:
    """Whether the step's `when` holds; one that cannot be told is a problem."""
    if asks_machine(step):
        return True
    try:
        return decide(step.when, values)
    except WhenError as error:
        place = place_at(node, ("when",))
        problems.append(problem(str(error), place, path=(*path, "when"), hint=error.hint))
        return False


def asks_machine(step: AnyStep) -> bool:
    """Whether only the machine itself can tell if the step is wanted."""
    return isinstance(step, RebootModel) and step.when == NEEDS_REBOOT


def to_steps(
    model: AnyStep, node: Node, *, fallback_layer: str, machine: MachineKind = "chroot"
) -> tuple[Step, ...]:
    """The model's steps for a written one: a list of files is a step for each, in a layer that they share."""
    common: dict[str, Any] = {
        "place": node.place,
        "layer": model.layer or "",
        "timeout": parse_seconds(model.timeout),
        "machine": model.machine or machine,
        "retries": model.retries,
    }
    match model:
        case PackagesModel(packages=packages):
            body = packages if isinstance(packages, PackagesBody) else PackagesBody(install=packages)
            names = tuple(body.install)
            return (
                PackagesStep(**common, install=names, remove=tuple(body.remove), recommends=body.recommends),
            )
        case RolesModel():
            return (RolesStep(**common, **_ansible(model), roles=tuple(model.roles)),)
        case PlaybookModel():
            return (PlaybookStep(**common, **_ansible(model), path=model.playbook),)
        case ScriptModel(script=script):
            program = ScriptBody(path=script) if isinstance(script, str) else script
            path, inline = program.path or "", program.inline or ""
            args = tuple(program.args)
            return (ScriptStep(**common, path=path, inline=inline, args=args, env=program.env),)
        case FilesModel(files=files):
            if isinstance(files, FileBody):
                return (_file(files, common),)
            shared = model.layer or (fallback_layer if len(files) > 1 else "")
            places = _item_places(node, len(files))
            several = zip(files, places, strict=True)
            return tuple(_file(body, {**common, "layer": shared, "place": place}) for body, place in several)
        case RebootModel():
            return (RebootStep(**{**common, "machine": "vm"}, if_needed=asks_machine(model)),)
        case CloudInitModel(cloud_init=written):
            data = CloudInitBody(path=written) if isinstance(written, str) else written
            common["machine"] = model.machine or "booted"
            return (CloudInitStep(**common, path=data.path or "", inline=data.inline or ""),)
        case ContainersModel(containers=listed):
            wanted = listed if isinstance(listed, ContainersBody) else ContainersBody(images=listed)
            common["machine"] = model.machine or ("booted" if machine == "chroot" else machine)
            images = tuple(str(reference(text)) for text in wanted.images)
            return (ContainersStep(**common, images=images, tool=wanted.tool or "", dest=wanted.dest or ""),)
        case _:
            assert_never(model)


def _item_places(node: Node, count: int) -> list[Place]:
    listed = find(node, ("files",))
    return [item.place for item in listed.items] if isinstance(listed, Items) else [node.place] * count


def _ansible(model: RolesModel | PlaybookModel) -> dict[str, Any]:
    return {
        "vars": model.vars,
        "groups": tuple(model.groups),
        "become": model.become,
        "tags": tuple(model.tags),
        "skip_tags": tuple(model.skip_tags),
        "engine": model.engine,
    }


def _file(body: FileBody, common: dict[str, Any]) -> FilesStep:
    return FilesStep(
        **common,
        src=body.src or "",
        text=body.text,
        dest=body.dest,
        mode=body.mode or "",
        owner=body.owner,
        group=body.group,
    )
