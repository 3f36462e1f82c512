"""AWS passes what every backend passes, on real machines behind EC2's own interface."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from ingot.backends.aws.backend import AwsBackend
from ingot.backends.aws.cloud import Cloud
from ingot.backends.aws.shape import TargetShape
from ingot.backends.aws.source import IMAGE
from ingot.model.definition import CloudBase
from ingot.model.digest import digest
from ingot.model.image import LayerRef
from ingot.model.plan import Base, LayerKey
from ingot.model.units import Bytes, Seconds
from ingot.ports import Machine
from ingot.provision import seal
from ingot.testing.backend_suite import BackendSuite
from tests.aws_bed import state
from tests.aws_bed.fixture import AwsBed
from tests.local_fixtures import cached_base, sh

__all__ = ["cached_base"]
pytestmark = pytest.mark.local

SETTINGS = TargetShape(instance_type=["c7i.large"], user="admin", allow_from=["127.0.0.1/32"])


@dataclass(frozen=True, kw_only=True, slots=True)
class AwsSubject:
    """Implements `backend_suite.Subject`."""

    bed: AwsBed
    root: Path
    base: LayerRef
    kind: Literal["instance"] = "instance"

    @property
    def planned(self) -> Base:
        source = CloudBase(backend="aws", query={"ami": self.base.ref})
        pins = {IMAGE: self.base.ref}
        return Base(
            name="base", source=source, arch="x86_64", disk=self.base.size, pins=pins, key=self.base.key
        )

    def open(self, directory: Path) -> AwsBackend:
        cloud = Cloud(state.REGION, pause=Seconds(0.1), settles=Seconds(2.0))
        return AwsBackend(cloud=cloud, settings=SETTINGS, directory=directory, state=self.root)

    def write(self, machine: Machine, path: str, text: str) -> None:
        sh(machine, f"printf %s {shlex.quote(text)} > {shlex.quote(path)}")

    def read(self, machine: Machine, path: str) -> str | None:
        done = sh(machine, f"cat {shlex.quote(path)}", check=False)
        return None if done.code else done.stdout

    def seal(self, machine: Machine) -> None:
        sh(machine, seal.script().decode())

    def left(self) -> Sequence[str]:
        """All but layers and images, which stay: those bear a key."""
        found = self.bed.left()
        kept = {"snapshots", "images"}
        images = self.bed.client("ec2").describe_images(Owners=["self"])["Images"]
        passing = [
            image["ImageId"]
            for image in images
            if "ingot:key" not in {tag["Key"] for tag in image.get("Tags", ())}
        ]
        return [
            *passing,
            *(f"{kind} {name}" for kind, names in found.items() if kind not in kept for name in names),
        ]


class TestAws(BackendSuite):
    every = 5

    @pytest.fixture
    def subject(self, bed: AwsBed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AwsSubject:
        for name, value in bed.environment().items():
            monkeypatch.setenv(name, value)
        root = tmp_path / "state"
        here = AwsSubject(bed=bed, root=root, base=None)  # type: ignore[arg-type]
        hosts = here.open(tmp_path).hosts
        base = hosts.source_layer(LayerKey(digest("base")), bed.source(), disk=Bytes(8 * 2**30))
        return AwsSubject(bed=bed, root=root, base=base)
