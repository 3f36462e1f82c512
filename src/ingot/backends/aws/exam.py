"""What every look at an account stands on: the target, what is wanted of it, and short answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ingot.backends.aws.cloud import Cloud
from ingot.backends.aws.instances import TYPES
from ingot.backends.aws.shape import TargetShape
from ingot.model.diagnosis import Diagnosis, State
from ingot.ports import Wanted


@dataclass(frozen=True, kw_only=True, slots=True)
class Exam:
    """One target at one region."""

    cloud: Cloud
    settings: TargetShape
    wanted: Sequence[Wanted]

    @property
    def region(self) -> str:
        return self.cloud.region

    @property
    def arches(self) -> tuple[str, ...]:
        """The architectures that are built for."""
        return tuple(dict.fromkeys(one.arch for one in self.wanted)) or ("x86_64",)

    def types(self, arch: str) -> Sequence[str]:
        """The instance types that are tried, in this order."""
        return self.settings.instance_type or TYPES[arch]

    @property
    def shared(self) -> bool:
        """Whether anybody else is to launch the images."""
        share = self.settings.share
        return bool(share.accounts or share.organizations or share.units)


Look = Callable[[Exam], Iterator[Diagnosis]]
"""One look: what it raises is told as a finding by `doctor`."""


def found(what: str, state: State, message: str, hint: str = "") -> Diagnosis:
    """A finding."""
    return Diagnosis(what=what, state=state, message=message, hint=hint)
