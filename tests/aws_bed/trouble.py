"""Trouble that a test asks for, and the list of calls that were made."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.aws_bed.wire import ApiError, Call

_NOT_FOUND = {
    "i-": "InvalidInstanceID.NotFound",
    "ami-": "InvalidAMIID.NotFound",
    "snap-": "InvalidSnapshot.NotFound",
    "vol-": "InvalidVolume.NotFound",
    "sg-": "InvalidGroup.NotFound",
}
_THROTTLED = {
    "ec2": ("RequestLimitExceeded", 503),
    "ebs": ("RequestThrottledException", 400),
}
_BEARS = {
    "RunInstances": ("i-", "vol-"),
    "CreateVolume": ("vol-",),
    "CreateSecurityGroup": ("sg-",),
    "CreateImage": ("ami-",),
    "RegisterImage": ("ami-",),
    "CopyImage": ("ami-",),
    "CreateSnapshot": ("snap-",),
    "CopySnapshot": ("snap-",),
}


@dataclass(kw_only=True, slots=True)
class Failure:
    """Calls of `action` (`*`: any) fail with `code`: `times` of them (0: for ever) after the first `after`."""

    action: str
    code: str
    message: str = "The bed was asked to let this call fail."
    status: int = 400
    times: int = 1
    after: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """What `POST /bed/trouble` may say; `{}` ends all trouble."""

    throttle_every: int = 0
    """Every n-th call is refused: "Request throttling for the Amazon EC2 API"."""
    lag: float = 0.0
    """Seconds for which what a call has made is not found: "Eventual consistency in the Amazon EC2 API"."""
    no_capacity: tuple[str, ...] = ()
    """Instance types of which there are none left."""
    end_failed: tuple[str, ...] = ()
    """`image`, `snapshot`: what is made from now on ends as failed."""
    block_limit: int = 0
    """PutSnapshotBlock calls at once beyond which ConcurrentLimitExceededException is the answer."""
    delays: Mapping[str, float] = field(default_factory=dict)
    """Delays other than the profile's."""
    fail: tuple[Failure, ...] = ()


def read_wish(text: Mapping[str, Any]) -> Wish:
    """The wish. Raises TypeError for a key that is not known."""
    about: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in text.items()
    }
    fail = tuple(Failure(**item) for item in text.get("fail", ()))
    return Wish(**(about | {"fail": fail}))


class Trouble:
    """What goes wrong on purpose. For many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.wish = Wish()
        self._count = 0
        self._born: dict[str, float] = {}
        self._calls: list[dict[str, Any]] = []

    def set(self, wish: Wish) -> None:
        """Takes the place of what was wished before."""
        with self._lock:
            self.wish, self._count = wish, 0

    def meet(self, call: Call) -> None:
        """Raises ApiError where this call is to fail. Notes it."""
        about = {"service": call.service, "action": call.action, "mutating": call.mutating}
        about |= {"at": time.time(), "agent": call.agent, "region": call.region, "account": call.account}
        with self._lock:
            self._calls.append(about)
            self._count += 1
            throttled = self.wish.throttle_every and self._count % self.wish.throttle_every == 0
            failure = next((item for item in self.wish.fail if _fits(item, call)), None)
        if throttled:
            code, status = _THROTTLED.get(call.service, ("ThrottlingException", 400))
            raise ApiError(code, "Request limit exceeded.", status=status)
        if failure:
            raise ApiError(failure.code, failure.message, status=failure.status)
        self._hide(call)

    def _hide(self, call: Call) -> None:
        for name in _ids(call.params):
            if self.hidden(name):
                code = next(code for prefix, code in _NOT_FOUND.items() if name.startswith(prefix))
                raise ApiError(code, f"The ID '{name}' does not exist")

    def hidden(self, name: str) -> bool:
        """Whether what bears this id is so new that it is not found yet."""
        return time.monotonic() - self._born.get(name, -1e9) < self.wish.lag

    @staticmethod
    def bears(call: Call) -> bool:
        """Whether the call makes something that may be hidden for a while."""
        return call.action in _BEARS

    def note_births(self, call: Call, answer: object) -> None:
        """Remembers since when there is what the call has made."""
        prefixes = _BEARS.get(call.action)
        if self.wish.lag and prefixes:
            with self._lock:
                for name in _ids(answer):
                    if name.startswith(prefixes):
                        self._born.setdefault(name, time.monotonic())

    def take_calls(self, *, reset: bool) -> list[dict[str, Any]]:
        """The calls since the last reset."""
        with self._lock:
            calls = list(self._calls)
            if reset:
                self._calls.clear()
        return calls


def _fits(failure: Failure, call: Call) -> bool:
    """Whether the failure is for this call; counts it."""
    if failure.action not in ("*", call.action):
        return False
    if failure.after > 0:
        failure.after -= 1
        return False
    if failure.times < 0:
        return False
    if failure.times > 0:
        failure.times -= 1 if failure.times > 1 else 2
    return True


def _ids(value: object) -> set[str]:
    if isinstance(value, str):
        return {value} if value.startswith(tuple(_NOT_FOUND)) else set()
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return set().union(*(_ids(part) for part in value)) if value else set()
    return set()
