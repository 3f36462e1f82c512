"""Keys: every field that counts moves them, no other does, and nobody moves them by accident.

`tests/data/planning/keys.json` holds the keys of one plan of each kind of step. A difference there means that everybody
who upgrades builds everything anew: raise `SCHEMA`, write a decision page, and only then `INGOT_GOLDEN=write`.
"""

from __future__ import annotations

import json
import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from ingot.model.definition import DebootstrapBase, DiskImageBase
from ingot.model.digest import Digest
from ingot.model.plan import LayerKey, base_key, layer_key
from ingot.model.step import (
    CloudInitStep,
    ContainersStep,
    FilesStep,
    PackagesStep,
    Place,
    PlaybookStep,
    RolesStep,
    ScriptStep,
    SealStep,
    Step,
)
from ingot.model.units import Seconds

from .trees import planned

GOLDEN = Path(__file__).parents[1] / "data/planning/keys.json"

_word = st.text(alphabet="abcdefghij", min_size=1, max_size=4)
_words = st.lists(_word, max_size=3).map(tuple)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | _word,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_word, inner, max_size=2),
    max_leaves=4,
)
_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "install": _words,
    "remove": _words,
    "recommends": st.booleans(),
    "epoch": _word,
    "vars": st.dictionaries(_word, _json, max_size=3),
    "groups": _words,
    "become": st.sampled_from([None, True, False]),
    "tags": _words,
    "skip_tags": _words,
    "engine": _word,
    "ansible": _word,
    "content": _word.map(Digest),
    "reads": st.lists(st.tuples(_word, _word), max_size=2).map(tuple),
    "roles": _words,
    "path": _word,
    "inline": _word,
    "args": _words,
    "env": st.dictionaries(_word, _word, max_size=2),
    "src": _word,
    "text": st.none() | _word,
    "dest": _word,
    "mode": st.sampled_from(["", "0644", "0600"]),
    "owner": _word,
    "group": _word,
    "version": st.integers(1, 9),
    "place": st.builds(Place, file=_word, line=st.integers(1, 99)),
    "layer": _word,
    "timeout": st.floats(1, 100).map(Seconds),
    "retries": st.integers(0, 5),
    "machine": st.sampled_from(["chroot", "booted"]),
    "images": _words,
    "tool": st.sampled_from(["", "podman", "enroot"]),
    "digests": _words,
}
_TYPES = (
    PackagesStep,
    RolesStep,
    PlaybookStep,
    ScriptStep,
    FilesStep,
    CloudInitStep,
    ContainersStep,
    SealStep,
)


@st.composite
def changes(draw: st.DrawFn) -> tuple[Step, Step, bool]:
    """A step, the same one with one field changed, and whether that field counts."""
    kind = draw(st.sampled_from(_TYPES))
    known = [field for field in fields(kind) if field.name != "kind"]
    step: Step = kind(**{field.name: draw(_VALUES[field.name]) for field in known})
    field = draw(st.sampled_from(known))
    value = draw(_VALUES[field.name])
    assume(value != getattr(step, field.name) or type(value) is not type(getattr(step, field.name)))
    changed = replace(step, **{field.name: value})
    return step, changed, field.metadata.get("key", True) is not False


def key(*steps: Step, parent: str = "sha256:p") -> str:
    return layer_key(LayerKey(parent), arch="x86_64", steps=steps)


@given(changes())
def test_a_field_moves_the_key_if_and_only_if_it_counts(change: tuple[Step, Step, bool]) -> None:
    step, changed, counts = change
    if step == changed:  # 1 and True: equal to Python, different on disk
        return
    assert (key(step) != key(changed)) == counts


def test_every_field_of_every_step_is_tried() -> None:
    assert {field.name for kind in _TYPES for field in fields(kind)} - {"kind"} == set(_VALUES)


@given(st.lists(_word, min_size=2, max_size=4, unique=True))
def test_order_and_grouping_of_steps_count(names: list[str]) -> None:
    steps = [PackagesStep(install=(name,)) for name in names]
    assert key(*steps) != key(*reversed(steps))
    assert key(*steps) != key(*steps[1:], parent=key(steps[0]))


def test_architecture_parent_and_size_count() -> None:
    parent = LayerKey("sha256:p")
    keys = {
        layer_key(parent, arch="x86_64", steps=()),
        layer_key(parent, arch="aarch64", steps=()),
        layer_key(LayerKey("sha256:q"), arch="x86_64", steps=()),
        layer_key(parent, arch="x86_64", steps=(), grow=2),
        layer_key(parent, arch="x86_64", steps=(), revs={"a": "1"}),
    }
    assert len(keys) == 5


def test_every_fact_of_a_base_counts() -> None:
    source = DebootstrapBase(suite="bookworm")
    image = DiskImageBase(url="https://x/y.qcow2", sha256="0" * 64)
    keys = {
        base_key(source, arch="x86_64", disk=1, pins={}),
        base_key(source, arch="aarch64", disk=1, pins={}),
        base_key(source, arch="x86_64", disk=2, pins={}),
        base_key(source, arch="x86_64", disk=1, pins={"a": "b"}),
        base_key(replace(source, components=("main", "contrib")), arch="x86_64", disk=1, pins={}),
        base_key(image, arch="x86_64", disk=1, pins={}),
        base_key(replace(image, sha256="1" * 64), arch="x86_64", disk=1, pins={}),
    }
    assert len(keys) == 7


def test_the_golden_keys_did_not_move() -> None:
    found = planned(
        [
            PackagesStep(install=("htop", "tmux"), remove=("nano",)),
            RolesStep(roles=("common",), vars={"a": [1, "x", None]}, groups=("slurm",)),
            PlaybookStep(path="site.yml", tags=("all",)),
            ScriptStep(path="harden.sh", args=("--all",), env={"A": "b"}),
            FilesStep(src="motd", dest="/etc/motd", mode="0644"),
            FilesStep(src="etc", dest="/etc"),
        ],
        {
            "roles/common/tasks/main.yml": "- ansible.builtin.debug: {msg: hello}\n",
            "roles/common/templates/a.j2": "{{ a }}\n",
            "group_vars/slurm.yml": "partition: debug\n",
            "site.yml": "- hosts: all\n  roles: [common]\n",
            "harden.sh": "#!/bin/sh\ntrue\n",
            "motd": "welcome\n",
            "etc/a/b": "c\n",
        },
        pins={"bookworm": "sha256:1"},
    )
    keys = {"base": found.base.key, **{layer.name: layer.key for layer in found.layers}}
    if os.environ.get("INGOT_GOLDEN") == "write":
        GOLDEN.write_text(json.dumps(keys, indent=2) + "\n")
    assert keys == json.loads(GOLDEN.read_text())
