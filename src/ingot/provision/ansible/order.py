"""The order that a run of Ansible gets on its standard input, and what it may read without being counted."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

LAUNCHER = Path(__file__).with_name("launch.py")


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What `launch.py` is to do. `variables` and `vault_password` may hold secrets, so it is never written down.

    `engines` are tried in turn; the next one only where the one before did not start. `strategies` names, for each
    engine, the strategy plugin to use by default ("" leaves it to ansible.cfg). `mark` begins each line that is a
    record: nothing that a machine prints can begin with it, for it is made anew for each run. Files below
    `uncounted` are not recorded as read.
    """

    arguments: tuple[str, ...]
    engines: tuple[str, ...]
    strategies: Mapping[str, str]
    uncounted: tuple[str, ...]
    variables: Mapping[str, Any] = field(default_factory=dict)
    vault_password: str = field(default="", repr=False)
    mark: str = field(default_factory=lambda: f"\x1e{secrets.token_hex(8)} ")

    def encode(self) -> bytes:
        """As JSON."""
        return json.dumps(asdict(self)).encode()


def program(engine: str) -> list[str]:
    """The command line that runs an order, soonest with this engine. -P: a project's folder is no place for modules."""
    return [sys.executable, "-P", str(LAUNCHER), engine]
