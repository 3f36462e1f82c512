"""The actions that make images. Each cites its page in the Amazon EC2 API Reference by its own name."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from typing import Any

from tests.aws_bed import snapshots
from tests.aws_bed.bed import Answer, Bed
from tests.aws_bed.images import find
from tests.aws_bed.state import Image, Snapshot, mapping, new_id, now
from tests.aws_bed.wire import ApiError, Call, Params

_NAME = re.compile(r"[a-zA-Z0-9()\[\] ./\-'@_]{3,128}")


def _check_name(bed: Bed, call: Call, name: str) -> None:
    """CreateImage: "3-128 alphanumeric characters, parentheses, …"; a name is an owner's only once in a region."""
    if not _NAME.fullmatch(name):
        text = "AMI names must be between 3 and 128 characters long, and may contain letters, numbers, '(', ')', '.', '-', '/' and '_'"
        raise ApiError("InvalidAMIName.Malformed", text)
    for image in bed.world.images.values():
        if (image.account, image.region, image.name) == (call.account, call.region, name):
            raise ApiError("InvalidAMIName.Duplicate", f"AMI name {name} is already in use by AMI {image.id}")


def register_image(bed: Bed, call: Call) -> Answer:
    """RegisterImage, of snapshots. An image in S3 (`ImageLocation`) is not a thing of this bed."""
    params = call.params
    if params.get("ImageLocation"):
        raise ApiError("InvalidManifest", "This bed knows images on EBS snapshots only.")
    _check_name(bed, call, params["Name"])
    asked = params.get("BlockDeviceMappings", [])
    root = params.get("RootDeviceName") or (asked[0]["DeviceName"] if asked else "")
    if not asked or root not in [device.get("DeviceName") for device in asked]:
        raise ApiError(
            "InvalidBlockDeviceMapping", f"The root device '{root}' is not in the block device mappings"
        )
    devices = tuple(_device(bed, call, device, root) for device in asked)
    if params.get("TpmSupport") and params.get("BootMode") not in ("uefi", "uefi-preferred"):
        raise ApiError("InvalidParameterCombination", "TpmSupport needs the boot mode uefi")
    image = Image(
        id=new_id("ami"),
        account=call.account,
        region=call.region,
        name=params["Name"],
        description=params.get("Description", ""),
        # "Default: For Amazon EBS-backed AMIs, i386" and "paravirtual".
        architecture=params.get("Architecture", "i386"),
        virtualization=params.get("VirtualizationType", "paravirtual"),
        boot_mode=params.get("BootMode", ""),
        tpm=params.get("TpmSupport", ""),
        imds=params.get("ImdsSupport", ""),
        sriov=params.get("SriovNetSupport", ""),
        ena=bool(params.get("EnaSupport")),
        devices=devices,
        root_device=root,
        ready_at=time.monotonic() + bed.delays.image,
    )
    bed.dry_run(call)
    return _add(bed, call, image)


def _device(bed: Bed, call: Call, device: Params, root: str) -> dict[str, Any]:
    ebs = device.get("Ebs")
    if ebs is None:
        return device
    name = device.get("DeviceName", "")
    if not ebs.get("SnapshotId"):
        if name == root:
            raise ApiError("InvalidBlockDeviceMapping", f"The root device '{name}' needs a snapshot")
        return device
    if "Encrypted" in ebs:
        text = "the encrypted flag cannot be specified since device has a snapshot specified."
        raise ApiError("InvalidParameterDependency", text)
    snapshot = snapshots.find(bed, call, ebs["SnapshotId"])
    if snapshot.state != "completed":
        raise ApiError("IncorrectState", f"Snapshot {snapshot.id} is not in the completed state")
    size = ebs.get("VolumeSize", snapshot.size)
    if size < snapshot.size:
        text = f"Volume of size {size}GB is smaller than snapshot '{snapshot.id}', expect size >= {snapshot.size}GB"
        raise ApiError("InvalidBlockDeviceMapping", text)
    # "VolumeType: … default gp2" of a mapping that does not say.
    return mapping(name, snapshot, **{"VolumeType": "gp2", **ebs, "VolumeSize": size})


def _add(bed: Bed, call: Call, image: Image) -> Answer:
    if "image" in bed.trouble.wish.end_failed:
        image.fails = "The bed was asked to let images fail."
    bed.world.images[image.id] = image
    bed.tag(call, image.id, "image")
    return {"ImageId": image.id}


