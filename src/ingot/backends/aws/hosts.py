"""Instances that are provisioned, and the snapshots that are made of them."""

from __future__ import annotations

import shlex
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from ingot.backends.aws import login, names, source, tags
from ingot.backends.aws.cloud import Cloud
from ingot.backends.aws.instances import Instances, Source, expiry_command
from ingot.backends.aws.shape import TargetShape
from ingot.errors import BackendError, DeadlineError, NotFoundError
from ingot.model.definition import CloudBase
from ingot.model.digest import digest, short
from ingot.model.events import Emit
from ingot.model.forensics import Evidence, Port
from ingot.model.image import LayerRef
from ingot.model.plan import Base, ContentId, LayerKey
from ingot.model.units import Bytes, Seconds
from ingot.ports import Cancel, Finding, Holder, Machine, MachineSpec, Needle, SshAccess
from ingot.system import process, ssh

_LAUNCH = Seconds(900.0)
_STOP = Seconds(900.0)
_PATIENCE = Seconds(300.0)
_SCAN = Seconds(1800.0)
_AMI = "ami-"
# Services start after a login is possible, and cloud-init holds the package manager's lock.
_SETTLED = "command -v cloud-init >/dev/null && cloud-init status --wait >/dev/null 2>&1; systemctl is-system-running --wait >/dev/null 2>&1; :"


@dataclass(frozen=True, kw_only=True, slots=True)
class Instance:
    """Implements `ports.Machine`. `ref` is its token, `id` EC2's own."""

    ref: str
    id: str
    ssh: SshAccess
    kind: Literal["instance"] = "instance"


