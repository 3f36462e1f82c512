"""Source AMIs: which image a base means by now, and who logs in to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ingot.backends.aws.cloud import Cloud
from ingot.backends.aws.shape import BaseShape
from ingot.backends.aws.tags import filters
from ingot.errors import BackendError, NotFoundError
from ingot.ports import FoundBase

IMAGE = "image"
"""The pin that is the AMI's id."""
_ARCH = {"x86_64": "x86_64", "aarch64": "arm64"}
_USERS = (
    ("debian", "admin"),
    ("ubuntu", "ubuntu"),
    ("al2023", "ec2-user"),
    ("amzn", "ec2-user"),
    ("rocky", "rocky"),
    ("almalinux", "ec2-user"),
    ("centos", "centos"),
    ("fedora", "fedora"),
    ("suse", "ec2-user"),
    ("rhel", "ec2-user"),
)
"""Who logs in, by a word of the AMI's name; as each distribution documents it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finder:
    """Implements `ports.BaseFinder`."""

    cloud: Cloud

    def find(self, query: Mapping[str, object], *, arch: str) -> FoundBase:
        """The AMI of the region that a base means. Raises NotFoundError with where and how it was looked for."""
        shape = BaseShape.model_validate(query)
        image = self._newest(shape, arch) if shape.name else self._named(self._id(shape))
        if image["Architecture"] != _ARCH[arch]:
            raise BackendError(
                f"the AMI {image['ImageId']} ({image.get('Name', '')}) is for {image['Architecture']}, "
                f"and the target for {arch}",
                hint="set the target's `arch`, or name another AMI",
            )
        if image.get("State") != "available":
            raise BackendError(
                f"the AMI {image['ImageId']} in {self.cloud.region} is {image.get('State')}",
                hint="wait until it is available, or name another one",
            )
        seen = {
            "name": image.get("Name", ""),
            "created": image.get("CreationDate", ""),
            "owner": image.get("OwnerId", ""),
        }
        return FoundBase(
            pins={IMAGE: image["ImageId"]}, seen={key: value for key, value in seen.items() if value}
        )

    def _id(self, shape: BaseShape) -> str:
        if shape.ami:
            return shape.ami
        assert shape.ssm, "the shape has one of the three"
        try:
            answer = self.cloud.ask("get_parameter", service="ssm", Name=shape.ssm)
        except NotFoundError as error:
            raise NotFoundError(
                f"there is no parameter {shape.ssm} in {self.cloud.region}",
                hint="publishers name theirs `/aws/service/…`; `aws ssm get-parameters-by-path` lists them",
            ) from error
        return str(answer["Parameter"]["Value"])

    def _named(self, ami: str) -> dict[str, Any]:
        try:
            found = self.cloud.ask("describe_images", ImageIds=[ami])["Images"]
        except NotFoundError:
            found = None
        if not found:
            raise NotFoundError(
                f"there is no AMI {ami} in {self.cloud.region}",
                hint="an AMI's id is of one region alone: see the target's `region` (or AWS_DEFAULT_REGION), or find it "
                "by `owners` and `name`, which hold everywhere",
            )
        return dict(found[0])

    def _newest(self, shape: BaseShape, arch: str) -> dict[str, Any]:
        wanted: dict[str, Any] = {
            "name": shape.name,
            "architecture": _ARCH[arch],
            "state": "available",
            "root-device-type": "ebs",
            **shape.filters,
        }
        images = list(
            self.cloud.list("describe_images", "Images", Owners=list(shape.owners), Filters=filters(wanted))
        )
        if not images:
            raise NotFoundError(
                f"no AMI of {', '.join(shape.owners)} in {self.cloud.region} is called {shape.name!r} and is for {arch}",
                hint=f"`aws ec2 describe-images --region {self.cloud.region} --owners {' '.join(shape.owners)}` lists them",
            )
        newest: dict[str, Any] = max(
            images, key=lambda image: (image.get("CreationDate", ""), image["ImageId"])
        )
        return newest


def guess_user(name: str) -> str:
    """Who logs in to an AMI of this name; "" where nothing tells."""
    return next((user for word, user in _USERS if word in name.lower()), "")
