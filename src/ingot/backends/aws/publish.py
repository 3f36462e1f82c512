"""After the build: copies in other regions, who else may launch them, until when, and under which name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from ingot.backends.aws import names, tags
from ingot.backends.aws.cloud import Answer, Cloud, await_image
from ingot.backends.aws.images import AmiStore
from ingot.backends.aws.shape import CopyShape, TargetShape
from ingot.model.digest import digest, short
from ingot.model.events import Emit
from ingot.model.image import Image
from ingot.model.units import parse_seconds
from ingot.ports import Cancel

GRANTS = (
    "Decrypt",
    "DescribeKey",
    "CreateGrant",
    "GenerateDataKeyWithoutPlaintext",
    "ReEncryptFrom",
    "ReEncryptTo",
)
"""What another account needs of a key to launch from an encrypted snapshot (EC2, "Share encrypted AMIs")."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Ami:
    """An image with what EC2 tells of it."""

    image: Image
    found: Answer

    @property
    def volumes(self) -> Iterator[Mapping[str, Any]]:
        """Its volumes that are made from snapshots."""
        for mapping in self.found.get("BlockDeviceMappings", ()):
            if mapping.get("Ebs", {}).get("SnapshotId"):
                yield mapping["Ebs"]


@dataclass(frozen=True, kw_only=True, slots=True)
class AwsPublisher:
    """Implements `ports.Publisher`."""

    cloud: Cloud
    settings: TargetShape
    store: AmiStore

    def publish(self, image: Image, *, subject: str, emit: Emit, cancel: Cancel) -> tuple[Image, ...]:
        """Copies to all regions at once, then shares and names the image and each copy."""
        found = await_image(self.cloud, image.ref, region=image.location, fresh=False, cancel=cancel)
        source = _Ami(image=image, found=found)
        begun = [self._copy(source, wanted) for wanted in self.settings.copy_to]
        copies = [
            self._await(one, fresh=fresh, subject=subject, emit=emit, cancel=cancel) for one, fresh in begun
        ]
        for one in (source, *copies):
            self._share(one)
            self._keep(one.image)
            self._name(one.image)
        return tuple(one.image for one in copies)

    def _copy(self, source: _Ami, wanted: CopyShape) -> tuple[Image, bool]:
        """A copy, and whether it was begun only now; the same request again gives the same copy."""
        image = source.image
        known = next(self.store.found(image.digest, image.name, region=wanted.region), None)
        fresh = known is None
        if known is None:
            told = tags.values(source.found)
            ours = {key: value for key, value in told.items() if not key.startswith("aws:")}
            request: dict[str, Any] = {
                "Name": source.found["Name"],
                "SourceImageId": image.ref,
                "SourceRegion": image.location,
                "ClientToken": digest([image.ref, wanted.region]).removeprefix("sha256:"),
                "TagSpecifications": [
                    *tags.specification(["image"], ours),
                    # The content alone makes no layer of it; policies tell ours by it.
                    *tags.specification(
                        ["snapshot"],
                        {
                            **names.tag_values(self.settings.tags, _words(image)),
                            tags.CONTENT: image.digest,
                            "Name": image.name,
                        },
                    ),
                ],
            }
            if wanted.kms_key or self.settings.encrypt:
                request["Encrypted"] = True
            if wanted.kms_key:
                request["KmsKeyId"] = wanted.kms_key
            known = self.cloud.ask("copy_image", region=wanted.region, **request)
        return replace(image, location=wanted.region, ref=str(known["ImageId"])), fresh

    def _await(self, copy: Image, *, fresh: bool, subject: str, emit: Emit, cancel: Cancel) -> _Ami:
        found = await_image(
            self.cloud,
            copy.ref,
            region=copy.location,
            fresh=fresh,
            cancel=cancel,
            emit=emit,
            subject=subject,
        )
        return _Ami(image=replace(copy, created=str(found.get("CreationDate", ""))), found=found)

    def _share(self, ami: _Ami) -> None:
        """Launch permissions, and for accounts those on the snapshots too: without them an account cannot copy it."""
        share, image = self.settings.share, ami.image
        who: list[dict[str, str]] = [
            *({"UserId": one} for one in share.accounts),
            *({"OrganizationArn": one} for one in share.organizations),
            *({"OrganizationalUnitArn": one} for one in share.units),
        ]
        if not who:
            return
        self.cloud.ask(
            "modify_image_attribute",
            region=image.location,
            ImageId=image.ref,
            LaunchPermission={"Add": who},
        )
        for volume in ami.volumes:
            if share.accounts:
                self.cloud.ask(
                    "modify_snapshot_attribute",
                    region=image.location,
                    SnapshotId=volume["SnapshotId"],
                    Attribute="createVolumePermission",
                    CreateVolumePermission={"Add": [{"UserId": one} for one in share.accounts]},
                )
            if volume.get("Encrypted"):
                self._grant(image)

    def _grant(self, image: Image) -> None:
        """Lets the accounts use the key: an encrypted image that is shared without it cannot be launched."""
        key = next(
            (one.kms_key for one in self.settings.copy_to if one.region == image.location and one.kms_key),
            self.settings.kms_key,
        )
        for account in self.settings.share.accounts:
            partition = "aws-cn" if image.location.startswith("cn-") else "aws"
            self.cloud.ask(
                "create_grant",
                service="kms",
                region=image.location,
                KeyId=key,
                GranteePrincipal=f"arn:{partition}:iam::{account}:root",
                Operations=list(GRANTS),
                Name=f"ingot-{account}",  # the same name and grantee again is the same grant
            )

    def _keep(self, image: Image) -> None:
        """Until when it is offered, and that nobody deregisters it by mistake."""
        settings = self.settings
        if settings.deprecate_after:
            at = datetime.now(UTC) + timedelta(seconds=parse_seconds(settings.deprecate_after))
            self.cloud.ask(
                "enable_image_deprecation",
                region=image.location,
                ImageId=image.ref,
                DeprecateAt=at.replace(second=0, microsecond=0),
            )
        if settings.protect:
            self.cloud.ask("enable_image_deregistration_protection", region=image.location, ImageId=image.ref)

    def _name(self, image: Image) -> None:
        if not self.settings.parameter:
            return
        self.cloud.ask(
            "put_parameter",
            service="ssm",
            region=image.location,
            Name=self.settings.parameter.format_map(_words(image)),
            Value=image.ref,
            Type="String",
            DataType="aws:ec2:image",  # SSM checks that there is such an AMI
            Overwrite=True,
        )


def _words(image: Image) -> Mapping[str, str]:
    return names.words({**image.labels, "image": image.name}, arch=image.arch, digest=short(image.digest))
