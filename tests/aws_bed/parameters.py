"""Public parameters of Systems Manager that name images: "Find an AMI using a Systems Manager parameter"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.aws_bed.bed import Answer, Bed
from tests.aws_bed.state import DEBIAN, UBUNTU, Image
from tests.aws_bed.wire import ApiError, Call

_PUBLIC = "/aws/service/"
_NAMES: Mapping[str, tuple[str, str, str]] = {
    "/aws/service/debian/release/12/latest/amd64": (DEBIAN, "debian-12-", "x86_64"),
    "/aws/service/debian/release/12/latest/arm64": (DEBIAN, "debian-12-", "arm64"),
    "/aws/service/debian/release/bookworm/latest/amd64": (DEBIAN, "debian-12-", "x86_64"),
    "/aws/service/debian/release/13/latest/amd64": (DEBIAN, "debian-13-", "x86_64"),
    "/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id": (
        UBUNTU,
        "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-",
        "x86_64",
    ),
}
"""Parameter → owner, start of the name and architecture of the images of which it is the newest."""


def _public(bed: Bed, call: Call, name: str) -> Image | None:
    if name not in _NAMES:
        return None
    owner, start, architecture = _NAMES[name]
    bed.world.stock(call.region)
    found = [
        image
        for image in bed.world.images.values()
        if (image.region, image.account, image.architecture) == (call.region, owner, architecture)
        and image.name.startswith(start)
    ]
    return max(found, key=lambda image: image.created)


def _about(bed: Bed, call: Call, name: str) -> dict[str, Any] | None:
    image = _public(bed, call, name)
    if image is None:
        return None
    arn = f"arn:aws:ssm:{call.region}::parameter{name}"
    about = {"Name": name, "Type": "String", "Value": image.id, "Version": 1, "DataType": "text"}
    return {**about, "LastModifiedDate": image.created, "ARN": arn}


def get_parameter(bed: Bed, call: Call) -> Answer:
    """GetParameter."""
    name = call.params["Name"]
    about = _about(bed, call, name)
    if about:
        return {"Parameter": about}
    if name.startswith(_PUBLIC):
        raise ApiError("ParameterNotFound", "")
    return bed.ask_moto(call)


def get_parameters(bed: Bed, call: Call) -> Answer:
    """GetParameters."""
    names = call.params["Names"]
    found = [about for name in names if (about := _about(bed, call, name))]
    if not any(name.startswith(_PUBLIC) for name in names):
        return bed.ask_moto(call)
    known = [about["Name"] for about in found]
    return {"Parameters": found, "InvalidParameters": [name for name in names if name not in known]}


def resolve(bed: Bed, call: Call, name: str) -> str:
    """The image id that RunInstances is to use: "Use a Systems Manager parameter instead of an AMI ID"."""
    kind, _, path = name.partition("resolve:ssm:")
    if kind or not path:
        return name
    image = _public(bed, call, path)
    if image:
        return image.id
    from moto.ssm.models import ssm_backends

    found = ssm_backends[call.account][call.region].get_parameters([path])
    if not found:
        text = f"The parameter {path} does not exist."
        raise ApiError("InvalidParameterValue", text)
    return str(next(iter(found.values())).value)


ACTIONS = {"GetParameter": get_parameter, "GetParameters": get_parameters}
