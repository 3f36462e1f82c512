"""Requests and answers on the wire, both by botocore's own model of the service, so that the bed cannot drift from it.

Errors of form have the codes that AWS gives: "Common client error codes" of EC2's "Error codes for the Amazon EC2 API"
(`MissingParameter`, `UnknownParameter`, `InvalidParameterValue`, `InvalidAction`), `ValidationException` elsewhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, cast
from urllib.parse import parse_qsl, unquote, urlencode

import botocore.serialize
import moto.core.parse
import moto.core.serialize
from botocore.exceptions import ParamValidationError
from botocore.model import OperationModel, OperationNotFoundError, Shape, StructureShape
from botocore.parsers import create_parser
from botocore.validate import ParamValidator
from moto.core.exceptions import ServiceException
from moto.core.utils import get_service_model
from werkzeug.wrappers import Request, Response

Params = dict[str, Any]

_CREDENTIAL = re.compile(r"Credential=([^/,]+)/[^/,]+/([^/,]+)/([^/,]+)/aws4_request")
CHECKED = {
    "ec2": "ec2",
    "ebs": "ebs",
    "ssm": "ssm",
    "sts": "sts",
    "iam": "iam",
    "kms": "kms",
    "servicequotas": "service-quotas",
    "organizations": "organizations",
}
"""Services whose requests are checked: how requests are signed for them → what botocore calls them."""
_ENVELOPE = {"Action", "Version"}
_READS = ("Describe", "Get", "List", "Lookup", "Search", "Simulate", "Validate")
_ACCOUNT = "X-Moto-Account-Id"


class ApiError(ServiceException):
    """An error as a service of AWS answers it. `status` is the HTTP status."""

    def __init__(self, code: str, message: str, *, status: int = 400, **facts: str) -> None:
        super().__init__(code, message)
        self.status = status
        for name, value in facts.items():
            setattr(self, name, value)


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One decoded request."""

    service: str
    action: str
    account: str
    region: str
    params: Params = field(repr=False)
    agent: str
    request: Request = field(repr=False)

    @property
    def mutating(self) -> bool:
        """Whether it may change something."""
        return not self.action.startswith(_READS)

    @property
    def dry(self) -> bool:
        return bool(self.params.get("DryRun"))


def sender(request: Request) -> tuple[str, str, str] | None:
    """(access key, region, service) of a request signed with Signature Version 4; None for any other."""
    found = _CREDENTIAL.search(request.headers.get("Authorization", ""))
    return (found[1], found[2], found[3]) if found else None


def read(request: Request, *, account: str, region: str, signed_for: str) -> Call | None:
    """The call, checked against the service's model; None where the service is not one that is checked.

    Raises ApiError with the code that AWS gives for a request of this form.
    """
    service = CHECKED.get(signed_for)
    if service is None:
        return None
    blank = Call(
        service=service,
        action="",
        account=account,
        region=region,
        params={},
        agent=request.headers.get("User-Agent", ""),
        request=request,
    )
    protocol = str(get_service_model(service).protocol)
    if protocol in ("ec2", "query"):
        return _read_form(blank, protocol)
    if protocol == "json":
        action = request.headers.get("X-Amz-Target", "").rpartition(".")[2]
        return _check(replace(blank, action=action, params=_json(request.get_data())))
    return _check(_read_rest(blank))


def operation(service: str, action: str) -> OperationModel:
    """The model of an action. Raises ApiError for one that the service does not have."""
    try:
        found: OperationModel = get_service_model(service).operation_model(action)
    except OperationNotFoundError:
        code = "InvalidAction" if service != "ssm" else "UnknownOperationException"
        raise ApiError(code, f"The action {action} is not valid for this web service.") from None
    return found


def _json(body: bytes) -> Params:
    try:
        found = json.loads(body or b"{}")
    except ValueError:
        raise ApiError("SerializationException", "The request is not JSON.") from None
    if not isinstance(found, dict):
        raise ApiError("SerializationException", "The request is not a JSON object.")
    return found


def _read_form(call: Call, protocol: str) -> Call:
    body = call.request.get_data(as_text=True) or call.request.query_string.decode()
    values = dict(parse_qsl(body, keep_blank_values=True))
    action = values.get("Action", "")
    model = operation(call.service, action)
    parser: Any = moto.core.parse.PROTOCOL_PARSERS[protocol]
    try:
        params = parser(model).parse({"values": values})
    except (ValueError, TypeError) as error:
        raise ApiError("InvalidParameterValue", f"A value has the wrong type: {error}") from error
    read = _check(replace(call, action=action, params=params))
    known = _form(read.service, action, params).keys()
    for name in values.keys() - known - _ENVELOPE:
        # A list of nothing is left out when it is written again.
        if not any(other.startswith(f"{name}.") for other in known) and values[name] != "":
            raise ApiError("UnknownParameter", f"The parameter {name} is not recognized")
    return read


