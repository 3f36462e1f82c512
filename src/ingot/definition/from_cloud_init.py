"""A project made of user-data that starts a container, as dask-cloudprovider's clusters have it.

    text = EC2Cluster.get_cloud_init(docker_image="daskdev/dask:2025.9.0")
    files = definition_from_cloud_init(text, name="dask")

`docker run` becomes an image that is pulled, so that `EC2Cluster(ami=…, bootstrap=False)` only has to start it; packages,
files and commands become steps. Docker is the distribution's own: its vendor's archive and key are not needed.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ingot.definition.starter import begun_with
from ingot.errors import UsageError

_HINT = "give what `EC2Cluster.get_cloud_init(…)` returns"
_INSTEAD = {
    "apt-transport-https": "",
    "gnupg-agent": "gnupg",
    "docker-ce": "",
    "docker-ce-cli": "",
    "containerd.io": "",
}
"""Packages that newer distributions lack, or that docker's own archive has."""
_SETS_UP_DOCKER = re.compile(
    r"download\.docker\.com|get\.docker\.com|\bapt(-get)? .*install .*\bdocker(-ce|\.io)\b"
    r"|^systemctl (re)?(start|enable)\b.* docker(\.service)?$"
)
_UPDATES = re.compile(r"apt(-get)? update\b[^;&|]*")
_ENDS = re.compile(r"(shutdown|poweroff|reboot|halt)\b")
_LOGS_IN = re.compile(r"\bdocker login\b")
_SWITCHES = frozenset(
    [
        "-d",
        "--detach",
        "-i",
        "--interactive",
        "-t",
        "--tty",
        "-it",
        "-ti",
        "-P",
        "--publish-all",
        "--init",
        "--privileged",
        "--read-only",
        "--rm",
    ]
)
"""Options of `docker run` that take no value; all others are followed by one, or have it behind a `=`."""
_DEFINITION = """\
# yaml-language-server: $schema=.ingot/schema.json
# Made of the user-data of a cluster that starts {images}.
{left}name: {name}

targets:
  # The region is `AWS_DEFAULT_REGION`'s or the profile's; `region: us-west-2` says it here. A cluster whose
  # `filesystem_size` (40 GB where nothing is said) is smaller than `disk` cannot start.
  aws: {{backend: aws, disk: {disk}}}

bases:
  ubuntu-24.04:
    aws: {{owners: ["099720109477"], name: "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-*"}}

images:
  {name}:
    base: ubuntu-24.04
    steps:
{steps}    checks: [checks/]
"""
_CHECK = '''\
"""What a cluster needs of the image: run by `ingot check` over SSH, after a real boot."""

import pytest

IMAGES = {images}


def test_docker_runs(host):
    assert host.service("docker").is_enabled
    assert host.service("docker").is_running


@pytest.mark.parametrize("image", IMAGES)
def test_nothing_is_pulled_when_a_cluster_starts(host, image):
    with host.sudo():
        assert host.run("docker image inspect %s", image).rc == 0
'''


@dataclass(frozen=True, kw_only=True, slots=True)
class _Commands:
    """What `runcmd` comes to. `left` is what was left out and is of interest to its author."""

    script: tuple[str, ...]
    images: tuple[str, ...]
    left: tuple[str, ...]


def definition_from_cloud_init(text: str, *, name: str) -> Mapping[str, str]:
    """The files of a project, by path relative to its folder, whose one image has what the user-data asks for.

    Raises UsageError for what is not a `#cloud-config`, or starts no container, and for an unusable name.
    """
    config = _read(text)
    commands = _sort([_command(one) for one in _list(config, "runcmd")])
    if not commands.images:
        raise UsageError("the user-data starts no container: it has no `docker run`", hint=_HINT)
    packages, rest = _packages(_list(config, "packages")), _rest(config)
    steps: list[Any] = [{"packages": packages}]
    steps += [{"files": one} for one in map(_file, _list(config, "write_files"))]
    files = {"checks/test_image.py": _CHECK.format(images=json.dumps(commands.images))}
    if rest:
        steps.append({"cloud_init": "user-data.yaml"})
        files["user-data.yaml"] = f"#cloud-config\n{_yaml(rest)}"
    if commands.script:
        steps.append({"script": "bootstrap.sh"})
        files["bootstrap.sh"] = "\n".join(("#!/bin/sh", "set -e", *commands.script, ""))
    steps.append({"containers": {"images": list(commands.images), "with": "docker"}})
    definition = _DEFINITION.format(
        name=name,
        images=", ".join(commands.images),
        left="".join(f"# Left out: {one}.\n" for one in commands.left),
        disk="40 GiB" if any("nvidia" in line for line in commands.script) else "16 GiB",
        steps="".join(f"      {line}\n" for line in _yaml(steps).splitlines()),
    )
    return begun_with(name, {"ingot.yaml": definition, **files})


