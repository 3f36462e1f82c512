"""A snapshot that is being sent, as a temporary thing: until it is complete, it can be swept."""

from __future__ import annotations

from dataclasses import dataclass, field

from ingot.backends.aws.ebs_direct import SETTLES, EbsDirect, Started, Wish
from ingot.model.units import Seconds
from ingot.ports import Cancel, Token
from ingot.system.waits import Flag

KIND = "aws.snapshot"


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshots:
    """Implements `ports.Resource`. Without a wish it only finds and deletes.

    A complete snapshot is no temporary thing any more: `delete` leaves it, so that what a run's journal still tells of
    an upload that another run finished does no harm.
    """

    direct: EbsDirect
    wish: Wish | None = None
    cancel: Cancel = field(default_factory=Flag)
    replies: dict[str, Started] = field(default_factory=dict)
    """What the service said of those that were made here."""

    @property
    def kind(self) -> str:
        return KIND

    @property
    def settles(self) -> Seconds:
        return SETTLES

    def create(self, token: Token) -> str:
        """Begins a snapshot; the same call tags it."""
        assert self.wish is not None, "a resource without a wish only deletes"
        started = self.direct.start(self.wish, token, cancel=self.cancel)
        self.replies[started.snapshot] = started
        return started.snapshot

    def find(self, token: Token) -> str | None:
        """The snapshot of this token, complete or not."""
        return self.direct.find(token, cancel=self.cancel)

    def delete(self, ref: str) -> None:
        """Removes it unless it is complete; one that is gone is fine."""
        state, _ = self.direct.state(ref, cancel=self.cancel)
        if state != "completed":
            self.direct.delete(ref, cancel=self.cancel)
