"""The project that `ingot init` begins with: small, and builds as it is."""

from __future__ import annotations

import json
from collections.abc import Mapping

from ingot.definition.fields import check_name
from ingot.definition.messages import Bad
from ingot.definition.schema import json_schema
from ingot.errors import UsageError

_DEFINITION = """\
# yaml-language-server: $schema=.ingot/schema.json
name: @NAME@

variables:
  greeting:
    type: string
    default: Welcome to @NAME@
    description: The first line that people see when they log in.

targets:
  local: {backend: local, disk: 8 GiB}

bases:
  debian-12:
    local: {debootstrap: bookworm}

images:
  node:
    base: debian-12
    targets: [local]
    steps:
      - packages: [htop]
      - roles: [greeting]
        vars: {greeting_text: "${greeting}"}
      - script:
          inline: |
            #!/bin/sh -e
            date --utc +%Y > /etc/built-in
    checks: [checks/]
"""

_TASKS = """\
---
- name: Write the message of the day
  ansible.builtin.copy:
    content: "{{ greeting_text }}\\n"
    dest: /etc/motd
    owner: root
    group: root
    mode: "0644"
"""

_DEFAULTS = """\
---
greeting_text: Welcome
"""

_SPECS = """\
---
argument_specs:
  main:
    short_description: A greeting for whoever logs in
    options:
      greeting_text:
        type: str
        default: Welcome
        description: The line that /etc/motd says.
"""

_CHECK = '''\
"""What an image must be: run by `ingot check` over SSH, after a real boot."""


def test_htop_is_installed(host):
    assert host.package("htop").is_installed


def test_people_are_greeted(host):
    motd = host.file("/etc/motd")
    assert motd.user == "root" and motd.mode == 0o644
    assert motd.content_string.strip()


def test_script_ran(host):
    assert host.file("/etc/built-in").content_string.strip().isdigit()
'''

_IGNORED = """\
# What Ingot writes beside a build; ingot.lock and .ingot/schema.json belong in version control.
/packer-manifest.json
/*.qcow2
/*.raw
/*.vhd
/*.vmdk
/*.tar.gz
__pycache__/
"""


def starter(name: str) -> Mapping[str, str]:
    """The files of a new project, by path relative to its folder. Raises UsageError for an unusable name."""
    own = {
        "ingot.yaml": _DEFINITION.replace("@NAME@", name),
        "checks/test_node.py": _CHECK,
        "roles/greeting/defaults/main.yml": _DEFAULTS,
        "roles/greeting/meta/argument_specs.yml": _SPECS,
        "roles/greeting/tasks/main.yml": _TASKS,
    }
    return begun_with(name, own)


def begun_with(name: str, own: Mapping[str, str]) -> Mapping[str, str]:
    """A project's own files, and those that every project has. Raises UsageError for an unusable name."""
    try:
        check_name(name)
    except Bad as error:
        raise UsageError(f"a project cannot be called that: {error}", hint=error.hint) from error
    schema = json.dumps(json_schema(), indent=2) + "\n"
    return {**own, ".ingot/schema.json": schema, ".gitignore": _IGNORED}
