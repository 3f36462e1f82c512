"""The actions on instances. Each cites its page in the Amazon EC2 API Reference by its own name."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from moto.ec2.models.instance_types import INSTANCE_TYPES

from tests.aws_bed import images, parameters, snapshots
from tests.aws_bed.bed import Answer, Bed
from tests.aws_bed.state import Image, Snapshot
from tests.aws_bed.wire import ApiError, Call, Params

_GONE = ("shutting-down", "terminated")


def run_instances(bed: Bed, call: Call) -> Answer:
    """RunInstances, of an image that is there and fits the instance type."""
    params = dict(call.params)
    once = bed.once(call)
    if once.answer:
        return once.answer
    if params["MinCount"] > params["MaxCount"] or params["MinCount"] < 1:
        text = f"Value ({params['MinCount']}) for parameter minCount is invalid."
        raise ApiError("InvalidParameterValue", text)
    image = _image(bed, call, parameters.resolve(bed, call, params.get("ImageId", "")))
    params["ImageId"] = image.id
    kind = params.setdefault("InstanceType", "m1.small")
    _check_architecture(kind, image)
    _check_profile(bed, call, params.get("IamInstanceProfile", {}))
    _check_key_pair(bed, call, params.get("KeyName", ""))
    user_data = _user_data(params.get("UserData", ""))
    devices, sources = _devices(bed, call, image, params.get("BlockDeviceMappings", []))
    params["BlockDeviceMappings"] = devices
    _place(bed, call, params)
    if kind in bed.trouble.wish.no_capacity:
        text = f"We currently do not have sufficient {kind} capacity in the Availability Zone you requested."
        raise ApiError("InsufficientInstanceCapacity", text, status=500)
    answer = bed.ask_moto(call, params)
    for about in answer["Instances"]:
        instance = bed.moto(call).get_instance(about["InstanceId"])
        _note_sources(instance, sources)
        bed.machines.launch(instance, image, sources, user_data)
        about["State"] = {"Name": "pending", "Code": 0}
        about.pop("PublicIpAddress", None)
        about["PublicDnsName"] = ""
        about["StateReason"] = {"Code": "pending", "Message": "pending"}
    return once.remember(answer)


def _place(bed: Bed, call: Call, params: Params) -> None:
    """Where nothing is said of a subnet, a default one: moto would give an address that is of no subnet."""
    where = next(iter(params.get("NetworkInterfaces", ())), params)
    ours = bed.moto(call)
    default = next((vpc.id for vpc in ours.vpcs.values() if vpc.is_default), None)
    if where.get("SubnetId") or where.get("NetworkInterfaceId") or not default:
        return
    zone = params.get("Placement", {}).get("AvailabilityZone")
    found = [one for one in ours.get_default_subnets().values() if zone in (None, one.availability_zone)]
    if found:
        where["SubnetId"] = min(one.id for one in found)


def _image(bed: Bed, call: Call, name: str) -> Image:
    if not name:
        raise ApiError("MissingParameter", "The request must contain the parameter ImageId")
    image = images.find(bed, call, name)
    if image.state != "available":
        raise ApiError("InvalidAMIID.Unavailable", f"The image ID '{name}' is not available ({image.state})")
    return image


def _check_architecture(kind: str, image: Image) -> None:
    about = INSTANCE_TYPES.get(kind)
    known = about["ProcessorInfo"]["SupportedArchitectures"] if about else [image.architecture]
    if image.architecture not in known:
        text = (
            f"The architecture '{','.join(known)}' of the specified instance type does not match the architecture "
            f"'{image.architecture}' of the specified AMI. Specify an instance type and an AMI that have matching "
            "architectures, and try again."
        )
        raise ApiError("InvalidParameterValue", text)


def _check_profile(bed: Bed, call: Call, profile: Params) -> None:
    from moto.iam.models import iam_backends

    known = iam_backends[call.account]["aws"].instance_profiles.values()
    for key, attribute in (("Name", "name"), ("Arn", "arn")):
        value = profile.get(key)
        if value and value not in [getattr(one, attribute) for one in known]:
            text = f"Value ({value}) for parameter iamInstanceProfile.{key.lower()} is invalid. Invalid IAM Instance Profile"
            raise ApiError("InvalidParameterValue", text)


def _check_key_pair(bed: Bed, call: Call, name: str) -> None:
    if name and name not in bed.moto(call).key_pairs:
        raise ApiError("InvalidKeyPair.NotFound", f"The key pair '{name}' does not exist")


def _user_data(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ApiError("InvalidUserData.Malformed", "Invalid BASE64 encoding of user data.") from None
    if len(data) > 16384:
        raise ApiError("InvalidParameterValue", "User data is limited to 16384 bytes")
    return data


def _devices(
    bed: Bed, call: Call, image: Image, asked: list[Params]
) -> tuple[list[Params], dict[str, Snapshot]]:
    """(the mappings for moto, the snapshots by device): the image's own ones, changed as the request says."""
    merged: dict[str, Params] = {device["DeviceName"]: device for device in image.devices}
    for device in asked:
        name = device.get("DeviceName", "")
        if "NoDevice" in device:
            merged.pop(name, None)
        elif "Ebs" in device or not device.get("VirtualName"):
            old = merged.get(name, {}).get("Ebs", {})
            merged[name] = {"DeviceName": name, "Ebs": {**old, **device.get("Ebs", {})}}
    found, sources = [], {}
    for name, device in merged.items():
        ebs = dict(device.get("Ebs", {}))
        snapshot = _source(bed, call, image, ebs.pop("SnapshotId", ""))
        if snapshot:
            sources[name] = snapshot
            _check_size(name, ebs, snapshot)
            ebs["Encrypted"] = bool(ebs.get("Encrypted") or snapshot.key)
        if "VolumeSize" not in ebs:
            raise ApiError("MissingParameter", "The request must contain the parameter size or snapshotId")
        if bed.moto(call).ebs_encryption_by_default:
            ebs["Encrypted"] = True
        if ebs.get("KmsKeyId") and not ebs.get("Encrypted"):
            raise ApiError(
                "InvalidParameterDependency", "The parameter KmsKeyId requires the parameter Encrypted"
            )
        if snapshot and snapshot.key and not ebs.get("KmsKeyId"):
            ebs["KmsKeyId"] = snapshot.key
        found.append({"DeviceName": name, "Ebs": {"DeleteOnTermination": True, **ebs}})
    return found, sources


