"""Applies steps to machines: packages, roles and playbooks (with Ansible), scripts, files and the seal."""

from __future__ import annotations

from ingot.provision.apply import Provisioners
from ingot.provision.inventory import MachineInventory
from ingot.provision.places import collections_path

__all__ = ["MachineInventory", "Provisioners", "collections_path"]
