"""The actions on images. Each cites its page in the Amazon EC2 API Reference by its own name; other pages are named."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC
from typing import Any

from tests.aws_bed import filters, snapshots
from tests.aws_bed.bed import Answer, Bed
from tests.aws_bed.state import Image, Snapshot
from tests.aws_bed.wire import ApiError, Call, Params

_ACCOUNT = re.compile(r"\d{12}")
_FILTERS: Mapping[str, filters.Value] = {
    "architecture": lambda image: image["Architecture"],
    "block-device-mapping.delete-on-termination": lambda image: _ebs(image, "DeleteOnTermination"),
    "block-device-mapping.device-name": lambda image: [d["DeviceName"] for d in image["BlockDeviceMappings"]],
    "block-device-mapping.encrypted": lambda image: _ebs(image, "Encrypted"),
    "block-device-mapping.snapshot-id": lambda image: _ebs(image, "SnapshotId"),
    "block-device-mapping.volume-size": lambda image: _ebs(image, "VolumeSize"),
    "block-device-mapping.volume-type": lambda image: _ebs(image, "VolumeType"),
    "creation-date": lambda image: image["CreationDate"],
    "description": lambda image: image.get("Description"),
    "ena-support": lambda image: image.get("EnaSupport", False),
    "hypervisor": lambda image: image["Hypervisor"],
    "image-id": lambda image: image["ImageId"],
    "image-type": lambda image: image["ImageType"],
    "is-public": lambda image: image["Public"],
    "manifest-location": lambda image: image["ImageLocation"],
    "name": lambda image: image["Name"],
    "owner-alias": lambda image: image.get("ImageOwnerAlias"),
    "owner-id": lambda image: image["OwnerId"],
    "platform": lambda image: image.get("Platform"),
    "root-device-name": lambda image: image["RootDeviceName"],
    "root-device-type": lambda image: image["RootDeviceType"],
    "source-image-id": lambda image: image.get("SourceImageId"),
    "source-image-region": lambda image: image.get("SourceImageRegion"),
    "source-instance-id": lambda image: image.get("SourceInstanceId"),
    "state": lambda image: image["State"],
    "sriov-net-support": lambda image: image.get("SriovNetSupport"),
    "virtualization-type": lambda image: image["VirtualizationType"],
}


def _ebs(image: Mapping[str, Any], key: str) -> list[Any]:
    return [device["Ebs"].get(key) for device in image["BlockDeviceMappings"] if "Ebs" in device]


def find(bed: Bed, call: Call, name: str, *, own: bool = False) -> Image:
    """The image that the caller may see, or owns. Raises ApiError: "Error codes for the Amazon EC2 API"."""
    if not name.startswith("ami-"):
        raise ApiError("InvalidAMIID.Malformed", f'Invalid id: "{name}" (expecting "ami-...")')
    bed.world.stock(call.region)
    image = bed.world.images.get(name)
    if name in bed.world.deregistered:
        raise ApiError("InvalidAMIID.Unavailable", f"The image ID '{name}' is no longer available")
    groups = bed.organisation(call.account)
    if image is None or image.region != call.region or not image.visible_to(call.account, groups):
        raise ApiError("InvalidAMIID.NotFound", f"The image id '[{name}]' does not exist")
    if own and image.account != call.account:
        raise ApiError("AuthFailure", f"Not authorized for image:{name}", status=403)
    return image


def describe(bed: Bed, image: Image) -> dict[str, Any]:
    """An image as DescribeImages answers it."""
    about: dict[str, Any] = {
        "ImageId": image.id,
        "ImageLocation": f"{image.account}/{image.name}",
        "Name": image.name,
        "State": image.state,
        "OwnerId": image.account,
        "CreationDate": image.created.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        "Public": image.public,
        "Architecture": image.architecture,
        "ImageType": "machine",
        "Hypervisor": "xen",
        "PlatformDetails": "Linux/UNIX",
        "UsageOperation": "RunInstances",
        "RootDeviceName": image.root_device,
        "RootDeviceType": "ebs",
        "VirtualizationType": image.virtualization,
        "EnaSupport": image.ena,
        "BlockDeviceMappings": list(image.devices),
        "Tags": bed.tags(image.account, image.region, image.id),
        "DeregistrationProtection": image.protection,
    }
    more = {
        "Description": image.description,
        "BootMode": image.boot_mode,
        "TpmSupport": image.tpm,
        "ImdsSupport": image.imds,
        "SriovNetSupport": image.sriov,
        "SourceImageId": image.source,
        "SourceImageRegion": image.source_region,
        "SourceInstanceId": image.instance,
        "DeprecationTime": image.deprecated and image.deprecated.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
    }
    about |= {key: value for key, value in more.items() if value}
    if image.state == "failed":
        about["StateReason"] = {"Code": "Client.InternalError", "Message": image.fails}
    return about


def describe_images(bed: Bed, call: Call) -> Answer:
    """DescribeImages. Deprecated images of others and disabled ones are left out unless asked for by id or switch."""
    bed.world.stock(call.region)
    params = call.params
    wanted = params.get("ImageIds", [])
    if wanted and params.get("MaxResults"):
        raise ApiError("InvalidParameterCombination", "The parameter imageIds cannot be used with maxResults")
    if wanted:
        missing = [name for name in wanted if name not in bed.world.images]
        if missing and not all(name.startswith("ami-") for name in missing):
            raise ApiError("InvalidAMIID.Malformed", f'Invalid id: "{missing[0]}" (expecting "ami-...")')
        # One that was deregistered is left out for a while, and not an error.
        gone = bed.world.deregistered
        found = [find(bed, call, name) for name in wanted if name not in gone]
    else:
        found = [image for image in list(bed.world.images.values()) if _listed(bed, call, image)]
    owners = {call.account if name == "self" else name for name in params.get("Owners", [])}
    if owners:
        found = [image for image in found if {image.account, image.alias} & owners]
    users = {call.account if name == "self" else name for name in params.get("ExecutableUsers", [])}
    if users:
        found = [image for image in found if _shared(image) & users]
    found.sort(key=lambda image: image.id)
    answers = [describe(bed, image) for image in found]
    answers = filters.matching(answers, params.get("Filters", []), _FILTERS)
    images, token = filters.page(answers, params)
    return {"Images": images, "NextToken": token} if token else {"Images": images}


def _shared(image: Image) -> set[str]:
    return {value for permission in image.permissions for value in permission.values()}


def _listed(bed: Bed, call: Call, image: Image) -> bool:
    if image.region != call.region or bed.trouble.hidden(image.id):
        return False
    if not image.visible_to(call.account, bed.organisation(call.account)):
        return False
    if image.disabled and not call.params.get("IncludeDisabled"):
        return False
    past = image.deprecated is not None and image.deprecated <= bed.now()
    return not past or image.account == call.account or bool(call.params.get("IncludeDeprecated"))


def deregister_image(bed: Bed, call: Call) -> Answer:
    """DeregisterImage, refused while protected; with its snapshots on request, those of other images excepted."""
    image = find(bed, call, call.params["ImageId"], own=True)
    if image.protection not in ("disabled",):
        raise ApiError("OperationNotPermitted", f"The AMI {image.id} is protected from deregistration")
    bed.dry_run(call)
    bed.world.deregistered[image.id] = bed.world.images.pop(image.id)
    if not call.params.get("DeleteAssociatedSnapshots"):
        return {"Return": True}
    results = []
    for name in image.snapshots:
        used = any(name in other.snapshots for other in bed.world.images.values())
        if not used:
            snapshots.delete(bed, bed.world.snapshots[name])
        results.append({"SnapshotId": name, "ReturnCode": "skipped" if used else "success"})
    return {"Return": True, "DeleteSnapshotResults": results}


def modify_image_attribute(bed: Bed, call: Call) -> Answer:
    """ModifyImageAttribute: description, IMDS support, launch permissions in both of its forms."""
    image = find(bed, call, call.params["ImageId"], own=True)
    params = call.params
    adds, removes = _permissions(params)
    for permission in (*adds, *removes):
        _check_permission(permission)
    if any(bed.world.snapshots[name].key == bed.default_key(call) for name in image.snapshots) and adds:
        # "Share an AMI": "AMIs with snapshots encrypted with the AWS managed key can't be shared".
        text = f"Image {image.id} is encrypted with the EBS default key and cannot be shared"
        raise ApiError("InvalidParameterValue", text)
    bed.dry_run(call)
    attribute, value = params.get("Attribute", ""), params.get("Value", "")
    if "Description" in params or attribute == "description":
        image.description = params.get("Description", {}).get("Value", value)
    if "ImdsSupport" in params or attribute == "imdsSupport":
        image.imds = params.get("ImdsSupport", {}).get("Value", value)
    kept = [permission for permission in image.permissions if permission not in removes]
    image.permissions = kept + [permission for permission in adds if permission not in kept]
    return {}


def _permissions(params: Params) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    changes = params.get("LaunchPermission", {})
    adds, removes = list(changes.get("Add", [])), list(changes.get("Remove", []))
    forms = {
        "UserId": "UserIds",
        "Group": "UserGroups",
        "OrganizationArn": "OrganizationArns",
        "OrganizationalUnitArn": "OrganizationalUnitArns",
    }
    listed = [{key: value} for key, many in forms.items() for value in params.get(many, [])]
    if listed and params.get("OperationType") not in ("add", "remove"):
        if changes:
            return adds, removes  # Packer says everything twice, and AWS takes it
        raise ApiError("MissingParameter", "The request must contain the parameter operationType")
    (removes if params.get("OperationType") == "remove" else adds).extend(listed)
    return adds, removes


def _check_permission(permission: Mapping[str, str]) -> None:
    patterns = {
        "UserId": _ACCOUNT.pattern,
        "Group": "all",
        "OrganizationArn": r"arn:aws:organizations::\d{12}:organization/o-[a-z0-9]{10,32}",
        "OrganizationalUnitArn": r"arn:aws:organizations::\d{12}:ou/o-[a-z0-9]{10,32}/ou-[a-z0-9-]+",
    }
    for key, value in permission.items():
        if not re.fullmatch(patterns[key], value):
            text = f'Invalid attribute item value "{value}" for {key[0].lower()}{key[1:]} item type.'
            raise ApiError("InvalidAMIAttributeItemValue", text)


def describe_image_attribute(bed: Bed, call: Call) -> Answer:
    """DescribeImageAttribute. The block device mapping it refuses to everyone, as AWS does."""
    image = find(bed, call, call.params["ImageId"], own=True)
    values = {
        "description": ("Description", {"Value": image.description}),
        "launchPermission": ("LaunchPermissions", image.permissions),
        "bootMode": ("BootMode", {"Value": image.boot_mode}),
        "tpmSupport": ("TpmSupport", {"Value": image.tpm}),
        "imdsSupport": ("ImdsSupport", {"Value": image.imds}),
        "sriovNetSupport": ("SriovNetSupport", {"Value": image.sriov}),
        "deregistrationProtection": ("DeregistrationProtection", {"Value": image.protection}),
    }
    found = values.get(call.params["Attribute"])
    if not found:
        raise ApiError("AuthFailure", "Unauthorized attempt to access restricted resource", status=403)
    return {"ImageId": image.id, found[0]: found[1]}


def enable_image_deprecation(bed: Bed, call: Call) -> Answer:
    """EnableImageDeprecation: a date in the future, at most ten years away, kept to the minute."""
    image = find(bed, call, call.params["ImageId"], own=True)
    at = call.params["DeprecateAt"]
    at = at.replace(tzinfo=at.tzinfo or UTC)
    if at <= bed.now():
        raise ApiError("InvalidParameterValue", "The date and time for deprecation must be in the future")
    if at.year > bed.now().year + 10:
        raise ApiError("InvalidParameterValue", "The date for deprecation is more than 10 years away")
    bed.dry_run(call)
    image.deprecated = at.replace(second=0, microsecond=0)
    return {"Return": True}


def disable_image_deprecation(bed: Bed, call: Call) -> Answer:
    """DisableImageDeprecation."""
    image = find(bed, call, call.params["ImageId"], own=True)
    bed.dry_run(call)
    image.deprecated = None
    return {"Return": True}


def enable_image_deregistration_protection(bed: Bed, call: Call) -> Answer:
    """EnableImageDeregistrationProtection."""
    image = find(bed, call, call.params["ImageId"], own=True)
    bed.dry_run(call)
    image.protection = (
        "enabled-with-cooldown" if call.params.get("WithCooldown") else "enabled-without-cooldown"
    )
    return {"Return": image.protection}


def disable_image_deregistration_protection(bed: Bed, call: Call) -> Answer:
    """DisableImageDeregistrationProtection. A cooldown lasts a day, which is for ever here."""
    image = find(bed, call, call.params["ImageId"], own=True)
    bed.dry_run(call)
    cools = image.protection == "enabled-with-cooldown"
    image.protection = "cooldown-in-progress" if cools else "disabled"
    return {"Return": image.protection}


def disable_image(bed: Bed, call: Call) -> Answer:
    """DisableImage: its sharing ends, nothing is launched from it any more."""
    image = find(bed, call, call.params["ImageId"], own=True)
    bed.dry_run(call)
    image.disabled = True
    image.permissions.clear()
    return {"Return": True}


def enable_image(bed: Bed, call: Call) -> Answer:
    """EnableImage."""
    image = find(bed, call, call.params["ImageId"], own=True)
    bed.dry_run(call)
    image.disabled = False
    return {"Return": True}


def in_use(bed: Bed, snapshot: Snapshot) -> str:
    """An image that stands on the snapshot; "" for none."""
    return next((image.id for image in bed.world.images.values() if snapshot.id in image.snapshots), "")


def reset_image_attribute(bed: Bed, call: Call) -> Answer:
    """ResetImageAttribute: the launch permissions, the only ones that it resets."""
    image = find(bed, call, call.params["ImageId"], own=True)
    bed.dry_run(call)
    image.permissions.clear()
    return {}


ACTIONS = {
    "DeregisterImage": deregister_image,
    "DescribeImageAttribute": describe_image_attribute,
    "DescribeImages": describe_images,
    "DisableImage": disable_image,
    "DisableImageDeprecation": disable_image_deprecation,
    "DisableImageDeregistrationProtection": disable_image_deregistration_protection,
    "EnableImage": enable_image,
    "EnableImageDeprecation": enable_image_deprecation,
    "EnableImageDeregistrationProtection": enable_image_deregistration_protection,
    "ModifyImageAttribute": modify_image_attribute,
    "ResetImageAttribute": reset_image_attribute,
}
