"""The calls of the EBS direct APIs that write a snapshot, and EC2's that tell what became of it.

Each call is one request: the clients are made with `CLIENT`, which keeps botocore from trying again, and `ask` is the one
layer that does. Whatever goes wrong is told as an error of ours.
"""

from __future__ import annotations

import contextlib
import random
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ingot.errors import BackendError, IngotError, NotFoundError, RefusedError, TransientError
from ingot.model.units import Seconds
from ingot.ports import Cancel, Token
from ingot.ports.disks import BLOCK
from ingot.system.waits import poll

if TYPE_CHECKING:
    from mypy_boto3_ebs import EBSClient
    from mypy_boto3_ec2 import EC2Client

T = TypeVar("T")
State = Literal["pending", "completed", "error", "gone"]

TOKEN_TAG = "ingot:token"
THREADS = 32
"""Requests at once. EBS takes a thousand blocks a second of a snapshot; more threads than this gain nothing in Python."""
PATIENCE = Seconds(600.0)
"""For how long a call is tried again."""
SETTLES = Seconds(120.0)
"""For how long after StartSnapshot some of the service may not know the snapshot yet."""

_TRANSIENT = frozenset(
    {
        "ConcurrentLimitExceededException",
        "InternalServerException",
        "InternalError",
        "InternalFailure",
        "Unavailable",
        "ServiceUnavailable",
        "ServiceUnavailableException",
        "RequestTimeout",
        "RequestTimeoutException",
        "RequestThrottled",
        "RequestThrottledException",
        "RequestLimitExceeded",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
_TRANSIENT_REASONS = frozenset({"WRITE_REQUEST_TIMEOUT", "CONFLICTING_BLOCK_UPDATE"})
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired"})
_UNKNOWN = frozenset(
    {"UnrecognizedClientException", "InvalidClientTokenId", "AuthFailure", "SignatureDoesNotMatch"}
)
_DENIED = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"})
_QUOTA = frozenset({"ServiceQuotaExceededException", "SnapshotLimitExceeded", "PendingSnapshotLimitExceeded"})


def client_options(*, threads: int = THREADS) -> dict[str, Any]:
    """Arguments of `botocore.config.Config` for a client: one attempt, explicit time limits, a connection a thread."""
    return {
        "retries": {"mode": "standard", "total_max_attempts": 1},
        "connect_timeout": 10,
        "read_timeout": 60,
        "max_pool_connections": threads,
        "tcp_keepalive": True,
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """What is asked of StartSnapshot. A delta takes encryption and key from its parent: `encrypted` and `key` do not
    apply to it."""

    gib: int
    parent: str = ""
    description: str = ""
    encrypted: bool = False
    """With the account's default key, unless `key` names one. Where the account encrypts by default, it does in any case."""
    key: str = ""
    """The key's ARN."""
    tags: Mapping[str, str] = field(default_factory=dict)
    minutes: int = 24 * 60
    """After how long without a new block the service gives the snapshot up: 10 to 4320."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Started:
    """The reply to StartSnapshot."""

    snapshot: str
    encrypted: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class EbsDirect:
    """The two clients that an upload needs, of one account and region. For several threads."""

    ebs: EBSClient
    ec2: EC2Client

    def start(self, wish: Wish, token: Token, *, cancel: Cancel) -> Started:
        """Begins a snapshot that bears the token; asked twice with one token, it is the same snapshot."""
        asked: dict[str, Any] = {
            "VolumeSize": wish.gib,
            "ClientToken": token,
            "Timeout": wish.minutes,
            "Tags": [{"Key": key, "Value": value} for key, value in {**wish.tags, TOKEN_TAG: token}.items()],
        }
        if wish.description:
            asked["Description"] = wish.description
        if wish.parent:
            asked["ParentSnapshotId"] = wish.parent
        elif wish.encrypted or wish.key:
            asked |= {"Encrypted": True} | ({"KmsKeyArn": wish.key} if wish.key else {})
        reply = ask(lambda: self.ebs.start_snapshot(**asked), what="the start of a snapshot", cancel=cancel)
        if reply.get("BlockSize", BLOCK) != BLOCK:
            raise BackendError(
                f"the snapshot {reply['SnapshotId']} has blocks of {reply['BlockSize']} bytes, not {BLOCK}",
                hint="report it: the service has always had blocks of 512 KiB",
            )
        encrypted = bool(reply.get("KmsKeyArn")) or reply.get("SseType", "none") != "none"
        return Started(snapshot=reply["SnapshotId"], encrypted=encrypted)

    def put(
        self,
        snapshot: str,
        index: int,
        data: bytes,
        checksum: bytes,
        *,
        fresh: Callable[[], bool],
        cancel: Cancel,
    ) -> None:
        """Sends one block. While a snapshot is `fresh`, not every part of the service may know it yet."""

        def once() -> object:
            return self.ebs.put_snapshot_block(
                SnapshotId=snapshot,
                BlockIndex=index,
                BlockData=data,
                DataLength=len(data),
                Checksum=b64encode(checksum).decode(),
                ChecksumAlgorithm="SHA256",
            )

        ask(once, what=f"the upload of block {index} to {snapshot}", fresh=fresh, cancel=cancel)

    def complete(self, snapshot: str, count: int, checksum: bytes, *, cancel: Cancel) -> None:
        """Ends a snapshot to which so many blocks were sent; `checksum` is that of their checksums."""
        ask(
            lambda: self.ebs.complete_snapshot(
                SnapshotId=snapshot,
                ChangedBlocksCount=count,
                Checksum=b64encode(checksum).decode(),
                ChecksumAlgorithm="SHA256",
                ChecksumAggregationMethod="LINEAR",
            ),
            what=f"the completion of {snapshot}",
            cancel=cancel,
        )

    def state(self, snapshot: str, *, cancel: Cancel) -> tuple[State, str]:
        """What EC2 says of a snapshot, and its message with that."""
        try:
            reply = ask(
                lambda: self.ec2.describe_snapshots(SnapshotIds=[snapshot]),
                what=f"the state of {snapshot}",
                cancel=cancel,
            )
        except NotFoundError:
            return "gone", ""
        found = reply["Snapshots"][0]
        state = found["State"]
        return ("error" if state not in ("pending", "completed") else state), found.get("StateMessage", "")

    def find(self, token: Token, *, cancel: Cancel) -> str | None:
        """The snapshot that bears a token."""
        wanted: Any = [{"Name": f"tag:{TOKEN_TAG}", "Values": [token]}]
        reply = ask(
            lambda: self.ec2.describe_snapshots(OwnerIds=["self"], Filters=wanted),
            what=f"the snapshot of {token}",
            cancel=cancel,
        )
        return next((found["SnapshotId"] for found in reply["Snapshots"]), None)

    def delete(self, snapshot: str, *, cancel: Cancel) -> None:
        """Removes a snapshot; one that is gone already is fine."""
        with contextlib.suppress(NotFoundError):
            ask(
                lambda: self.ec2.delete_snapshot(SnapshotId=snapshot),
                what=f"the removal of {snapshot}",
                cancel=cancel,
            )


def ask(call: Callable[[], T], *, what: str, fresh: Callable[[], bool] = lambda: False, cancel: Cancel) -> T:
    """The reply to a call: tried again, at uneven intervals, where the service or the network asks for that.

    Raises DeadlineError when it did so for too long, and what `told` raises, with the number of `attempts`.
    """
    attempts = 0

    def once() -> tuple[T]:
        nonlocal attempts
        attempts += 1
        with told(what, fresh=fresh):
            return (call(),)

    every = Seconds(random.uniform(0.3, 1.0))
    try:
        return poll(once, what=what, every=every, deadline=PATIENCE, cancel=cancel)[0]
    except BackendError as error:
        error.facts["attempts"] = attempts
        raise


@contextlib.contextmanager
def told(what: str, *, fresh: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Errors of the SDK as errors of ours. `what` is what was asked for."""
    from botocore import exceptions as sdk

    try:
        yield
    except sdk.ClientError as error:
        raise _judge(error.response, what, fresh=fresh()) from error
    except (sdk.NoCredentialsError, sdk.PartialCredentialsError, sdk.CredentialRetrievalError) as error:
        raise BackendError(
            f"{what} needs AWS credentials, and there are none: {error}",
            hint="`aws configure` or `aws sso login`; `AWS_PROFILE` chooses a profile",
        ) from error
    except (sdk.TokenRetrievalError, sdk.UnauthorizedSSOTokenError) as error:
        raise _expired(what) from error
    except (sdk.HTTPClientError, sdk.ResponseStreamingError) as error:
        raise TransientError(f"{what} met a broken connection: {error}") from error
    except (sdk.EndpointConnectionError, sdk.ConnectionError) as error:
        raise TransientError(f"{what} found no connection: {error}") from error
    except sdk.BotoCoreError as error:
        raise BackendError(
            f"{what} could not be asked for: {error}", hint="check region and endpoint"
        ) from error


def _judge(response: Any, what: str, *, fresh: bool) -> IngotError:
    about = response.get("Error", {})
    code = str(about.get("Code", ""))
    said = str(about.get("Message", "")) or str(response.get("message", "")) or "no reason given"
    reason = str(response.get("Reason", ""))
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    missing = code == "ResourceNotFoundException" or code.endswith((".NotFound", ".Unknown"))
    if (
        code in _TRANSIENT
        or status >= 500
        or status == 429
        or reason in _TRANSIENT_REASONS
        or (missing and fresh)
    ):
        return TransientError(f"{what} was put off: {code or status}: {said}")
    if missing:
        return NotFoundError(
            f"{what} failed: {said}",
            hint="it was removed, or was given up after a time without blocks: build again",
        )
    if code in _EXPIRED:
        return _expired(what)
    if code == "InvalidSnapshot.InUse":
        return RefusedError(f"{what} was refused: {said}", hint="deregister the image that uses it first")
    return BackendError(f"{what} was refused: {code}: {said}", hint=_hint(code, reason, said), code=code)


def _hint(code: str, reason: str, said: str) -> str:
    if code in _UNKNOWN:
        return "check `AWS_PROFILE` and the keys, and that this computer's clock is right"
    if code in _DENIED:
        return (
            "the role needs `ebs:StartSnapshot`, `ebs:PutSnapshotBlock`, `ebs:CompleteSnapshot`, "
            "`ec2:DescribeSnapshots`, and the use of the key of an encrypted snapshot"
        )
    if code in _QUOTA:
        return "wait for other snapshots, or ask AWS for a larger quota"
    if "checksum" in said.lower():
        return "the bytes changed on their way: upload again, which sends what is missing; memory or a proxy may be faulty"
    if reason == "INVALID_CUSTOMER_KEY":
        return "name a symmetric key of this region that the role may use"
    if reason == "INVALID_DEPENDENCY_REQUEST" or code == "ConflictException":
        return "another request with the same token asked for something else: upload again"
    return "what was sent is kept: upload again once the reason is gone"


def _expired(what: str) -> BackendError:
    return BackendError(
        f"{what} was refused, for the AWS credentials have expired",
        hint="renew them (`aws sso login`) and upload again: only what is missing is sent",
    )