def _form(service: str, action: str, params: Params) -> dict[str, str]:
    model = operation(service, action)
    written = _serializer(str(get_service_model(service).protocol)).serialize_to_request(params, model)
    return {name: str(value) for name, value in written["body"].items()}


@cache
def _serializer(protocol: str) -> Any:
    return botocore.serialize.create_serializer(protocol, include_validation=False)


def _read_rest(call: Call) -> Call:
    request = call.request
    for name in get_service_model(call.service).operation_names:
        model = operation(call.service, name)
        pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", str(model.http["requestUri"]).partition("?")[0])
        found = re.fullmatch(pattern, request.path)
        if found and model.http["method"] == request.method:
            return replace(call, action=name, params=_bound(model, request, found.groupdict()))
    raise ApiError("UnknownOperationException", f"There is no {request.method} {request.path}.", status=404)


def _bound(model: OperationModel, request: Request, labels: Mapping[str, str]) -> Params:
    """The parameters of a REST request, from wherever the model says that each one is."""
    shape = model.input_shape
    assert shape
    payload = shape.serialization.get("payload")
    params = _json(request.get_data()) if request.data and not payload else {}
    for name, member in shape.members.items():
        key = member.serialization.get("name", name)
        place = member.serialization.get("location")
        text = {
            "uri": labels.get(key),
            "querystring": request.args.get(key),
            "header": request.headers.get(key),
        }.get(place or "")
        if text is not None:
            params[name] = _typed(member, unquote(text) if place == "uri" else text)
        elif name == payload:
            params[name] = request.get_data()
    return params


def _typed(shape: Shape, text: str) -> object:
    if shape.type_name in ("integer", "long"):
        try:
            return int(text)
        except ValueError:
            raise ApiError("ValidationException", f"{text!r} is not a number.") from None
    return text == "true" if shape.type_name == "boolean" else text


def _check(call: Call) -> Call:
    shape = operation(call.service, call.action).input_shape
    if shape is None:
        return call
    report = ParamValidator().validate(call.params, shape)
    if report.has_errors():
        text = report.generate_report()
        raise ApiError(_code(call.service, text), text)
    _check_enums(call, shape, call.params, "")
    return call


def _code(service: str, report: str) -> str:
    if service not in ("ec2", "iam", "sts"):
        return "ValidationException"
    if report.startswith("Missing required"):
        return "MissingParameter"
    return "UnknownParameter" if report.startswith("Unknown parameter") else "InvalidParameterValue"


def _check_enums(call: Call, shape: Shape, value: Any, name: str) -> None:
    if isinstance(shape, StructureShape) and isinstance(value, Mapping):
        for key, part in value.items():
            _check_enums(call, shape.members[key], part, key)
    elif shape.type_name == "list" and isinstance(value, list):
        for part in value:
            _check_enums(call, shape.member, part, name)  # type: ignore[attr-defined]
    else:
        allowed = getattr(shape, "enum", None)
        if allowed and value not in allowed:
            code = _code(call.service, "")
            raise ApiError(code, f"Invalid value '{value}' for {name}.")


def write(call: Call, result: Mapping[str, Any] | ServiceException) -> Response:
    """The answer in the service's protocol. Raises ParamValidationError for a result that the model does not know."""
    model = operation(call.service, call.action) if call.action else None
    return _write(call.service, model, result)


def write_error(service: str, error: ServiceException) -> Response:
    """The answer to a request that could not even be read."""
    return _write(service, None, error)


def _write(service: str, model: OperationModel | None, result: Any) -> Response:
    services = get_service_model(service)
    known: Any = model or OperationModel({}, services)
    if model and model.output_shape and isinstance(result, Mapping):
        unknown = result.keys() - model.output_shape.members.keys()
        if unknown:
            raise ParamValidationError(report=f"{model.name} answers nothing called {sorted(unknown)}")
    writer: Any = moto.core.serialize.get_serializer_class(service, str(services.protocol))
    done = writer(known).serialize(result)
    status = getattr(result, "status", 0) if isinstance(result, ServiceException) else 0
    return Response(done["body"], status=status or done["status_code"], headers=done["headers"])


def parse(call: Call, response: Response) -> Params:
    """What an answer of moto's says. Raises ApiError for an error."""
    model = operation(call.service, call.action)
    parser = create_parser(str(get_service_model(call.service).protocol))
    about = {"status_code": response.status_code, "headers": dict(response.headers), "body": response.data}
    found: Params = parser.parse(about, cast(Shape, model.output_shape))
    if response.status_code >= 300:
        error = found.get("Error", {})
        code, message = error.get("Code", "InternalError"), error.get("Message", "")
        raise ApiError(code, message or code, status=response.status_code)
    found.pop("ResponseMetadata", None)
    return found


def rewritten(call: Call, params: Params) -> bytes:
    """The body of an EC2 request for the same action with other parameters."""
    about = {"Action": call.action, "Version": "2016-11-15", **_form(call.service, call.action, params)}
    return urlencode(about).encode()
