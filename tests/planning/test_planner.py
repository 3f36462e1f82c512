"""Layers, names, disks, lineages and refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ingot.errors import DefinitionError, PlanError, UsageError
from ingot.model.definition import Definition, ImageDefinition, Target, Variable
from ingot.model.digest import plain
from ingot.model.plan import Plan
from ingot.model.secret import placeholder
from ingot.model.step import (
    CloudInitStep,
    ContainersStep,
    FilesStep,
    PackagesStep,
    Place,
    RolesStep,
    ScriptStep,
    Step,
)
from ingot.model.units import Bytes, Seconds
from ingot.planning.contents import Contents
from ingot.planning.planner import plan, select

from .trees import GIB, definition, planned, tree

HTOP = PackagesStep(install=("htop",))
TMUX = PackagesStep(install=("tmux",))
MOTD = FilesStep(text="hello", dest="/etc/motd")


def names(found: Plan) -> list[str]:
    return [layer.name for layer in found.layers]


def family() -> Definition:
    """node ← big ← huge, and a lone one; over two targets."""
    images = [
        ImageDefinition(name="huge", parent="big", disk=Bytes(20 * GIB), steps=(MOTD,), checks=("huge/",)),
        ImageDefinition(name="big", parent="node", steps=(TMUX,), checks=("big/", "common/")),
        ImageDefinition(name="lone", base="debian-12", targets=("local", "other")),
    ]
    known = definition(HTOP, images=images)
    node = replace(known.images["node"], checks=("common/",))
    targets = {**known.targets, "other": Target(name="other", backend="local")}
    return replace(known, images={**known.images, "node": node}, targets=targets)


def test_each_step_is_a_layer_and_the_seal_is_last_and_alone() -> None:
    found = planned([HTOP, MOTD])
    assert [len(layer.steps) for layer in found.layers] == [1, 1, 1]
    assert [layer.seals for layer in found.layers] == [False, False, True]
    assert names(found) == ["packages", "motd", "seal"]
    assert [layer.parent for layer in found.layers] == [found.base.key, *(x.key for x in found.layers[:-1])]
    assert found.key == found.layers[-1].key


def test_neighbours_that_name_a_layer_share_it() -> None:
    shared = [replace(step, layer="tools") for step in (HTOP, TMUX)]
    found = planned([*shared, MOTD, replace(HTOP, layer="tools")])
    assert names(found) == ["tools", "motd", "tools-2", "seal"]
    assert found.layers[0].steps == tuple(shared)


def test_names_are_readable_and_unique() -> None:
    found = planned(
        [
            HTOP,
            TMUX,
            RolesStep(roles=("ingot.cluster.slurm", "common")),
            ScriptStep(inline="true"),
            ScriptStep(path="bin/harden.sh"),
            FilesStep(text="", dest="/etc/a b/é"),
            replace(HTOP, layer="seal"),
        ],
        {
            "roles/common/tasks/main.yml": "[]",
            "ansible_collections/ingot/cluster/roles/slurm/tasks/main.yml": "[]",
            "bin/harden.sh": "true",
        },
    )
    assert names(found) == [
        *("packages", "packages-2", "slurm+common", "script", "harden", "files", "seal", "seal-2")
    ]
    assert len(set(names(found))) == len(found.layers)


def test_a_child_continues_its_parent_before_the_seal() -> None:
    known = family()
    parent, child = planned(known), planned(known, image="big")
    assert child.layers[0] == parent.layers[0]
    assert names(child) == ["packages", "packages-2", "seal"]
    assert child.base == parent.base
    assert child.key != parent.key


def test_a_larger_disk_is_a_layer_of_its_own() -> None:
    child = planned(family(), image="huge")
    assert names(child) == ["packages", "packages-2", "grow", "motd", "seal"]
    assert [layer.grow for layer in child.layers] == [None, None, 20 * GIB, None, None]
    assert child.disk == 20 * GIB
    assert child.base.disk == 8 * GIB


def test_a_disk_is_never_shrunk() -> None:
    known = family()
    small = replace(known.images["huge"], disk=Bytes(4 * GIB))
    with pytest.raises(PlanError, match=r"4\.0 GiB.*8\.0 GiB"):
        planned(replace(known, images={**known.images, "huge": small}), image="huge")


def test_checks_of_the_parent_come_first_and_once() -> None:
    assert planned(family(), image="huge").checks == ("common/", "big/", "huge/")


def test_everything_missing_is_told_at_once_with_its_place() -> None:
    steps: list[Step] = [
        ScriptStep(path="no.sh", place=Place(file="ingot.yaml", line=7, column=9)),
        FilesStep(src="no.conf", dest="/etc/x", place=Place(file="ingot.yaml", line=8, column=9)),
        RolesStep(roles=("slrum",), place=Place(file="ingot.yaml", line=9, column=9)),
    ]
    with pytest.raises(DefinitionError) as caught:
        planned(steps, {"roles/slurm/tasks/main.yml": "[]"})
    problems = caught.value.problems
    assert [problem.line for problem in problems] == [7, 8, 9]
    assert "slurm" in problems[2].hint


def test_an_unknown_backend_is_refused() -> None:
    known = definition(HTOP)
    known = replace(known, targets={"local": Target(name="local", backend="aws")})
    with pytest.raises(PlanError, match='"aws", which is not available in this version'):
        planned(known)


def test_a_base_that_says_nothing_of_the_target() -> None:
    known = definition(HTOP)
    bases = {"debian-12": replace(known.bases["debian-12"], sources={})}
    with pytest.raises(PlanError, match="says nothing of target"):
        planned(replace(known, bases=bases))


def test_secrets_are_named_and_their_revs_count() -> None:
    step = ScriptStep(inline=f"login {placeholder('token')}")
    first = Variable(name="token", sensitive=True, rev="1")
    one = planned(definition(step, secrets=[first]))
    two = planned(definition(step, secrets=[replace(first, rev="2")]))
    assert one.secrets == ("token",)
    assert one.layers[0].revs == {"token": "1"}
    assert one.layers[0].key != two.layers[0].key


def test_a_plan_knows_nothing_of_where_the_project_lies() -> None:
    known = definition(HTOP)
    assert planned(known) == planned(replace(known, root="/elsewhere"))


def test_how_a_step_is_run_does_not_move_keys() -> None:
    how = replace(HTOP, timeout=Seconds(1.0), retries=4, place=Place(file="x", line=3))
    assert planned([HTOP]).key == planned([how]).key


def test_pins_ansible_and_epoch_count() -> None:
    steps: list[Step] = [HTOP, RolesStep(roles=("a",))]
    files = {"roles/a/tasks/main.yml": "[]"}
    usual = planned(steps, files)
    assert usual.key == planned(steps, files, ansible="2.19.14").key
    assert usual.key != planned(steps, files, ansible="2.20.0").key
    assert usual.base.key != planned(steps, files, pins={"InRelease": "x"}).base.key
    assert usual.layers[0].key != planned(steps, files, epoch="2026-w47").layers[0].key


def test_selection_by_globs_parents_first() -> None:
    known = family()
    assert select(known) == (
        ("node", "local"),
        ("big", "local"),
        ("huge", "local"),
        ("lone", "local"),
        ("lone", "other"),
    )
    assert select(known, ["h*", "lone"], ["loc*"]) == (("huge", "local"), ("lone", "local"))


@pytest.mark.parametrize(
    ("images", "targets", "hint"),
    [
        (["nod"], [], "node"),
        (["zzz"], [], "there are"),
        ([], ["locale"], "local"),
        (["big"], ["other"], "targets"),
    ],
)
def test_a_glob_that_means_nothing_is_told(images: list[str], targets: list[str], hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        select(family(), images, targets)
    assert hint in caught.value.hint


def test_a_circle_is_refused() -> None:
    known = definition(images=[ImageDefinition(name="a", parent="b"), ImageDefinition(name="b", parent="a")])
    with pytest.raises(PlanError, match="continues itself"):
        planned(known, image="a")


def test_folders_count_by_names_bytes_and_modes() -> None:
    step = FilesStep(src="etc/", dest="/etc")
    base = {"etc/a": "1", "etc/sub/b": "2"}

    def key(files: dict[str, str], modes: dict[str, int] | None = None) -> str:
        found = plan(
            definition(step),
            image="node",
            target="local",
            tree=tree(files, modes=modes),
            pins=lambda *of: {},
            ansible="2.19",
        )
        return found.key

    others = [
        key({**base, "etc/a": "x"}),
        key({**base, "etc/c": ""}),
        key({"etc/a": "1", "etc/b": "2"}),
        key(base, {"etc/a": 0o755}),
    ]
    assert key(base) == key({**base, "outside": "x"})
    assert len({key(base), *others}) == 5


def test_the_name_counts_where_a_file_is_copied_into_a_folder() -> None:
    files = {"a": "1", "b": "1"}
    into = [planned([FilesStep(src=name, dest="/etc/")], files).key for name in "ab"]
    onto = [planned([FilesStep(src=name, dest="/etc/x")], files).key for name in "ab"]
    assert into[0] != into[1]
    assert onto[0] == onto[1]


def test_plans_are_plain_data() -> None:
    assert plain(planned(family(), image="huge"))["image"] == "huge"


def test_what_needs_a_system_gets_one_and_user_data_a_layer_of_its_own() -> None:
    made = planned(
        [
            PackagesStep(install=("podman",)),
            CloudInitStep(path="user-data.yaml"),
            ContainersStep(images=("docker.io/library/alpine:3.20",)),
        ],
        {"user-data.yaml": "#cloud-config\n"},
    )
    assert [layer.machine for layer in made.layers] == ["chroot", "booted", "booted", "chroot"]
    assert [layer.name for layer in made.layers] == ["packages", "user-data", "containers", "seal"]


def test_user_data_counts_by_its_bytes() -> None:
    step = CloudInitStep(path="user-data.yaml")
    keys = [
        planned([step], {"user-data.yaml": text}).key for text in ("#cloud-config\n", "#cloud-config\n#\n")
    ]
    assert keys[0] != keys[1]
    with pytest.raises(DefinitionError, match=r'the user-data file "user-data\.yaml" is not there'):
        planned([step], {})


def test_container_images_count_by_what_the_lock_says() -> None:
    fixed = f"docker.io/library/alpine@sha256:{'b' * 64}"
    steps = [ContainersStep(images=("docker.io/library/alpine:3.20", fixed))]

    def digests(known: dict[str, str]) -> tuple[Step, str]:
        contents = Contents(tree({}), digests=known)
        made = plan(
            definition(*steps),
            image="node",
            target="local",
            tree=tree({}),
            pins=lambda base, source, arch: {},
            ansible="2.19.3",
            contents=contents,
        )
        return made.layers[0].steps[0], made.key

    found, first = digests({"docker.io/library/alpine:3.20": "sha256:" + "a" * 64})
    assert isinstance(found, ContainersStep)
    assert found.digests == ("sha256:" + "a" * 64, "sha256:" + "b" * 64)
    assert digests({"docker.io/library/alpine:3.20": "sha256:" + "c" * 64})[1] != first
