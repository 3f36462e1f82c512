"""Calls to AWS: one session, one place that tries again, one that turns what AWS says into errors of ours."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from ingot import __version__
from ingot.backends.aws.trouble import translated
from ingot.errors import BackendError, NotFoundError, TransientError
from ingot.model.events import Emit, ignore
from ingot.model.units import Seconds
from ingot.ports import Cancel
from ingot.system.waits import Flag, poll

T = TypeVar("T")
Answer = Mapping[str, Any]

_PATIENCE = Seconds(120.0)
"""For how long a call is tried again that AWS wants to be made later."""
_PAUSE = Seconds(1.0)
_SETTLES = Seconds(60.0)


_LONG = Seconds(4 * 3600.0)
"""Hundreds of GiB take hours to be copied; nothing is thrown away where it takes longer."""


class Cloud:
    """One account at one region, as boto3 finds it: environment, profile, SSO, assumed role, endpoint addresses.

    Safe for several threads.
    """

    def __init__(
        self,
        region: str,
        *,
        profile: str = "",
        pause: Seconds = _PAUSE,
        settles: Seconds = _SETTLES,
        patience: Seconds = _PATIENCE,
    ) -> None:
        self.region = region
        self.pause = pause
        """Between two looks at what takes time."""
        self.settles = settles
        """How old a thing may be that is not listed yet."""
        self._patience = patience
        self._profile = profile
        self._clients: dict[tuple[str, str], Any] = {}
        self._making = threading.Lock()
        self._session: Any = None  # its stubs know clients by their names alone

    def client(self, service: str, region: str = "", **config: Any) -> Any:
        """A client that neither tries again by itself nor waits for ever; made once for each service and region."""
        import botocore.config

        region = region or self.region
        with self._making:
            if (service, region) not in self._clients:
                settings = botocore.config.Config(
                    retries={"total_max_attempts": 1},
                    connect_timeout=min(10.0, self._patience),
                    read_timeout=min(60.0, self._patience),
                    user_agent_extra=f"ingot/{__version__}",
                    **config,
                )
                with translated(f"opening {service}", region=region):
                    made = self._opened().client(service, region_name=region or None, config=settings)
                self._clients[service, region] = made
            return self._clients[service, region]

    def _opened(self) -> Any:
        if self._session is None:
            import boto3

            self._session = boto3.Session(profile_name=self._profile or None, region_name=self.region or None)
        return self._session

    def ask(
        self,
        operation: str,
        *,
        service: str = "ec2",
        region: str = "",
        cancel: Cancel | None = None,
        **parameters: Any,
    ) -> Answer:
        """The answer of one call, such as `describe_images`. Tried again where AWS asks for that.

        Raises BackendError, NotFoundError for what is not there, DeadlineError where AWS was busy all the time.
        """
        where = region or self.region
        call = getattr(self.client(service, where), operation)

        def once() -> tuple[Answer]:
            with translated(operation, region=where):
                return (call(**parameters),)

        return poll(
            once,
            what=f"AWS's answer to {operation}",
            every=self.pause,
            deadline=self._patience,
            cancel=cancel or Flag(),
        )[0]

    def list(
        self, operation: str, key: str, *, service: str = "ec2", region: str = "", **parameters: Any
    ) -> Iterator[Any]:
        """What the pages of a listing hold under `key`."""
        token: dict[str, Any] = {}
        while True:
            answer = self.ask(operation, service=service, region=region, **parameters, **token)
            yield from answer.get(key) or ()
            if not answer.get("NextToken"):
                return
            token = {"NextToken": answer["NextToken"]}

    def wait(
        self,
        probe: Callable[[], T | None],
        *,
        what: str,
        deadline: Seconds,
        cancel: Cancel,
        fresh: bool = False,
        emit: Emit = ignore,
        subject: str = "",
    ) -> T:
        """The first answer of `probe` that is not None; see `waits.poll`.

        What is `fresh`, only just asked for, is not looked at at once: it never is there yet.
        """
        if fresh:
            cancel.wait(self.pause)
        return poll(
            probe,
            what=what,
            every=self.pause,
            deadline=deadline,
            cancel=cancel,
            emit=emit,
            subject=subject,
        )


def await_image(
    cloud: Cloud,
    ami: str,
    *,
    region: str = "",
    fresh: bool = True,
    cancel: Cancel,
    emit: Emit = ignore,
    subject: str = "",
) -> Answer:
    """An AMI as EC2 describes it, once it is available. Raises BackendError for one that could not be made."""
    where = region or cloud.region

    def available() -> Answer | None:
        try:
            found = cloud.ask("describe_images", region=where, ImageIds=[ami])["Images"]
        except NotFoundError as error:  # EC2 may not list yet what it has just made
            raise TransientError(str(error)) from error
        image: Answer = found[0] if found else {}
        state = image.get("State", "pending")
        if state in ("failed", "error", "invalid"):
            why = image.get("StateReason", {}).get("Message", "no reason given")
            raise BackendError(
                f"the AMI {ami} in {where} is {state}: {why}",
                hint="deregister it and build again: finished layers are kept",
            )
        return image if state == "available" else None

    return cloud.wait(
        available,
        what=f"the AMI {ami} in {where}",
        deadline=_LONG,
        cancel=cancel,
        fresh=fresh,
        emit=emit,
        subject=subject,
    )


def await_snapshot(cloud: Cloud, name: str, *, cancel: Cancel) -> Answer:
    """A snapshot as EC2 describes it, once it is complete. Raises BackendError for one that could not be made."""

    def complete() -> Answer | None:
        found: Answer = cloud.ask("describe_snapshots", SnapshotIds=[name])["Snapshots"][0]
        if found["State"] == "error":
            raise BackendError(
                f"EBS could not make the snapshot {name}: {found.get('StateMessage', 'no reason given')}",
                hint="build again: finished layers are kept",
            )
        return found if found["State"] == "completed" else None

    return cloud.wait(complete, what=f"the snapshot {name}", deadline=_LONG, cancel=cancel)
