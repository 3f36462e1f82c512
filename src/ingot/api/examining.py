"""What a build would lack, target by target: the definition is planned, nothing is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ingot.api import adapters
from ingot.errors import IngotError, UsageError

if TYPE_CHECKING:
    from ingot.api.workspace import Workspace
    from ingot.model.plan import Plan
    from ingot.model.views import Examined
    from ingot.ports import Backend, Wanted

_LOCAL = "local"


def examine(workspace: Workspace, names: Sequence[str], *, targets: Sequence[str]) -> tuple[Examined, ...]:
    """Each target's place as its backend's doctor finds it. Raises DefinitionError for what cannot be planned."""
    return tuple(
        _examined(workspace, target, plans) for target, plans in _by_target(workspace, names, targets)
    )


def policy(workspace: Workspace, names: Sequence[str], *, targets: Sequence[str]) -> Mapping[str, Any]:
    """The one policy of these targets."""
    found: dict[str, Mapping[str, Any]] = {}
    for target, plans in _by_target(workspace, names, targets):
        backend = _open(workspace, plans)
        told = backend.doctor.policy(_wanted(workspace, plans)) if backend.doctor else None
        if told is not None:
            found[target] = told
    if not found:
        raise UsageError(
            "no target asks for a policy: none is in a cloud", hint="`--on TARGET` names one that is"
        )
    if len(found) > 1:
        raise UsageError(
            f"several targets have a policy: {', '.join(found)}", hint=f"add `--on {next(iter(found))}`"
        )
    return next(iter(found.values()))


def _by_target(
    workspace: Workspace, names: Sequence[str], targets: Sequence[str]
) -> tuple[tuple[str, tuple[Plan, ...]], ...]:
    """The plans of each target; this computer with none where there is no definition."""
    from ingot.api.planning import possible

    if not (names or targets or (workspace.project / "ingot.yaml").exists()):
        return ((_LOCAL, ()),)
    found: dict[str, list[Plan]] = {}
    for plan in possible(workspace, names, targets=targets):
        found.setdefault(plan.target, []).append(plan)
    return tuple((target, tuple(plans)) for target, plans in found.items())


def _examined(workspace: Workspace, target: str, plans: tuple[Plan, ...]) -> Examined:
    from ingot.model.diagnosis import Diagnosis
    from ingot.model.views import Examined

    name, location = (plans[0].backend, plans[0].location) if plans else (_LOCAL, _LOCAL)
    try:
        backend = _open(workspace, plans)
    except IngotError as error:
        cause = Diagnosis(what=name, state="bad", message=error.message, hint=error.hint)
        return Examined(target=target, backend=name, location=location, findings=(cause,))
    if backend.doctor is None:
        none = Diagnosis(what=name, state="skipped", message="this backend has nothing to look at")
        return Examined(target=target, backend=name, location=backend.location, findings=(none,))
    wanted = _wanted(workspace, plans)
    return Examined(
        target=target,
        backend=name,
        location=backend.location,
        findings=tuple(backend.doctor.examine(wanted)),
        policy=backend.doctor.policy(wanted),
    )


def _open(workspace: Workspace, plans: Sequence[Plan]) -> Backend:
    name, options = (plans[0].backend, plans[0].options) if plans else (_LOCAL, {})
    return adapters.open_backend(
        workspace, name, options=options, directory=workspace.state.runs, project=bool(plans)
    )


def _wanted(workspace: Workspace, plans: Sequence[Plan]) -> tuple[Wanted, ...]:
    from ingot.ports import Wanted

    images = workspace.definition.images if plans else {}
    return tuple(
        Wanted(
            project=plan.project,
            image=plan.image,
            arch=plan.arch,
            disk=plan.disk,
            base=plan.base,
            machines=frozenset(
                [
                    *(layer.machine for layer in plan.layers),
                    *_check_machine(plan, images[plan.image].check_machine),
                ]
            ),
        )
        for plan in plans
    )


def _check_machine(plan: Plan, kind: str) -> tuple[str, ...]:
    return (kind,) if plan.checks else ()
