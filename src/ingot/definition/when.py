"""`when`: a boolean, or a Jinja2 expression over variables and matrix values, as Ansible users write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ingot.definition.suggest import did_you_mean
from ingot.model.secret import secret_names

NEEDS_REBOOT = "needs_reboot"
"""What a `reboot` step may ask of the machine itself."""
_LONGEST = 1000


class WhenError(ValueError):
    """An expression that gives no answer: what is wrong, and a hint."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def decide(expression: str | bool, values: Mapping[str, Any]) -> bool:
    """Whether the step is kept. Raises WhenError for an expression that is not sound, or not true or false."""
    if isinstance(expression, bool):
        return expression
    if len(expression) > _LONGEST:
        raise WhenError(
            f"the expression is longer than {_LONGEST} characters", hint="compute it in a variable"
        )
    if not expression.strip():
        raise WhenError("the expression is empty", hint="remove `when`, or write true or false")
    if "{{" in expression or "{%" in expression:
        raise WhenError("`when` is an expression already", hint="write bare names, without {{ }}")
    answer = _evaluate(expression, values)
    if not isinstance(answer, bool):
        kind = "nothing" if answer is None else type(answer).__name__
        raise WhenError(
            f"the expression is neither true nor false but {kind}",
            hint="compare it, such as `workload_manager == 'slurm'`",
        )
    return answer


def _evaluate(expression: str, values: Mapping[str, Any]) -> Any:
    # Jinja2 is imported only where a condition is written: most definitions load without it.
    import jinja2
    from jinja2 import nodes
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined)
    environment.globals.clear()
    try:
        tree = environment.parse("{{ (" + expression + "\n) }}")
        # What can multiply work without bound has no place in a condition.
        refused = next(tree.find_all((nodes.Call, nodes.Pow, nodes.Mul)), None)
        names = [node.name for node in tree.find_all(nodes.Name)]
    except (jinja2.TemplateSyntaxError, RecursionError, ValueError) as error:
        said = getattr(error, "message", None) or "it is nested too deeply"
        raise WhenError(
            f"this is not an expression: {said}", hint="such as `workload_manager == 'slurm'`"
        ) from None
    if refused is not None:
        raise WhenError(
            "calls and products cannot stand in `when`", hint="compare with `==`, `in`, `and`, `or`, `not`"
        )
    for name in names:
        _refuse(name, values)
    try:
        return environment.compile_expression(expression, undefined_to_none=False)(**values)
    except Exception as error:  # the expression is the user's: whatever it raises is their news, not our bug
        hint = "it is worked out from variables and matrix values alone"
        raise WhenError(f"the expression fails: {error}"[:300], hint=hint) from None


def _refuse(name: str, values: Mapping[str, Any]) -> None:
    if name not in values:
        if name == NEEDS_REBOOT:
            raise WhenError(
                f"`{name}` is asked of the machine, and only by a `reboot` step",
                hint="write `- {reboot: true, when: needs_reboot}` as a step of its own",
            )
        hint = did_you_mean(name, values)
        facts = "facts of the machine are not known here: use them in the role or playbook"
        raise WhenError(f"there is no variable `{name}`", hint=hint if hint.startswith("did") else facts)
    if secret_names(values[name]):
        raise WhenError(f"`{name}` is sensitive and cannot decide what is built", hint="use a plain variable")
