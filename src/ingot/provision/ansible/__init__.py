"""Roles and playbooks, applied by the real Ansible: one process a step, straight to the machine over SSH."""

from __future__ import annotations

from ingot.provision.ansible.play import AnsibleProject, Started, apply, fetch_requirements, start

__all__ = ["AnsibleProject", "Started", "apply", "fetch_requirements", "start"]
