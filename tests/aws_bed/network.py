"""The networks among instances: a switch for each VPC, in a namespace of their own, and a cable to each instance.

An instance has its private address on `ens5`. The others of its VPC reach it there, and by its public address too, which
lies in 127.0.0.0/17 and so would be each one's own loopback: there, all but the lowest 64 addresses are on the cable
("Amazon EC2 instance IP addressing": a public address is translated to the private one, and is on no interface).
"""

from __future__ import annotations

import os
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

from ingot.errors import BackendError
from ingot.model.units import Seconds
from ingot.system import process
from ingot.system.waits import Flag, poll
from tests.aws_bed.nursery import Nursery

_PATIENCE = Seconds(30.0)
_CARD = "ens5"


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """What an instance's network card is told. `length` is that of the VPC's prefix: its subnets are all on one switch."""

    vpc: str
    private: str
    length: int


class Network:
    """The switches of a bed. They end with it, for the kernel removes a namespace with its last process."""

    def __init__(self, nursery: Nursery) -> None:
        self._nursery = nursery
        self._holder: subprocess.Popen[bytes] | None = None
        self._switches: set[str] = set()
        self._cables = 0
        self._working = threading.Lock()

    def connect(self, leader: int, card: Card, *, public: str) -> None:
        """Gives the namespace of a process its cable. Raises BackendError where the kernel cannot do that."""
        with self._working:
            holder = self._started()
            switch = f"s-{card.vpc[-12:]}"
            self._cables += 1
            cable = f"c{self._cables}"
            fresh = (
                "" if switch in self._switches else f"link add {switch} type bridge\nlink set {switch} up\n"
            )
            self._switches.add(switch)
            _tell(
                holder,
                f"{fresh}link add {cable} type veth peer name {_CARD} netns {leader}\nlink set {cable} master {switch} up\n",
            )
        _tell(
            leader,
            f"addr add {card.private}/{card.length} dev {_CARD}\n"
            f"link set {_CARD} up\n"
            "route add local 127.0.0.0/26 dev lo table local\n"
            f"route add 127.0.0.0/17 dev {_CARD} src {card.private} table local\n"
            f"route add local {public}/32 dev {_CARD} table local\n",
        )

    def _started(self) -> int:
        if self._holder is None:
            read, write = os.pipe()
            with os.fdopen(read), os.fdopen(write, "wb") as output:
                self._holder = self._nursery.start(["unshare", "--net", "sleep", "infinity"], output.fileno())
            ours, theirs = Path("/proc/self/ns/net"), Path(f"/proc/{self._holder.pid}/ns/net")
            poll(
                lambda: None if theirs.samefile(ours) else True,
                what="the switches' namespace",
                every=Seconds(0.005),
                deadline=_PATIENCE,
                cancel=Flag(),
            )
        return self._holder.pid


def _tell(pid: int, batch: str) -> None:
    """Lets `ip` work in the namespace of a process. Loopback addresses may be on a cable there."""
    script = f"ip -batch - && for f in /proc/sys/net/ipv4/conf/{_CARD}/route_localnet; do test ! -e $f || echo 1 >$f; done"
    done = process.run(
        ["nsenter", f"--net=/proc/{pid}/ns/net", "sh", "-c", script],
        input=batch.encode(),
        timeout=_PATIENCE,
        check=False,
    )
    if done.code:
        raise BackendError(f"the instance's network cannot be made: {' '.join(done.tail)}")