def _source(bed: Bed, call: Call, image: Image, name: str) -> Snapshot | None:
    """An image brings its own snapshots, shared or not; others must be the caller's to use."""
    if not name:
        return None
    return bed.world.snapshots[name] if name in image.snapshots else snapshots.find(bed, call, name)


def _check_size(name: str, ebs: Params, snapshot: Snapshot) -> None:
    size = ebs.setdefault("VolumeSize", snapshot.size)
    if size < snapshot.size:
        text = f"Volume of size {size}GB is smaller than snapshot '{snapshot.id}', expect size>= {snapshot.size}GB"
        raise ApiError("InvalidBlockDeviceMapping", text)


def _note_sources(instance: Any, sources: dict[str, Snapshot]) -> None:
    for name, device in instance.get_block_device_mapping:
        if name in sources:
            instance.ec2_backend.get_volume(device.volume_id).snapshot_id = sources[name].id


def _named(bed: Bed, call: Call) -> list[Any]:
    """The instances that the call names. Moto raises InvalidInstanceID.NotFound."""
    found: list[Any] = bed.moto(call).get_multi_instances_by_id(call.params["InstanceIds"])
    return found


def _change(instance: Any, before: tuple[str, int]) -> dict[str, Any]:
    now = {"Name": instance.state, "Code": instance.state_code}
    previous = {"Name": before[0], "Code": before[1]}
    return {"InstanceId": instance.id, "CurrentState": now, "PreviousState": previous}


def _refuse(instance: Any, states: tuple[str, ...], verb: str) -> None:
    if instance.state in states:
        text = f"The instance '{instance.id}' is not in a state from which it can be {verb}."
        raise ApiError("IncorrectInstanceState", text)


