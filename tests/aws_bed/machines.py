"""Which machine belongs to which instance, and the states that an instance goes through with it."""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moto.ec2.models.instances import StateReason

from ingot.errors import IngotError
from tests.aws_bed import disks
from tests.aws_bed.bed import Bed
from tests.aws_bed.machine import Login, Machine
from tests.aws_bed.network import Card
from tests.aws_bed.state import Image, Snapshot
from tests.aws_bed.wire import ApiError

_LOG = logging.getLogger("aws_bed")
_CODES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}
_HOST = "x86_64"


@dataclass(kw_only=True, slots=True, eq=False)
class Guest:
    """An instance of moto's and its machine. `busy` is held while the machine is started, stopped or removed."""

    instance: Any
    machine: Machine
    address: socket.socket
    """Bound to the public address, so that nobody else takes it."""
    busy: threading.RLock = field(default_factory=threading.RLock)


def set_state(instance: Any, name: str) -> None:
    """The state that DescribeInstances shows: "Amazon EC2 instance state changes"."""
    instance._state.name, instance._state.code = name, _CODES[name]


class Machines:
    """All machines of the bed."""

    def __init__(self, bed: Bed) -> None:
        self._bed = bed
        self._guests: dict[str, Guest] = {}
        self._making = threading.Lock()
        self._ended_all = False

    def launch(self, instance: Any, image: Image, sources: dict[str, Snapshot], user_data: bytes) -> None:
        """Gives an instance an address, its volumes' disks and, in a thread, a machine. `sources`: by device."""
        set_state(instance, "pending")
        address = _take_address()
        public = address.getsockname()[0]
        for nic in instance.nics.values():
            if nic.public_ip:
                nic.public_ip = public
        pair = instance.ec2_backend.key_pairs.get(instance.key_name)
        root = instance.block_device_mapping[instance.root_device_name].volume_id
        guest = Guest(
            instance=instance,
            address=address,
            machine=Machine(
                name=instance.id,
                hostname=str(instance.private_dns_name).partition(".")[0],
                disk=self._bed.disk_of_volume(root),
                folder=self._bed.folder / "instances" / instance.id,
                address=public,
                nursery=self._bed.nursery,
                network=self._bed.network,
                card=_card(instance),
                login=Login(
                    user=image.user,
                    keys=(pair.public_key.strip(),) if pair else (),
                    user_data=user_data,
                ),
                on_end=lambda: self._ended(instance.id),
            ),
        )
        guest.machine.folder.mkdir(parents=True)
        self._guests[instance.id] = guest
        threading.Thread(target=self._bring_up, args=(guest, image, sources), daemon=True).start()

    def _bring_up(self, guest: Guest, image: Image, sources: dict[str, Snapshot]) -> None:
        began = time.monotonic()
        instance = guest.instance
        with guest.busy:
            keys = [snapshot.key for snapshot in sources.values() if snapshot.key]
            if not all(self._bed.key_allows(key, instance.owner_id) for key in keys):
                # "Instance terminates immediately": "you do not have permissions to access the KMS key".
                self._fail(guest, "Client.InternalError", "Client error on launch")
                return
            for name, device in instance.get_block_device_mapping:
                disk = self._bed.disk_of_volume(device.volume_id)
                size = self._size(instance, device.volume_id)
                with self._making:
                    if self._ended_all:
                        return
                    self._make_disk(disk, size, sources.get(name))
            _LOG.info("%s: disks in %.2f s", instance.id, time.monotonic() - began)
            if image.architecture != _HOST:
                self._fail(guest, "Server.InternalError", f"This bed has no {image.architecture} processor")
                return
            self._boot(guest, began)

    def _make_disk(self, disk: Path, size: int, source: Snapshot | None) -> None:
        if source is None:
            disks.create(disk, size)
        elif source.disk == self._bed.world.base:
            disks.copy_base(source.disk, disk, size, self._bed.folder / "grown")
        else:
            disks.copy(source.disk, disk, size)

    @staticmethod
    def _size(instance: Any, volume_id: str) -> int:
        return int(instance.ec2_backend.get_volume(volume_id).size) * disks.GIB

    def _boot(self, guest: Guest, began: float) -> None:
        try:
            with self._making:
                if self._ended_all:
                    return
                guest.machine.boot()
            _LOG.info("%s: boots after %.2f s", guest.instance.id, time.monotonic() - began)
        except IngotError as error:
            _LOG.warning("%s", error)
            # As on EC2: an instance whose disk does not boot is running, and only its console tells.
            with guest.machine.console.open("a") as console:
                console.write(f"{error}\n")
        time.sleep(max(0.0, began + self._bed.delays.launch - time.monotonic()))
        if guest.instance.state == "pending":
            set_state(guest.instance, "running")

    def _fail(self, guest: Guest, code: str, message: str) -> None:
        guest.instance.state_reason = StateReason(f"{code}: {message}", code)
        self._remove(guest, state_reason=guest.instance.state_reason)

    def stop(self, instance: Any) -> None:
        """StopInstances, in a thread."""
        instance.stop()
        set_state(instance, "stopping")
        guest = self._guests[instance.id]

        def work() -> None:
            began = time.monotonic()
            with guest.busy:
                guest.machine.power_off()
                time.sleep(max(0.0, began + self._bed.delays.stop - time.monotonic()))
                if instance.state == "stopping":
                    self._settle_stopped(instance)

        threading.Thread(target=work, daemon=True).start()

    @staticmethod
    def _settle_stopped(instance: Any) -> None:
        set_state(instance, "stopped")
        for nic in instance.nics.values():
            nic.public_ip = None  # "the instance loses its public IPv4 address"

    def start(self, instance: Any) -> None:
        """StartInstances, in a thread. The public address is another one than before."""
        set_state(instance, "pending")
        guest = self._guests[instance.id]
        guest.address.close()
        guest.address = _take_address()
        guest.machine.address = guest.address.getsockname()[0]
        for nic in instance.nics.values():
            nic.public_ip = guest.machine.address

        def work() -> None:
            with guest.busy:
                self._boot(guest, time.monotonic())

        threading.Thread(target=work, daemon=True).start()

    def terminate(self, instance: Any) -> None:
        """TerminateInstances, in a thread."""
        if instance.state in ("shutting-down", "terminated"):
            return
        set_state(instance, "shutting-down")
        guest = self._guests[instance.id]

        def work() -> None:
            began = time.monotonic()
            guest.machine.cut_power()
            with guest.busy:
                guest.machine.cut_power()
                time.sleep(max(0.0, began + self._bed.delays.terminate - time.monotonic()))
                self._remove(guest)

        threading.Thread(target=work, daemon=True).start()

    def _remove(self, guest: Guest, *, state_reason: StateReason | None = None) -> None:
        """Removes machine and volumes; the instance stays to be described as terminated."""
        guest.machine.cut_power()
        instance = guest.instance
        volumes = [device.volume_id for _, device in instance.get_block_device_mapping]
        instance.terminate()
        set_state(instance, "terminated")
        if state_reason:
            instance.state_reason = state_reason
        for name in volumes:
            if name not in instance.ec2_backend.volumes:
                disks.remove(self._bed.disk_of_volume(name))
        self._guests.pop(instance.id, None)
        guest.address.close()
        self._bed.last_words[instance.id] = guest.machine.console.read_bytes()
        disks.remove(guest.machine.folder)

    def _ended(self, name: str) -> None:
        """The system powered off by itself: `InstanceInitiatedShutdownBehavior` says what that means."""
        guest = self._guests.get(name)
        if not guest or guest.instance.state != "running":
            return
        instance = guest.instance
        reason = StateReason(
            "Client.InstanceInitiatedShutdown: Instance initiated shutdown",
            "Client.InstanceInitiatedShutdown",
        )
        with guest.busy:
            instance.state_reason = reason
            if instance.instance_initiated_shutdown_behavior == "terminate":
                set_state(instance, "shutting-down")
                time.sleep(self._bed.delays.terminate)
                self._remove(guest, state_reason=reason)
            else:
                set_state(instance, "stopping")
                time.sleep(self._bed.delays.stop)
                self._settle_stopped(instance)

    def reboot(self, instance: Any) -> None:
        """RebootInstances."""
        self._guests[instance.id].machine.reboot()

    def power_off(self, name: str) -> None:
        """Powers an instance's machine off for a while, its state as it was."""
        guest = self._guests[name]
        with guest.busy:
            guest.machine.power_off()

    def power_on(self, instance: Any) -> None:
        """The end of that while."""
        guest = self._guests[instance.id]
        with guest.busy:
            self._boot(guest, time.monotonic())

    @contextmanager
    def still(self, volume: str) -> Iterator[None]:
        """While it lasts, the machine that has the volume as its root writes nothing. Raises ApiError while it starts."""
        disk = self._bed.disk_of_volume(volume)
        guest = next((guest for guest in list(self._guests.values()) if guest.machine.disk == disk), None)
        if not guest:
            if not disk.exists():
                raise ApiError("IncorrectState", f"{volume} is not there yet")
            yield
            return
        with guest.busy, guest.machine.still():
            yield

    def console(self, name: str) -> str:
        """GetConsoleOutput: the most recent 64 KiB, in Base64."""
        guest = self._guests.get(name)
        said = b""
        with contextlib.suppress(OSError):
            said = guest.machine.console.read_bytes() if guest else self._bed.last_words.get(name, b"")
        return base64.b64encode(said[-65536:]).decode()

    def end_all(self) -> None:
        """Ends all machines, for good; no disk is made any more."""
        with self._making:
            self._ended_all = True
        for guest in list(self._guests.values()):
            guest.machine.cut_power()


def _card(instance: Any) -> Card:
    vpc = instance.ec2_backend.get_vpc(instance.vpc_id)
    length = ipaddress.ip_network(vpc.cidr_block).prefixlen
    return Card(vpc=vpc.id, private=instance.private_ip, length=length)


def _take_address() -> socket.socket:
    """A socket bound to an address that no other instance of any bed has."""
    for number in range(100, 1 << 15):
        sock = socket.socket()
        try:
            sock.bind((f"127.0.{number >> 8}.{number & 255}", 1))
        except OSError:
            sock.close()
        else:
            return sock
    raise RuntimeError("no address is free")