@dataclass(frozen=True, kw_only=True, slots=True)
class InstanceHost:
    """Implements `ports.MachineHost`."""

    cloud: Cloud
    settings: TargetShape
    keys: Path
    """The run's folder for keys and for what OpenSSH reads."""
    users: dict[str, str] = field(default_factory=dict)
    """Who logs in, by the AMI that an instance came from."""
    attached: dict[str, Instance] = field(default_factory=dict)
    """Instances that were reached before."""

    @property
    def own_kind(self) -> Literal["instance"]:
        return "instance"

    def base(self, base: Base, held: Holder, *, emit: Emit, cancel: Cancel, fresh: bool = False) -> LayerRef:
        """The source AMI, which is there already. Raises BackendError where the lock pins none."""
        ami = base.pins.get(source.IMAGE, "")
        if not isinstance(base.source, CloudBase) or not ami:
            raise BackendError(
                f"the base {base.name} is not an AMI, and instances start from one",
                hint=f"give `bases.{base.name}` an entry `aws:`, such as `{{ami: ami-…}}`",
            )
        return self.source_layer(base.key, ami, disk=base.disk)

    def source_layer(self, key: LayerKey, ami: str, *, disk: Bytes) -> LayerRef:
        """An AMI as the layer that all others of a build stand on."""
        image = self._image(ami)
        return LayerRef(
            key=key,
            content=ContentId(digest({"ami": ami})),
            parent=None,
            ref=ami,
            size=disk,
            created=str(image.get("CreationDate", "")),
            labels={tags.ROOT: str(image["RootDeviceName"])},
        )

    def machine(self, spec: MachineSpec) -> Instances:
        """An instance on a layer: a source AMI, or a snapshot of ours."""
        ref = spec.parent.ref
        size = -(-int(spec.parent.size) // tags.GIB)
        if ref.startswith(_AMI):
            start = Source(image=ref, size=size, traits=spec.parent.labels)
        elif spec.purpose == "look" and (ami := self._ami_of(spec.parent)):
            start = Source(image=ami, size=size)
        else:
            told = tags.values(self._snapshot(ref))
            start = Source(snapshot=ref, size=size, traits=tags.traits(told))
        return Instances(cloud=self.cloud, settings=self.settings, keys=self.keys, spec=spec, source=start)

    def _ami_of(self, layer: LayerRef) -> str:
        """The AMI that was registered of a layer, to look at as others will launch it; "" without any."""
        wanted = {f"tag:{tags.CONTENT}": layer.content, "state": "available"}
        found = self.cloud.list("describe_images", "Images", Owners=["self"], Filters=tags.filters(wanted))
        return next((str(image["ImageId"]) for image in found), "")

    def attach(self, ref: str, *, emit: Emit, cancel: Cancel) -> Instance:
        """The instance, once it runs, answers over SSH and its system has started."""
        known = self.attached.get(ref)
        if known and not ssh.run(known.ssh, ["true"], timeout=_PATIENCE, cancel=cancel, check=False).code:
            return known
        found = self._running(ref, emit=emit, cancel=cancel)
        door = self._door(found)
        outer = login.outer(ref, door)
        try:
            self.cloud.wait(
                lambda: login.refuse_silence(outer),
                what="an answer of the instance over SSH",
                deadline=_LAUNCH,
                cancel=cancel,
                emit=emit,
            )
        except DeadlineError as error:
            error.facts["console"] = None  # EC2 keeps it: see `examine`
            raise
        inner = login.root(ref, door, outer)
        ssh.run(inner, ["sh", "-c", _SETTLED], timeout=_LAUNCH, cancel=cancel, check=False)
        expires = tags.values(found).get(tags.EXPIRES)
        if expires:  # a timer does not outlive a reboot
            self._halt_at(inner, datetime.fromisoformat(expires).timestamp())
        self.attached[ref] = Instance(ref=ref, id=found["InstanceId"], ssh=inner)
        return self.attached[ref]

    def keep(self, ref: str, until: float) -> None:
        """The instance stays as it is, for it does not live here; it ends itself then."""
        found = self._described(ref)
        self.cloud.ask(
            "create_tags", Resources=[found["InstanceId"]], Tags=tags.tags({tags.EXPIRES: tags.when(until)})
        )
        door = self._door(found)
        self._halt_at(login.root(ref, door, login.outer(ref, door)), until)

    def _halt_at(self, access: SshAccess, when: float) -> None:
        ssh.run(access, ["sh", "-c", expiry_command(when)], timeout=_PATIENCE, check=False)

    def examine(self, ref: str) -> Evidence | None:
        """What EC2 tells of an instance that does not answer; None for one that does, or that EC2 does not know."""
        try:
            found = self._described(ref)
        except NotFoundError:
            return None
        port = Port()
        if found["State"]["Name"] == "running":
            tried = ssh.run(login.outer(ref, self._door(found)), ["true"], timeout=Seconds(25.0), check=False)
            if not tried.code:
                return None
            port = _port(tried)
        console = self.cloud.ask("get_console_output", InstanceId=found["InstanceId"], Latest=True)
        ended = found["State"]["Name"] in ("stopped", "stopping", "shutting-down", "terminated")
        return Evidence(
            kind="instance",
            console=str(console.get("Output") or ""),
            state="ended" if ended else "running",
            status=str(found.get("StateReason", {}).get("Message", "")),
            user=self._user(found),
            port=port,
        )

    def scan(self, machine: Machine, needles: Sequence[Needle], *, cancel: Cancel) -> tuple[Finding, ...]:
        """What the disk must not hold, read on the machine itself."""
        from ingot.disk.machine import scan_machine

        return scan_machine(machine.ssh, needles, cancel=cancel, timeout=_SCAN).found

    def freeze(
        self,
        machine: Machine,
        key: LayerKey,
        *,
        labels: Mapping[str, str],
        scanned: bool,
        sealed: bool,
        final: bool = True,
        cancel: Cancel,
    ) -> LayerRef:
        """A snapshot of the root volume: a sealed one of the stopped instance, any other while it goes on running.

        EBS takes it as it is at the time of the call and copies it afterwards; it counts as a layer once it is complete,
        which is not waited for here.
        """
        if sealed and not scanned:
            raise BackendError("a disk that was not scanned for leaks cannot be sealed", hint="scan it first")
        assert isinstance(machine, Instance)
        cancel.check()
        if sealed:
            found = self._stop(machine.id, cancel=cancel)
        else:
            ssh.run(machine.ssh, ["sync"], timeout=_PATIENCE, cancel=cancel)
            found = self._described(machine.ref)
        content = ContentId(digest({"snapshot": uuid.uuid4().hex}))
        arch = "aarch64" if found["Architecture"] == "arm64" else str(found["Architecture"])
        words = names.words(labels, arch=arch, digest=short(content))
        told = {
            **names.tag_values(self.settings.tags, words),
            **tags.label_tags(labels),
            tags.KEY: key,
            tags.CONTENT: content,
            tags.ARCH: found["Architecture"],
            tags.ROOT: found["RootDeviceName"],
            "Name": f"{labels.get('project', 'ingot')}/{labels.get('layer', key[7:19])}",
        }
        if found.get("CurrentInstanceBootMode") or found.get("BootMode"):
            told[tags.BOOT] = str(found.get("BootMode") or found["CurrentInstanceBootMode"])
        if sealed:
            told[tags.SEALED] = told[tags.SCANNED] = "yes"
        made = self.cloud.ask(
            "create_snapshot",
            VolumeId=_root_volume(found),
            Description=f"Ingot: {told['Name']}",
            TagSpecifications=tags.specification(["snapshot"], told),
        )
        return tags.layer({**made, "Tags": tags.tags(told)})

    def _stop(self, instance: str, *, cancel: Cancel) -> dict[str, Any]:
        """Stops it; what EC2 then tells of it."""
        self.cloud.ask("stop_instances", InstanceIds=[instance])

        def stopped() -> dict[str, Any] | None:
            found = self._instances(tags.filters({"instance-id": instance}))
            state = found[0]["State"]["Name"] if found else "terminated"
            if state == "terminated":
                raise NotFoundError(
                    f"the instance {instance} has ended while it was to be stopped",
                    hint="build again: finished layers are kept",
                )
            return found[0] if state == "stopped" else None

        return self.cloud.wait(
            stopped, what="the instance to stop", deadline=_STOP, cancel=cancel, fresh=True
        )

    def _running(self, ref: str, *, emit: Emit, cancel: Cancel) -> dict[str, Any]:
        began = time.monotonic()

        def runs() -> dict[str, Any] | None:
            found = self._instances(tags.filters({f"tag:{tags.TOKEN}": ref}))
            if not found and time.monotonic() - began >= self.cloud.settles:
                raise _gone(ref)
            if not found:
                return None
            state = found[0]["State"]["Name"]
            if state in ("shutting-down", "terminated", "stopping", "stopped"):
                raise _ended(found[0])
            return found[0] if state == "running" else None

        return self.cloud.wait(
            runs, what="the instance to run", deadline=_LAUNCH, cancel=cancel, fresh=True, emit=emit
        )

    def _instances(self, filters: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        found = self.cloud.list("describe_instances", "Reservations", Filters=list(filters))
        return [dict(one) for reservation in found for one in reservation["Instances"]]

    def _described(self, ref: str) -> dict[str, Any]:
        found = self._instances(tags.filters({f"tag:{tags.TOKEN}": ref}))
        if not found:
            raise _gone(ref)
        return found[0]

    def _snapshot(self, ref: str) -> dict[str, Any]:
        return dict(self.cloud.ask("describe_snapshots", SnapshotIds=[ref])["Snapshots"][0])

    def _image(self, ami: str) -> dict[str, Any]:
        found = self.cloud.ask("describe_images", ImageIds=[ami])["Images"]
        if not found:
            raise NotFoundError(
                f"the source AMI {ami}, which `ingot.lock` pins, is not in {self.cloud.region}",
                hint="`ingot lock --update` finds the one that fits now",
            )
        return dict(found[0])

    def _door(self, found: Mapping[str, Any]) -> login.Door:
        settings = self.settings
        address = found.get("PublicIpAddress") if settings.access == "public" else None
        address = address or found.get("PrivateIpAddress") or ""
        proxy = ""
        if settings.access == "ssm":
            address = found["InstanceId"]
            proxy = _session_manager(self.cloud.region, settings.profile)
        jump = ""
        if settings.bastion:
            who = f"{settings.bastion.user}@" if settings.bastion.user else ""
            jump = f"{who}{settings.bastion.host}:{settings.bastion.port}"
        return login.Door(
            address=address, user=self._user(found), keys=self.keys, proxy_command=proxy, proxy_jump=jump
        )

    def _user(self, found: Mapping[str, Any]) -> str:
        """Who logs in: as the target says, else by the AMI's name; our own AMIs say who their source's was."""
        if self.settings.user:
            return self.settings.user
        ami = found["ImageId"]
        if ami not in self.users:
            image = self._image(ami)
            told = tags.values(image).get(tags.USER, "")
            self.users[ami] = told or source.guess_user(str(image.get("Name", "")))
        if not self.users[ami]:
            raise BackendError(
                f"it is not known who logs in to instances of {ami}", hint="set `user` on the target"
            )
        return self.users[ami]


def _root_volume(found: Mapping[str, Any]) -> str:
    for mapping in found.get("BlockDeviceMappings", ()):
        if mapping["DeviceName"] == found["RootDeviceName"]:
            return str(mapping["Ebs"]["VolumeId"])
    raise BackendError(
        f"the instance {found['InstanceId']} has no EBS root volume", hint="choose a source AMI backed by EBS"
    )


def _gone(ref: str) -> NotFoundError:
    return NotFoundError(f"the instance {ref} is gone", hint="build again: finished layers are kept")


def _ended(found: Mapping[str, Any]) -> NotFoundError:
    why = found.get("StateReason", {})
    code, said = str(why.get("Code", "")), str(why.get("Message", "")).rstrip(".")
    if code == "Client.InstanceInitiatedShutdown":
        said = "its system was powered off, by a step or because its time was over"
    elif code == "Server.SpotInstanceTermination":
        said = "EC2 took the spot instance back"
    return NotFoundError(
        f"the instance {found['InstanceId']} has ended: {said or code or found['State']['Name']}",
        hint="build again: finished layers are kept",
        code=code,
    )


def _session_manager(region: str, profile: str) -> str:
    """OpenSSH's way through Session Manager, as its documentation gives it ("SSH connections through Session Manager")."""
    words = ["aws", "ssm", "start-session", "--target", "%h", "--document-name", "AWS-StartSSHSession"]
    words += ["--parameters", "portNumber=%p", *(["--region", region] if region else [])]
    return shlex.join([*words, *(["--profile", profile] if profile else [])])


def _port(tried: process.Completed) -> Port:
    said = tuple(tried.tail)[-5:]
    text = "\n".join(said)
    if "Connection refused" in text:
        return Port(state="closed", said=said)
    if "timed out" in text or "No route" in text:
        return Port(state="silent", said=said)
    if "Permission denied" in text:
        return Port(state="greeted", login="refused", said=said)
    return Port(state="unknown", said=said)