def _like(call: Call, source: Image, **fields: Any) -> Image:
    """A new image of the caller's, with the attributes of another one that are not its owner's alone."""
    return replace(
        source,
        account=call.account,
        region=call.region,
        name=call.params["Name"],
        description=call.params.get("Description", ""),
        created=now(),
        disabled=False,
        deprecated=None,
        protection="disabled",
        instance="",
        fails="",
        permissions=[],
        source=source.id,
        source_region=source.region,
        **fields,
    )


def create_image(bed: Bed, call: Call) -> Answer:
    """CreateImage: snapshots of all volumes, of the running machine with NoReboot, else around a reboot of it."""
    params = call.params
    _check_name(bed, call, params["Name"])
    instance = bed.moto(call).get_instance(params["InstanceId"])
    if instance.state not in ("running", "stopped"):
        text = f"The instance '{instance.id}' is not in a valid state for this operation"
        raise ApiError("IncorrectState", text)
    bed.dry_run(call)
    running = instance.state == "running" and not params.get("NoReboot")
    if running:
        bed.machines.power_off(instance.id)
    name, devices, ready = new_id("ami"), [], 0.0
    for device, volume in instance.get_block_device_mapping:
        text = f"Created by CreateImage({instance.id}) for {name}"
        snapshot = snapshots.take(bed, call, volume.volume_id, description=text)
        bed.tag(call, snapshot.id, "snapshot")
        devices.append(mapping(device, snapshot))
        ready = max(ready, snapshot.ready_at)
    if running:
        bed.machines.power_on(instance)
    known = {**bed.world.deregistered, **bed.world.images}
    image = _like(
        call, known[instance.image_id], id=name, devices=tuple(devices), ready_at=ready + bed.delays.image
    )
    image.instance = instance.id
    return _add(bed, call, image)


def copy_image(bed: Bed, call: Call) -> Answer:
    """CopyImage. The key is looked at later: "the action can appear to complete, but eventually fails"."""
    params = call.params
    once = bed.once(call)
    if once.answer:
        return once.answer
    source = find(bed, bed.in_region(call, params["SourceRegion"]), params["SourceImageId"])
    if source.state != "available":
        raise ApiError("InvalidAMIID.Unavailable", f"The image ID '{source.id}' is not available")
    _check_name(bed, call, params["Name"])
    for name in source.snapshots:
        snapshots.check_readable(bed, call, bed.world.snapshots[name])
    bed.dry_run(call)
    name = new_id("ami")
    devices, copies = _copy_devices(bed, call, source, name)
    ready = max(snapshot.ready_at for snapshot in copies) + bed.delays.image
    image = _like(call, source, id=name, devices=devices, ready_at=ready)
    image.fails = next((snapshot.fails for snapshot in copies if snapshot.fails), "")
    if params.get("CopyImageTags") and source.account == call.account:
        own = bed.tags(source.account, source.region, source.id)
        bed.set_tags(call, image.id, {tag["Key"]: tag["Value"] for tag in own})
    return once.remember(_add(bed, call, image))


def _copy_devices(
    bed: Bed, call: Call, source: Image, name: str
) -> tuple[tuple[dict[str, Any], ...], list[Snapshot]]:
    devices, copies = [], []
    for device in source.devices:
        ebs = device.get("Ebs", {})
        if "SnapshotId" not in ebs:
            devices.append(device)
            continue
        old = bed.world.snapshots[ebs["SnapshotId"]]
        text = f"Copied for DestinationAmi {name} from SourceAmi {source.id} for SourceSnapshot {old.id}."
        encrypted = bool(call.params.get("Encrypted"))
        snapshot = snapshots.copy(bed, call, old, description=text, encrypted=encrypted)
        bed.tag(call, snapshot.id, "snapshot")
        kept = {key: ebs[key] for key in ("VolumeSize", "VolumeType", "DeleteOnTermination")}
        devices.append(mapping(device["DeviceName"], snapshot, **kept))
        copies.append(snapshot)
    return tuple(devices), copies


ACTIONS = {
    "CopyImage": copy_image,
    "CreateImage": create_image,
    "RegisterImage": register_image,
}
