"""What AWS says, as errors of ours: which code wants another try, which is told how.

Codes are those of EC2's API reference, "Error codes for the Amazon EC2 API"; the common ones hold for other services.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ingot.errors import BackendError, NotFoundError, RefusedError, TransientError, UsageError

BUSY = frozenset(
    {
        "RequestLimitExceeded",
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "RequestThrottled",
        "RequestThrottledException",
        "TooManyRequestsException",
        "EC2ThrottledException",
        "SnapshotCreationPerVolumeRateExceeded",
        "ConcurrentSnapshotLimitExceeded",
        "InternalError",
        "InternalFailure",
        "InternalServerException",
        "ServiceUnavailable",
        "Unavailable",
        "RequestTimeout",
        "RequestTimeoutException",
    }
)
"""Codes that go away by themselves."""
NO_CAPACITY = frozenset(
    {
        "InsufficientInstanceCapacity",
        "InsufficientHostCapacity",
        "InsufficientCapacity",
        "SpotMaxPriceTooLow",
        "MaxSpotInstanceCountExceeded",
        "Unsupported",
    }
)
"""Codes of RunInstances after which another instance type, zone or purchase option may do."""
_HINTS = {
    "AuthFailure": "see `aws sts get-caller-identity`; is the computer's clock right?",
    "ExpiredToken": "sign in again (`aws sso login`, or new session credentials)",
    "ExpiredTokenException": "sign in again (`aws sso login`, or new session credentials)",
    "RequestExpired": "sign in again (`aws sso login`), or set this computer's clock",
    "InvalidClientTokenId": "see `aws sts get-caller-identity`: this access key is not known",
    "UnrecognizedClientException": "see `aws sts get-caller-identity`: this access key is not known",
    "SignatureDoesNotMatch": "the secret access key does not belong to the access key",
    "OptInRequired": "this account has not enabled the service or the region",
    "VPCIdNotSpecified": "name a `subnet` on the target, or make a default VPC: `aws ec2 create-default-vpc`",
    "DefaultVpcDoesNotExist": "name a `subnet` on the target, or make a default VPC: `aws ec2 create-default-vpc`",
    "VcpuLimitExceeded": "ask for a higher quota (Service Quotas: EC2), or name a smaller `instance_type`",
    "InstanceLimitExceeded": "ask for a higher quota (Service Quotas: EC2), or build fewer at once",
    "ResourceCountExceeded": "remove what is no longer needed, or ask for a higher quota",
}
DENIED = frozenset(
    {"UnauthorizedOperation", "AccessDenied", "AccessDeniedException", "Client.UnauthorizedOperation"}
)
_IN_USE = frozenset(
    {"InvalidSnapshot.InUse", "DependencyViolation", "OperationNotPermitted", "ResourceInUse"}
)


@contextmanager
def translated(operation: str, *, region: str = "") -> Iterator[None]:
    """Turns botocore's errors into ours. `code` is among the facts of what AWS itself refused."""
    import botocore.exceptions as theirs
    from botocore.parsers import ResponseParserError

    try:
        yield
    except theirs.ClientError as error:
        raise _refused(error, operation, region) from error
    except theirs.ProfileNotFound as error:
        raise UsageError(str(error), hint="`aws configure list-profiles` lists them") from error
    except theirs.NoRegionError as error:
        raise UsageError(
            "no region is given for AWS", hint="set `region` on the target, or `AWS_DEFAULT_REGION`"
        ) from error
    except (
        theirs.NoCredentialsError,
        theirs.PartialCredentialsError,
        theirs.CredentialRetrievalError,
    ) as error:
        raise BackendError(
            f"there are no usable credentials for AWS: {_sentence(error)}",
            hint="sign in as for the AWS command line: `aws configure`, `aws sso login`, or `AWS_PROFILE`",
            code="NoCredentials",
        ) from error
    except (theirs.SSOError, theirs.TokenRetrievalError, theirs.UnauthorizedSSOTokenError) as error:
        raise BackendError(
            f"the sign-in at AWS is over: {_sentence(error)}", hint="`aws sso login`", code="SSO"
        ) from error
    except theirs.ParamValidationError as error:
        raise BackendError(
            f"{operation}: {_sentence(error)}", hint="correct the value, or report it as a bug"
        ) from error
    except (theirs.EndpointConnectionError, theirs.ConnectionError, theirs.HTTPClientError) as error:
        raise TransientError(
            f"AWS is not reachable{_at(region)}: {_sentence(error)}",
            hint="check the network, the region's name and `AWS_ENDPOINT_URL`",
        ) from error
    except ResponseParserError as error:
        raise TransientError(
            f"what answers{_at(region)} in AWS's place says nothing that can be read ({operation})",
            hint="a proxy's page, perhaps: check the network and `AWS_ENDPOINT_URL`",
        ) from error
    except theirs.BotoCoreError as error:
        raise BackendError(f"{operation}: {_sentence(error)}") from error


def _refused(error: BaseException, operation: str, region: str) -> BackendError | RefusedError:
    answer = getattr(error, "response", {})
    about = answer.get("Error", {})
    code, said = str(about.get("Code", "")), str(about.get("Message") or "").strip().rstrip(".")
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in BUSY or status >= 500:
        return TransientError(f"AWS wants to be asked later ({code or status} at {operation})", code=code)
    words = f"AWS refused {operation}{_at(region)}: {said or code}"
    if said and code not in said:
        words += f" ({code})"
    kind: Callable[..., BackendError | RefusedError] = BackendError
    hint = _HINTS.get(code, "")
    if code in _IN_USE:
        kind = RefusedError
    elif ".NotFound" in code or code in ("NoSuchEntity", "ParameterNotFound", "InvalidAMIID.Unavailable"):
        kind = NotFoundError
    elif code in DENIED:
        hint = f"the credentials' policy must allow `{action(operation)}`"
    return kind(words, hint=hint, code=code)


def action(operation: str) -> str:
    """What AWS calls an operation of boto3's: `run_instances` is `RunInstances`."""
    return "".join(word.capitalize() for word in operation.split("_"))


def _sentence(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".")


def _at(region: str) -> str:
    return f" in {region}" if region else ""
