"""What the SDK raises is told as errors of ours, each with a remedy; only what passes is asked for again."""

from __future__ import annotations

import socket
import time
from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
    UnauthorizedSSOTokenError,
)

from ingot.backends.aws import ebs_direct
from ingot.backends.aws.ebs_direct import Wish, client_options, told
from ingot.errors import BackendError, IngotError, NotFoundError, RefusedError, TransientError
from ingot.ports import Token
from ingot.system.waits import Flag
from tests.backends.aws.disks import clients
from tests.backends.aws.ebs_endpoint import KEY, Service, served


def refusal(code: str, status: int = 400, reason: str = "") -> ClientError:
    reply: Any = {
        "Error": {"Code": code, "Message": "because"},
        "Reason": reason,
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return ClientError(reply, "PutSnapshotBlock")


PASSING = [
    refusal("RequestThrottledException"),
    refusal("ThrottlingException"),
    refusal("ConcurrentLimitExceededException"),
    refusal("RequestLimitExceeded", 503),
    refusal("InternalServerException", 500),
    refusal("502", 502),
    refusal("429", 429),
    refusal("ValidationException", reason="WRITE_REQUEST_TIMEOUT"),
    ConnectTimeoutError(endpoint_url="http://x"),
    ReadTimeoutError(endpoint_url="http://x"),
    EndpointConnectionError(endpoint_url="http://x"),
]
FINAL = [
    (refusal("ExpiredTokenException", 403), BackendError, "have expired"),
    (refusal("RequestExpired"), BackendError, "have expired"),
    (UnauthorizedSSOTokenError(), BackendError, "have expired"),
    (refusal("UnrecognizedClientException", 403), BackendError, "UnrecognizedClientException: because"),
    (refusal("AccessDeniedException", 403), BackendError, "AccessDeniedException: because"),
    (refusal("ServiceQuotaExceededException", 402), BackendError, "ServiceQuotaExceededException: because"),
    (refusal("ResourceNotFoundException", 404), NotFoundError, "failed: because"),
    (refusal("InvalidSnapshot.NotFound"), NotFoundError, "failed: because"),
    (refusal("InvalidSnapshot.InUse"), RefusedError, "was refused"),
    (refusal("ValidationException", reason="INVALID_BLOCK"), BackendError, "ValidationException: because"),
    (NoCredentialsError(), BackendError, "there are none"),
]


@pytest.mark.parametrize("error", PASSING, ids=str)
def test_what_passes(error: Exception) -> None:
    with pytest.raises(TransientError), told("the call"):
        raise error


@pytest.mark.parametrize(("error", "kind", "text"), FINAL, ids=str)
def test_what_does_not(error: Exception, kind: type[IngotError], text: str) -> None:
    with pytest.raises(kind, match=text) as raised, told("the call"):
        raise error
    assert raised.value.hint and not isinstance(raised.value, TransientError)
    assert raised.value.message.startswith("the call ")


def test_a_fresh_snapshot_may_be_unknown_still() -> None:
    with pytest.raises(TransientError), told("the call", fresh=lambda: True):
        raise refusal("ResourceNotFoundException", 404)


def test_a_client_tries_once_and_has_time_limits() -> None:
    """The retries of `ask` are the only ones: a server that never answers gets one connection an attempt."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        direct = clients(f"http://127.0.0.1:{server.getsockname()[1]}", read_timeout=0.2)
        started = time.monotonic()
        with pytest.raises(TransientError), told("the call"):
            direct.ebs.start_snapshot(VolumeSize=1)
        assert time.monotonic() - started >= 0.2
        server.settimeout(0.3)
        connections = [server.accept()[0]]
        with pytest.raises(TimeoutError):
            connections.append(server.accept()[0])
        for connection in connections:
            connection.close()
    options = client_options(threads=7)
    assert options["max_pool_connections"] == 7 and options["connect_timeout"] and options["read_timeout"]


def test_one_token_is_one_snapshot() -> None:
    service = Service()
    with served(service) as url:
        direct = clients(url)
        wish = Wish(
            gib=1, description="slurm-node 1", encrypted=True, key=KEY, tags={"ingot:image": "slurm-node"}
        )
        first = direct.start(wish, Token("ingot-a-1"), cancel=Flag())
        assert direct.start(wish, Token("ingot-a-1"), cancel=Flag()) == first
        other = direct.start(wish, Token("ingot-a-2"), cancel=Flag())
    assert other.snapshot != first.snapshot and first.encrypted
    about = service.snapshots[first.snapshot]
    assert about.tags == {"ingot:image": "slurm-node", ebs_direct.TOKEN_TAG: "ingot-a-1"}
    assert about.asked["Timeout"] == 1440 and about.asked["KmsKeyArn"] == KEY
    assert about.asked["Description"] == "slurm-node 1"
