"""What all machines of a run share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ingot.backends.local.network import Service


@dataclass(frozen=True, kw_only=True, slots=True)
class Surroundings:
    """The folder for the run's keys, the caller's environment, and package downloads."""

    keys: Path
    environment: Mapping[str, str]
    downloads: Service | None = None
