"""Instances as temporary things: all that one needs bears its token, and goes with it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ingot.backends.aws import login, names, place, tags
from ingot.backends.aws.cloud import Cloud, await_image, await_snapshot
from ingot.backends.aws.shape import TargetShape
from ingot.backends.aws.trouble import NO_CAPACITY
from ingot.errors import BackendError, NotFoundError, RefusedError, TransientError
from ingot.model.units import Seconds, format_bytes
from ingot.ports import MachineSpec, Token
from ingot.system.waits import Flag

KIND = "aws.instance"
PARTS = frozenset({"instance", "volume", "image", "key-pair", "security-group"})
"""What bears an instance's token, as EC2 calls the kinds."""
_ENDING = Seconds(900.0)
TYPES = {
    "x86_64": ("c7i.large", "m7i.large", "c6i.large", "m6i.large"),
    "aarch64": ("c7g.large", "m7g.large", "c6g.large", "m6g.large"),
}
"""What is tried, in this order, where the target names no instance type."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """What an instance starts from: an AMI, or a snapshot of ours that becomes one for as long as it is needed."""

    image: str = ""
    snapshot: str = ""
    size: int
    """GiB."""
    traits: Mapping[str, str] = field(default_factory=dict)
    """Of a snapshot: what its AMI needs to say (`tags.TRAITS`)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Instances:
    """Implements `ports.Resource`: an instance with its key pair, security group and, for a layer, AMI.

    Each is made by a call that writes the token on it; `ref` is the token. Without a spec it only deletes.
    """

    cloud: Cloud
    settings: TargetShape
    keys: Path
    spec: MachineSpec | None = None
    source: Source | None = None

    @property
    def kind(self) -> str:
        return KIND

    @property
    def settles(self) -> Seconds:
        return self.cloud.settles

    def create(self, token: Token) -> str:
        """Launches it. Raises BackendError for what AWS refuses, such as a quota that is used up."""
        assert self.spec and self.source, "a resource without a spec only deletes"
        disk = self.spec.disk
        if disk is not None and disk < self.source.size * tags.GIB:
            raise BackendError(
                f"the disk has {self.source.size} GiB and cannot shrink to {format_bytes(disk)}",
                hint="write a larger `disk`",
            )
        marks = self._marks(token)
        named = self.settings.subnet or self.settings.subnet_filters
        where = place.find_place(self.cloud, self.settings) if named else place.Place()
        groups = list(self.settings.security_groups) or [self._group(token, where.vpc, marks)]
        self.cloud.ask(
            "import_key_pair",
            KeyName=token,
            PublicKeyMaterial=(login.own_key(self.keys) + "\n").encode(),
            TagSpecifications=tags.specification(["key-pair"], marks),
        )
        image = self.source.image or self._image(token, marks)
        self._launch(token, self._request(token, image, groups, where, marks))
        return token

    def find(self, token: Token) -> str | None:
        """The token where anything bears it."""
        return token if next(self._things(token), None) else None

    def delete(self, ref: str) -> None:
        """Ends the instance, waits until it has ended, and removes what it needed."""
        things: dict[str, list[str]] = {}
        for kind, name in self._marked(Token(ref)):
            things.setdefault(kind, []).append(name)
        if things.get("instance"):
            self._end(things["instance"])
        for image in things.get("image", ()):
            self._gone("deregister_image", ImageId=image)
        if things.get("key-pair"):
            self._gone("delete_key_pair", KeyName=ref)
        for group in things.get("security-group", ()):
            self._remove_group(group)
        login.forget(ref, self.keys)

    def _marks(self, token: Token) -> dict[str, str]:
        assert self.spec
        expires = {tags.EXPIRES: tags.when(self.spec.expires)} if self.spec.expires else {}
        return {
            **names.tag_values(self.settings.tags, names.words(self.spec.labels, arch=self.spec.arch)),
            **tags.label_tags(self.spec.labels),
            **expires,
            tags.TOKEN: token,
            tags.MADE: tags.when(time.time()),
            "Name": token,
        }

    def _marked(self, token: Token) -> list[tuple[str, str]]:
        """(kind, id) of what bears the token; an instance that has ended does so for a while."""
        wanted = tags.filters({"key": tags.TOKEN, "value": token})
        return [
            (str(tag["ResourceType"]), str(tag["ResourceId"]))
            for tag in self.cloud.list("describe_tags", "Tags", Filters=wanted)
            if tag["ResourceType"] in PARTS
        ]

    def _things(self, token: Token) -> Iterator[tuple[str, str]]:
        """What of that is there."""
        found = self._marked(token)
        instances = [name for kind, name in found if kind == "instance"]
        gone = set(instances) - set(self._living(instances))
        yield from (one for one in found if one[1] not in gone)

    def _living(self, instances: list[str]) -> list[str]:
        if not instances:
            return []
        found = self.cloud.list(
            "describe_instances", "Reservations", Filters=tags.filters({"instance-id": instances})
        )
        return [
            one["InstanceId"]
            for reservation in found
            for one in reservation["Instances"]
            if one["State"]["Name"] != "terminated"
        ]

    def _group(self, token: Token, vpc: str, marks: Mapping[str, str]) -> str:
        """A security group that lets nobody in but this computer, and over SSH alone."""
        request: dict[str, Any] = {
            "GroupName": token,
            "Description": "Ingot build: SSH from the builder alone",
            "TagSpecifications": tags.specification(["security-group"], marks),
        }
        if vpc:
            request["VpcId"] = vpc
        made = self.cloud.ask("create_security_group", **request)
        group = str(made["GroupId"])
        if self.settings.access != "ssm":
            networks = place.own_networks(self.settings)
            self.cloud.ask(
                "authorize_security_group_ingress", GroupId=group, IpPermissions=[_ssh_from(networks)]
            )
        return group

    def _image(self, token: Token, marks: Mapping[str, str]) -> str:
        """An AMI of the layer's snapshot, for the launch alone."""
        assert self.spec and self.source
        await_snapshot(self.cloud, self.source.snapshot, cancel=Flag())
        made = self.cloud.ask(
            "register_image",
            Name=token,
            **tags.image_traits(self.source.traits, self.source.snapshot),
            TagSpecifications=tags.specification(["image"], marks),
        )
        await_image(self.cloud, str(made["ImageId"]), cancel=Flag())
        return str(made["ImageId"])

    def _request(
        self, token: Token, image: str, groups: list[str], where: place.Place, marks: Mapping[str, str]
    ) -> dict[str, Any]:
        assert self.spec and self.source
        settings, spec = self.settings, self.spec
        size = max(self.source.size, -(-int(spec.disk or 0) // tags.GIB))
        root = self.source.traits.get(tags.ROOT, "") or self._root_of(image)
        interface: dict[str, Any] = {"DeviceIndex": 0, "Groups": groups}
        if where.subnet:
            interface["SubnetId"] = where.subnet
        if settings.public_ip is not None:
            interface["AssociatePublicIpAddress"] = settings.public_ip
        request: dict[str, Any] = {
            "ImageId": image,
            "MinCount": 1,
            "MaxCount": 1,
            "KeyName": token,
            "NetworkInterfaces": [interface],
            "BlockDeviceMappings": [
                {"DeviceName": root, "Ebs": tags.volume(settings.build_volume, size, settings)}
            ],
            "MetadataOptions": {"HttpTokens": "required", "HttpEndpoint": "enabled"},
            # What halts itself when its time is over is gone, not stopped and paid for.
            "InstanceInitiatedShutdownBehavior": "terminate",
            "TagSpecifications": tags.specification(["instance", "volume"], marks),
        }
        if settings.instance_profile:
            by = "Arn" if settings.instance_profile.startswith("arn:") else "Name"
            request["IamInstanceProfile"] = {by: settings.instance_profile}
        told = spec.user_data.reveal() if spec.user_data else _expiry(spec.expires)
        if told:
            request["UserData"] = told
        return request

    def _root_of(self, image: str) -> str:
        return str(self.cloud.ask("describe_images", ImageIds=[image])["Images"][0]["RootDeviceName"])

    def _launch(self, token: Token, request: Mapping[str, Any]) -> None:
        """Tries the instance types in turn, of each first what the target prefers, until one has capacity."""
        assert self.spec
        types = self.settings.instance_type or TYPES[self.spec.arch]
        ways: list[dict[str, Any]] = [{}]
        if self.settings.spot:
            ways.insert(0, {"InstanceMarketOptions": {"MarketType": "spot"}})
        refused: list[str] = []
        for number, (kind, way) in enumerate((kind, way) for way in ways for kind in types):
            try:
                # The same token again gives the same instance: a call whose answer was lost may be made again.
                client = f"{token}-{number}"[-64:]
                self.cloud.ask("run_instances", **request, InstanceType=kind, ClientToken=client, **way)
                return
            except BackendError as error:
                if error.facts.get("code") not in NO_CAPACITY:
                    raise
                refused.append(f"{kind}{' (spot)' if way else ''}: {error.facts['code']}")
        raise BackendError(
            f"no instance could be launched in {self.cloud.region}: {'; '.join(refused)}",
            hint="name further types in `instance_type`, or another `subnet`, which is in another zone",
        )

    def _end(self, instances: list[str]) -> None:
        self._gone("terminate_instances", InstanceIds=instances)
        self.cloud.wait(
            lambda: True if not self._living(instances) else None,
            what="the instance to end",
            deadline=_ENDING,
            cancel=Flag(),
            fresh=True,
        )

    def _remove_group(self, group: str) -> None:
        def gone() -> bool:
            try:
                self._gone("delete_security_group", GroupId=group)
            except (
                RefusedError
            ) as error:  # the instance's network interface goes a little later than the instance
                raise TransientError(str(error)) from error
            return True

        self.cloud.wait(gone, what="the security group to be free", deadline=_ENDING, cancel=Flag())

    def _gone(self, operation: str, **parameters: Any) -> None:
        """A call that removes something; what is gone already is fine."""
        try:
            self.cloud.ask(operation, **parameters)
        except NotFoundError:
            return


def _ssh_from(networks: Any) -> dict[str, Any]:
    rule: dict[str, Any] = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22}
    four = [{"CidrIp": one} for one in networks if ":" not in one]
    six = [{"CidrIpv6": one} for one in networks if ":" in one]
    return {**rule, **({"IpRanges": four} if four else {}), **({"Ipv6Ranges": six} if six else {})}


def _expiry(at: float) -> str:
    """User-data by which an instance halts itself then, whatever became of whoever launched it; "" for never."""
    if not at:
        return ""
    return f"#!/bin/sh\n{expiry_command(at)}\n"


def expiry_command(at: float) -> str:
    """What has the system halt at that time (seconds since the epoch). It lives in memory: no image inherits it."""
    when = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return (
        "systemctl stop ingot-expiry.timer 2>/dev/null; "
        f"systemd-run --quiet --unit=ingot-expiry --on-calendar='{when}' systemctl poweroff"
    )
