"""Why a layer is built anew. The cases are data: `tests/data/planning/explain/cases.yaml`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from ingot.model.definition import Variable
from ingot.model.digest import plain
from ingot.model.plan import LayerKey, Plan
from ingot.model.secret import placeholder
from ingot.model.step import ScriptStep
from ingot.planning.explain import explain

from .trees import definition, planned, step_from

CASES = yaml.safe_load((Path(__file__).parents[1] / "data/planning/explain/cases.yaml").read_text())


def plan_from(case: dict[str, Any]) -> Plan:
    """The plan of a case's steps and files."""
    steps = [step_from(step) for step in case["steps"]]
    return planned(
        definition(*steps, disk=case.get("disk", 8 * 2**30)),
        case.get("files"),
        ansible=case.get("ansible", "2.19.0"),
        pins=case.get("pins"),
        epoch=case.get("epoch", ""),
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["why"])
def test_the_news(case: dict[str, Any]) -> None:
    now = plan_from(case.get("after") or case["before"])
    before = plan_from(case["before"]) if "before" in case else None
    previous = json.loads(json.dumps(plain(before))) if before else None
    keys = {now.base.name: now.base.key, **{layer.name: layer.key for layer in now.layers}}
    there = {keys[name] for name in case.get("have", ())}
    news = explain(now, previous=previous, have=there.__contains__)
    assert [" ".join(filter(None, (one.name, one.status, one.reason))) for one in news] == case["news"]
    assert [one.key for one in news] == list(keys.values())


def test_a_secret_is_named_and_not_compared() -> None:
    step = ScriptStep(inline=f"login {placeholder('token')}")
    known = definition(step, secrets=[Variable(name="token", sensitive=True, rev="1")])
    plan = planned(known)
    news = explain(plan, previous=None, have={plan.key}.__contains__)
    assert news[1].reason == "secret token: value not compared"
    assert news[2].reason == ""
    later = planned(replace(known, variables={"token": Variable(name="token", sensitive=True, rev="2")}))
    changed = explain(later, previous=plain(plan), have=lambda key: False)
    assert changed[1].reason == "rev.token: 1 → 2"


def test_a_changed_text_with_a_secret_shows_its_name() -> None:
    old = planned([ScriptStep(inline=f"a {placeholder('token')}")])
    new = planned([ScriptStep(inline=f"b {placeholder('token')}")])
    assert explain(new, previous=plain(old), have=lambda key: False)[1].reason == (
        "inline: a ${token} → b ${token}"
    )


def test_the_deepest_layer_is_asked_for_first_and_only_once_there() -> None:
    plan = planned([ScriptStep(inline="a"), ScriptStep(inline="b")])
    asked: list[LayerKey] = []

    def have(key: LayerKey) -> bool:
        asked.append(key)
        return True

    explain(plan, previous=None, have=have)
    assert asked == [plan.key]


@pytest.mark.parametrize("previous", [{}, {"base": None, "layers": []}, {"layers": [{}], "base": {}}])
def test_an_older_record_that_lacks_things_does_no_harm(previous: dict[str, Any]) -> None:
    plan = planned([ScriptStep(inline="a")])
    news = explain(plan, previous=previous, have=lambda key: False)
    assert {one.reason for one in news} == {"never built"}
