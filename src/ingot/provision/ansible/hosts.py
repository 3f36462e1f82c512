"""The inventory: the machine as one host, beside whatever inventory the project has.

The host's name is always `default` (Packer's name for it, so `hosts: default` and `hosts: all` work as they stand).
It must not be the image's name: a template that prints `inventory_hostname` would then write different bytes for two
images whose layers have one key.

A playbook all of whose plays say `hosts: localhost` was written to run on the machine itself (Packer's ansible-local).
For such a playbook the machine is called `localhost`, and is reached over SSH whatever `connection` the play names.
Nothing else could be meant: it would set up the computer that builds. As soon as one play names another host,
`localhost` is that computer, as in any Ansible.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from ingot.ports import SshAccess
from ingot.provision.ansible.config import Config

_LOCAL = frozenset({"localhost", "127.0.0.1"})
_NAMES = ("inventory", "inventory.yml", "inventory.yaml", "inventory.ini", "hosts.yml", "hosts.yaml", "hosts.ini", "hosts")  # fmt: skip


class _AnyTag(yaml.SafeLoader):
    """Reads YAML whose tags (`!vault`, `!unsafe`) only Ansible knows."""


_AnyTag.add_multi_constructor("!", lambda loader, suffix, node: None)


def machine_name(playbook: Path) -> str:
    """What the machine is called for this playbook: `localhost` if no play is for anything else, else `default`."""
    names = set(_play_hosts(playbook, seen=set()))
    return "localhost" if names and names <= _LOCAL else "default"


def _play_hosts(playbook: Path, *, seen: set[Path]) -> Iterable[str]:
    """The `hosts` of all plays, imported playbooks included. What can't be read is left for Ansible to report."""
    if playbook in seen:
        return
    seen.add(playbook)
    try:
        plays = yaml.load(playbook.read_text(encoding="utf-8"), _AnyTag)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return
    for play in plays if isinstance(plays, list) else ():
        if not isinstance(play, Mapping):
            continue
        imported = play.get("import_playbook") or play.get("ansible.builtin.import_playbook")
        if imported:
            yield from _play_hosts(playbook.parent / str(imported), seen=seen)
        else:
            hosts = play.get("hosts")
            yield from map(str, hosts) if isinstance(hosts, list) else [str(hosts)]


def find_inventories(config: Config, root: Path) -> tuple[str, ...]:
    """The project's own inventories: as configured, else the first of the usual names beside ansible.cfg or ingot.yaml."""
    if configured := config.get("defaults", "inventory"):
        return tuple(
            part.strip() if part.strip().endswith(",") else str(path)
            for part, path in zip(
                configured.split(","), config.paths("defaults", "inventory", separator=","), strict=False
            )
        )
    for folder in dict.fromkeys((config.folder, root)):
        for name in _NAMES:
            if (folder / name).exists():
                return (str(folder / name),)
    return ()


def describe_machine(
    access: SshAccess, *, name: str, groups: tuple[str, ...], python: bool
) -> dict[str, Any]:
    """The machine as an inventory: how it is reached, its groups, and a few variables that anything may override.

    `ansible_ssh_args` and friends are set for this host alone, so that what ansible.cfg says of SSH holds for the hosts
    that tasks are delegated to. `ansible_user` lets Ansible see that `become: true` needs no sudo.
    """
    host = {
        "ansible_connection": "ssh",
        "ansible_host": access.host,
        "ansible_user": "root",
        "ansible_ssh_args": f"-F {access.config}",
        "ansible_ssh_common_args": "",
        "ansible_ssh_extra_args": "",
    }
    variables = {"packer_build_name": "ingot", "packer_builder_type": "ingot", "image_build": True}
    if python:
        variables["ansible_python_interpreter"] = "/usr/bin/python3"
    children: dict[str, Any] = {
        group: {"hosts": {name: {}}} for group in groups if group not in ("all", "ungrouped")
    }
    return {"all": {"hosts": {name: host}, "vars": variables, "children": children}}


def write_inventory(folder: Path, inventory: dict[str, Any], *, beside: Iterable[Path]) -> Path:
    """A folder with the inventory and links to the `group_vars` and `host_vars` of the first folder that has them."""
    folder.mkdir(mode=0o700)
    (folder / "hosts.json").write_text(json.dumps(inventory))
    for name in ("group_vars", "host_vars"):
        there = next((place / name for place in beside if (place / name).is_dir()), None)
        if there:
            (folder / name).symlink_to(there)
    return folder
