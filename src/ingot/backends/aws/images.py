"""AMIs: sealed layers under a name. Made by RegisterImage, so that nothing is rebooted, copied or waited for twice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ingot.backends.aws import names, tags
from ingot.backends.aws.cloud import Cloud, await_image, await_snapshot
from ingot.backends.aws.shape import TargetShape
from ingot.errors import BackendError, NotFoundError, RefusedError
from ingot.model.digest import short
from ingot.model.image import Image, LayerRef
from ingot.model.plan import ContentId, LayerKey
from ingot.model.units import Bytes
from ingot.system.waits import Flag

_IMAGE = "ingot:image"
"""The image's own name; the AMI's is made of a template, for it must be unique."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AmiStore:
    """Implements `ports.ImageStore`."""

    cloud: Cloud
    settings: TargetShape

    def list(self, labels: Mapping[str, str]) -> Iterator[Image]:
        """The AMIs of ours that bear all these labels."""
        wanted: dict[str, str] = {f"tag:{key}": value for key, value in tags.label_tags(labels).items()}
        for found in self._ours({"tag-key": _IMAGE, **wanted}):
            yield self.image(found)

    def register(self, layer: LayerRef, name: str, *, arch: str, labels: Mapping[str, str]) -> Image:
        """An AMI of a sealed snapshot, available. The same layer under the same name again gives the AMI there is.

        Waits until the snapshot is complete. Raises RefusedError for a layer that is not sealed, DeadlineError where
        EBS takes longer than hours: the snapshot stays, and the same build goes on from it.
        """
        if not layer.sealed:
            raise RefusedError(
                f"the layer {short(layer.key)} is not sealed, so it is no image",
                hint="end the build with a seal",
            )
        known = next(self.found(layer.content, name), None)
        if known is None:
            told = tags.values(await_snapshot(self.cloud, layer.ref, cancel=Flag()))
            ami = self._register(layer, name, arch, labels, tags.traits(told))
            known = await_image(self.cloud, ami, cancel=Flag())
        elif known["State"] != "available":
            known = await_image(self.cloud, str(known["ImageId"]), cancel=Flag())
        return self.image(known)

    def found(self, content: ContentId, name: str, *, region: str = "") -> Iterator[Mapping[str, Any]]:
        """The AMIs of this disk and name, as EC2 describes them."""
        return self._ours({f"tag:{tags.CONTENT}": content, f"tag:{_IMAGE}": name}, region=region)

    def delete(self, image: Image) -> None:
        """Deregisters the AMI; its snapshot is a layer, and stays until garbage collection takes it."""
        try:
            self.cloud.ask("deregister_image", ImageId=image.ref)
        except NotFoundError:
            return

    def _register(
        self, layer: LayerRef, name: str, arch: str, labels: Mapping[str, str], known: Mapping[str, str]
    ) -> str:
        settings = self.settings
        words = names.words({**labels, "image": name}, arch=arch, digest=short(layer.content))
        made = tags.image_traits(known, layer.ref)
        made["BlockDeviceMappings"][0]["Ebs"] |= {
            "VolumeType": settings.volume.type,
            **({"Iops": settings.volume.iops} if settings.volume.iops else {}),
            **({"Throughput": settings.volume.throughput} if settings.volume.throughput else {}),
        }
        if settings.boot_mode:
            made["BootMode"] = settings.boot_mode
        if settings.imds == "v2.0":
            made["ImdsSupport"] = "v2.0"
        if settings.tpm:
            made["TpmSupport"] = settings.tpm
        told = {
            **tags.parallelcluster(settings),
            **names.tag_values(settings.tags, words),
            **tags.label_tags(labels),
            **tags.traits(known),
            tags.KEY: layer.key,
            tags.CONTENT: layer.content,
            _IMAGE: name,
            "Name": name,
        }
        described = f"{words['project']}/{name}, {words['digest']}, made by Ingot"
        request = {
            "Description": described,
            "TagSpecifications": tags.specification(["image"], told),
            **made,
        }
        try:
            answer = self.cloud.ask(
                "register_image", Name=names.ami_name(settings.ami_name, words), **request
            )
        except BackendError as error:
            if error.facts.get("code") != "InvalidAMIName.Duplicate":
                raise
            ours = next(self.found(layer.content, name), None)
            if ours is not None:  # a call whose answer was lost
                return str(ours["ImageId"])
            taken = names.ami_name(settings.ami_name, words, taken=True)
            answer = self.cloud.ask("register_image", Name=taken, **request)
        return str(answer["ImageId"])

    def _ours(self, wanted: Mapping[str, str], *, region: str = "") -> Iterator[Mapping[str, Any]]:
        return self.cloud.list(
            "describe_images", "Images", region=region, Owners=["self"], Filters=tags.filters(wanted)
        )

    def image(self, found: Mapping[str, Any]) -> Image:
        """An AMI of ours, from what EC2 tells of it."""
        told = tags.values(found)
        root: Mapping[str, Any] = next(
            (
                mapping["Ebs"]
                for mapping in found.get("BlockDeviceMappings", ())
                if mapping.get("DeviceName") == found.get("RootDeviceName") and "Ebs" in mapping
            ),
            {},
        )
        return Image(
            name=told[_IMAGE],
            backend="aws",
            location=self.cloud.region,
            ref=found["ImageId"],
            digest=ContentId(told[tags.CONTENT]),
            key=LayerKey(told[tags.KEY]),
            arch="aarch64" if found["Architecture"] == "arm64" else found["Architecture"],
            size=Bytes(int(root.get("VolumeSize", 0)) * tags.GIB),
            created=found.get("CreationDate", ""),
            labels=tags.labels(told),
        )