def _read(text: str) -> dict[str, Any]:
    import yaml

    if text.partition("\n")[0].strip() != "#cloud-config":
        raise UsageError("the user-data does not begin with `#cloud-config`", hint=_HINT)
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"the user-data is not YAML: {' '.join(str(error).split())}", hint=_HINT) from error
    if not isinstance(found, dict):
        raise UsageError("the user-data is no map of modules", hint=_HINT)
    return found


def _list(config: Mapping[str, Any], key: str) -> list[Any]:
    found = config.get(key) or []
    if not isinstance(found, list):
        raise UsageError(f"`{key}` of the user-data is no list", hint=_HINT)
    return found


def _command(written: object) -> str:
    return shlex.join(map(str, written)) if isinstance(written, list) else str(written).strip()


def _sort(commands: Sequence[str]) -> _Commands:
    script: list[str] = []
    images: list[str] = []
    left: list[str] = []
    for number, command in enumerate(commands):
        bare = command.removeprefix("sudo ")
        following = commands[number + 1] if number + 1 < len(commands) else ""
        if image := _image(bare):
            images.append(image)
        elif _LOGS_IN.search(bare):
            left.append("`docker login`, which would leave its password in the image")
        elif _UPDATES.fullmatch(bare) and _SETS_UP_DOCKER.search(following):
            continue
        elif not (_SETS_UP_DOCKER.search(bare) or _ENDS.match(bare)):
            script.append(command)
    return _Commands(
        script=tuple(script), images=tuple(dict.fromkeys(images)), left=tuple(dict.fromkeys(left))
    )


def _image(command: str) -> str:
    """The image that a `docker run` or `docker pull` names; "" for another command."""
    if not re.match(r"docker (run|pull)\b", command):
        return ""
    try:
        words = iter(shlex.split(command)[2:])
    except ValueError as error:
        raise UsageError(f"the command {command!r} cannot be read: {error}", hint=_HINT) from error
    for word in words:
        if not word.startswith("-"):
            return word
        if word not in _SWITCHES and "=" not in word:
            next(words, None)
    return ""


def _packages(written: Sequence[object]) -> list[str]:
    """docker, and what is asked for: names, or pairs of a name and a version."""
    names = ["=".join(map(str, one)) if isinstance(one, list) else str(one) for one in written]
    return list(
        dict.fromkeys(("docker.io", "iptables", *filter(None, (_INSTEAD.get(one, one) for one in names))))
    )


def _file(about: Mapping[str, Any]) -> dict[str, str]:
    """A `files` step of an entry of `write_files`. `$${` is how a definition writes `${`."""
    path = str(about.get("path", ""))
    text, encoding = str(about.get("content", "")), str(about.get("encoding", ""))
    try:
        if encoding in ("b64", "base64"):
            text = base64.b64decode(text, validate=True).decode()
        elif encoding not in ("", "text/plain") or about.get("append"):
            raise ValueError("it is compressed or appended")
    except (binascii.Error, ValueError) as error:
        raise UsageError(
            f"the file {path} of the user-data cannot be a `files` step: {error}",
            hint="leave it out, and write the step yourself",
        ) from error
    made = {"dest": path, "text": text.replace("${", "$${")}
    owner, _, group = str(about.get("owner", "")).partition(":")
    more = {"mode": str(about.get("permissions", "")), "owner": owner, "group": group}
    return {**made, **{key: value for key, value in more.items() if value}}


def _rest(config: Mapping[str, Any]) -> dict[str, Any]:
    """What no step stands for, and cloud-init itself is to do. The group `docker` comes with the package."""
    rest = {key: value for key, value in config.items() if key not in ("packages", "write_files", "runcmd")}
    if rest.get("groups") in (["docker"], "docker"):
        del rest["groups"]
    if rest.get("system_info") == {"default_user": {"groups": ["docker"]}}:
        del rest["system_info"]
    return {key: value for key, value in rest.items() if not key.startswith(("package_up", "package_re"))}


def _yaml(value: object) -> str:
    import yaml

    class Dumper(yaml.SafeDumper):
        def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
            super().increase_indent(flow, False)

    def text(dumper: yaml.SafeDumper, data: str) -> yaml.ScalarNode:
        return dumper.represent_scalar("tag:yaml.org,2002:str", data, style="|" if "\n" in data else None)

    Dumper.add_representer(str, text)
    return yaml.dump(value, Dumper=Dumper, sort_keys=False, width=100)