def stop_instances(bed: Bed, call: Call) -> Answer:
    """StopInstances. One that is stopped already stays so."""
    found = _named(bed, call)
    for instance in found:
        _refuse(instance, ("pending", *_GONE), "stopped")
        if instance.disable_api_stop:
            text = f"The instance '{instance.id}' may not be stopped. Modify its 'disableApiStop' instance attribute."
            raise ApiError("OperationNotPermitted", text)
    bed.dry_run(call)
    changes = []
    for instance in found:
        before = (instance.state, instance.state_code)
        if instance.state == "running":
            bed.machines.stop(instance)
        changes.append(_change(instance, before))
    return {"StoppingInstances": changes}


def start_instances(bed: Bed, call: Call) -> Answer:
    """StartInstances."""
    found = _named(bed, call)
    for instance in found:
        _refuse(instance, ("stopping", *_GONE), "started")
        if instance.instance_type in bed.trouble.wish.no_capacity:
            text = "Insufficient capacity."
            raise ApiError("InsufficientInstanceCapacity", text, status=500)
    bed.dry_run(call)
    changes = []
    for instance in found:
        before = (instance.state, instance.state_code)
        if instance.state == "stopped":
            bed.machines.start(instance)
        changes.append(_change(instance, before))
    return {"StartingInstances": changes}


def reboot_instances(bed: Bed, call: Call) -> Answer:
    """RebootInstances."""
    found = _named(bed, call)
    for instance in found:
        _refuse(instance, ("stopping", "stopped", *_GONE), "rebooted")
    bed.dry_run(call)
    for instance in found:
        bed.machines.reboot(instance)
    return {}


def terminate_instances(bed: Bed, call: Call) -> Answer:
    """TerminateInstances. One that is terminated already stays so, and is no error."""
    found = _named(bed, call)
    for instance in found:
        if instance.disable_api_termination:
            text = f"The instance '{instance.id}' may not be terminated. Modify its 'disableApiTermination' instance attribute and try again."
            raise ApiError("OperationNotPermitted", text)
    bed.dry_run(call)
    changes = []
    for instance in found:
        before = (instance.state, instance.state_code)
        bed.machines.terminate(instance)
        changes.append(_change(instance, before))
    return {"TerminatingInstances": changes}


def describe_instances(bed: Bed, call: Call) -> Answer:
    """DescribeInstances, without those too new to be found."""
    answer = bed.ask_moto(call)
    for reservation in answer.get("Reservations", []):
        kept = [one for one in reservation["Instances"] if not bed.trouble.hidden(one["InstanceId"])]
        reservation["Instances"] = kept
    kept = [reservation for reservation in answer.get("Reservations", []) if reservation["Instances"]]
    return {**answer, "Reservations": kept}


def get_console_output(bed: Bed, call: Call) -> Answer:
    """GetConsoleOutput: what the machine has really said."""
    instance = bed.moto(call).get_instance(call.params["InstanceId"])
    return {"InstanceId": instance.id, "Output": bed.machines.console(instance.id), "Timestamp": bed.now()}


def delete_security_group(bed: Bed, call: Call) -> Answer:
    """DeleteSecurityGroup: refused as long as an instance, until it is terminated, is in the group."""
    name = call.params.get("GroupId") or call.params.get("GroupName", "")
    group = bed.moto(call).get_security_group_by_name_or_id(name)
    for instance in bed.moto(call).all_instances():
        groups = {one.id for nic in instance.nics.values() for one in nic.group_set}
        if group and instance.state != "terminated" and group.id in groups:
            raise ApiError("DependencyViolation", f"resource {group.id} has a dependent object")
    return bed.ask_moto(call)


ACTIONS = {
    "DeleteSecurityGroup": delete_security_group,
    "DescribeInstances": describe_instances,
    "GetConsoleOutput": get_console_output,
    "RebootInstances": reboot_instances,
    "RunInstances": run_instances,
    "StartInstances": start_instances,
    "StopInstances": stop_instances,
    "TerminateInstances": terminate_instances,
}
