"""What a definition can say of AWS, and what it is told where that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingot.backends import find_shape
from ingot.definition.load import load
from ingot.errors import DefinitionError
from ingot.model.definition import CloudBase

PROJECT = """\
name: acme
targets:
  aws: {{backend: aws, {target}}}
bases:
  debian-12:
    aws: {base}
images:
  node: {{base: debian-12}}
"""
BASE = '{owners: ["136693071363"], name: "debian-12-amd64-*"}'
WORDS = "`{project}`, `{image}`, `{target}`, `{run}`, `{arch}`, `{created}`, `{digest}`"
KEY = "arn:aws:kms:us-west-2:123456789012:key/a"


def problems(folder: Path, *, target: str = "region: us-west-2", base: str = BASE) -> list[str]:
    (folder / "ingot.yaml").write_text(PROJECT.format(target=target, base=base))
    try:
        load(folder, shape_of=find_shape)
    except DefinitionError as error:
        return [f"{one.path}: {one.message} ({one.hint})" for one in error.problems]
    return []


def test_a_sound_definition(tmp_path: Path) -> None:
    target = (
        "region: us-west-2, instance_type: [c7i.large, c6i.large], user: admin, copy_to: [us-east-1], "
        'share: {accounts: ["123456789012"]}'
    )
    assert problems(tmp_path, target=target) == []
    definition = load(tmp_path, shape_of=find_shape).definition
    made = definition.targets["aws"]
    assert (made.location, made.checkpoints) == ("us-west-2", 4)
    source = definition.bases["debian-12"].sources["aws"]
    assert source == CloudBase(backend="aws", query={"owners": ["136693071363"], "name": "debian-12-amd64-*"})


def test_the_region_is_what_boto3_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    config = tmp_path / "config"
    config.write_text("[profile there]\nregion = eu-north-1\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    assert problems(tmp_path, target="profile: there") == []
    assert load(tmp_path, shape_of=find_shape).definition.targets["aws"].location == "eu-north-1"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    problems(tmp_path, target="user: admin")
    assert load(tmp_path, shape_of=find_shape).definition.targets["aws"].location == "eu-west-1"


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("regions: us-west-2", "targets.aws.regions: there is no key `regions` (did you mean `region`?)"),
        ("region: west", "targets.aws.region: 'west' is not a region (such as `us-west-2`)"),
        (
            "instance_type: [c7i.large, c6i]",
            "targets.aws.instance_type[1]: 'c6i' is not an instance type (such as `c7i.large`)",
        ),
        (
            "share: {accounts: [123456789012]}",
            'targets.aws.share.accounts[0]: text is asked for, not the number 123456789012 (quote it: "123456789012")',
        ),
        (
            "allow_from: [anywhere]",
            "targets.aws.allow_from[0]: 'anywhere' is not a network (such as `198.51.100.7/32`)",
        ),
        (
            "imds: v1",
            "targets.aws.imds: the text 'v1' is not a choice (known: `optional`, `v2.0`)",
        ),
        (
            'ami_name: "x-{sha}"',
            f"targets.aws.ami_name: `{{sha}}` is not known here (known: {WORDS})",
        ),
        ('tags: {Sha: "{sha}"}', f"targets.aws.tags.Sha: `{{sha}}` is not known here (known: {WORDS})"),
        ('parameter: "/x/{name}"', f"targets.aws.parameter: `{{name}}` is not known here (known: {WORDS})"),
        (
            'ami_name: "{image"',
            "targets.aws.ami_name: '{image' cannot be read: expected '}' before end of string "
            f"(known: {WORDS}; a brace itself is written twice)",
        ),
        (
            "parallelcluster: {version: '3', os: alinux2023}",
            "targets.aws.parallelcluster.version: '3' is not a version of ParallelCluster (such as `3.11.1`)",
        ),
        (
            "parallelcluster: {version: 3.11.1}",
            "targets.aws.parallelcluster: `os` is missing (add `os: …`)",
        ),
    ],
)
def test_a_wrong_target(tmp_path: Path, target: str, said: str) -> None:
    assert problems(tmp_path, target=target) == [said]


def test_what_nobody_else_could_launch(tmp_path: Path) -> None:
    share = 'region: us-west-2, share: {accounts: ["123456789012"]}'
    (told,) = problems(tmp_path, target=f"{share}, encrypt: true")
    assert "EBS's own key in us-west-2" in told and "set `kms_key`" in told
    (told,) = problems(tmp_path, target=f'{share}, kms_key: "{KEY}", copy_to: [us-east-1]')
    assert "EBS's own key in us-east-1" in told
    copy = f'copy_to: [{{region: us-east-1, kms_key: "{KEY}"}}]'
    assert problems(tmp_path, target=f'{share}, kms_key: "{KEY}", {copy}') == []


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ("{}", "a base says one of `ami`, `ssm` and `name`, and this says none of them"),
        ("{ami: ami-0123456789abcdef0, name: x, owners: [self]}", "this says `ami` and `name`"),
        ('{name: "debian-*"}', "a `name` without `owners` would take anybody's image"),
        ("{ami: i-1}", "'i-1' is not an AMI's id"),
        ("{owners: [136693071363], name: x}", 'quote it: "136693071363"'),
    ],
)
def test_a_wrong_base(tmp_path: Path, base: str, said: str) -> None:
    (told,) = problems(tmp_path, base=base)
    assert said in told
