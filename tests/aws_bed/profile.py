"""How long things take here."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace


@dataclass(frozen=True, kw_only=True, slots=True)
class Delays:
    """Seconds from a call until what it asks for is done; a machine that really takes longer takes longer."""

    launch: float = 0.02
    stop: float = 0.02
    terminate: float = 0.02
    snapshot: float = 0.05
    image: float = 0.02
    """From complete snapshots to an available image."""
    copy: float = 0.05

    def scaled(self, factor: float) -> Delays:
        """All of them, `factor` times as long."""
        return replace(self, **{item.name: getattr(self, item.name) * factor for item in fields(self)})


PROFILES = {
    "fast": Delays(),
    "realistic": Delays(launch=15.0, stop=20.0, terminate=20.0, snapshot=60.0, image=5.0, copy=120.0),
}
