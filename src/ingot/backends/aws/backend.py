"""AWS as a backend: one account at one region."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ingot.backends.aws import tags
from ingot.backends.aws.cloud import Cloud
from ingot.backends.aws.hosts import InstanceHost
from ingot.backends.aws.images import AmiStore
from ingot.backends.aws.imports import AwsImporter
from ingot.backends.aws.instances import KIND, PARTS, Instances
from ingot.backends.aws.layers import SnapshotLayers
from ingot.backends.aws.publish import AwsPublisher
from ingot.backends.aws.shape import SHAPE, TargetShape
from ingot.backends.aws.snapshot import KIND as UPLOAD
from ingot.backends.aws.source import Finder
from ingot.errors import UsageError
from ingot.model.digest import short
from ingot.model.events import Emit, Warned
from ingot.model.image import LayerRef
from ingot.model.plan import LayerKey
from ingot.model.units import Seconds
from ingot.ports import BackendSettings, Cancel, Resource, Token
from ingot.system import locks

if TYPE_CHECKING:
    from ingot.backends.aws.doctor import AwsDoctor

_HASTE = Seconds(8.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class AwsBackend:
    """Implements `ports.Backend`."""

    cloud: Cloud
    settings: TargetShape
    directory: Path
    """The run's own folder."""
    state: Path
    """What outlives a run on this computer: locks on layers, what is known of uploads."""

    @property
    def name(self) -> str:
        return "aws"

    @property
    def location(self) -> str:
        return self.cloud.region

    @property
    def hosts(self) -> InstanceHost:
        return InstanceHost(cloud=self.cloud, settings=self.settings, keys=self.directory / "aws")

    @property
    def images(self) -> AmiStore:
        return AmiStore(cloud=self.cloud, settings=self.settings)

    @property
    def layers(self) -> SnapshotLayers:
        return SnapshotLayers(cloud=self.cloud)

    @property
    def exporter(self) -> None:
        return None

    @property
    def carrier(self) -> None:
        return None

    @property
    def finder(self) -> Finder:
        return Finder(cloud=self.cloud)

    @property
    def importer(self) -> AwsImporter:
        """Takes in disks that were made on this computer."""
        return AwsImporter(
            cloud=self.cloud, settings=self.settings, store=self.images, folder=self.state / "uploads"
        )

    @property
    def publisher(self) -> AwsPublisher | None:
        """Copies, shares and names images, where the target asks for any of that."""
        wanted = self.settings
        share = wanted.share
        asked = (wanted.copy_to, share.accounts, share.organizations, share.units)
        if not any((*asked, wanted.parameter, wanted.deprecate_after, wanted.protect)):
            return None
        return AwsPublisher(cloud=self.cloud, settings=wanted, store=self.images)

    @property
    def doctor(self) -> AwsDoctor:
        """Looks at the account and the region; it does not wait long for either."""
        from ingot.backends.aws.doctor import AwsDoctor

        hasty = Cloud(
            self.cloud.region, profile=self.settings.profile, pause=self.cloud.pause, patience=_HASTE
        )
        return AwsDoctor(cloud=hasty, settings=self.settings)

    def layer(self, key: LayerKey) -> LayerRef | None:
        """The layer of this key, or None."""
        return self.layers.find([key]).get(key)

    def find_layers(self, keys: Sequence[LayerKey]) -> Mapping[LayerKey, LayerRef]:
        """Those of these layers that are there."""
        return self.layers.find(keys)

    @contextmanager
    def lock(self, key: LayerKey, *, emit: Emit, cancel: Cancel) -> Iterator[None]:
        """Held by whoever builds the layer of this key on this computer.

        Two computers may make the same layer at once: both are whole, and the newer one is found from then on.
        """
        waiting = Warned(
            message=f"another build makes the layer {short(key)}; waiting for it", hint="its result is reused"
        )
        path = self.state / "locks" / f"{key.removeprefix('sha256:')}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with locks.lock(path, cancel=cancel, on_wait=lambda: emit(waiting)):
            yield

    def resource(self, kind: str) -> Resource:
        """What deletes a dead run's instances and uploads. Raises KeyError for a kind that is not ours."""
        if kind == UPLOAD:
            return self.importer.snapshots()
        return {KIND: Instances(cloud=self.cloud, settings=self.settings, keys=self.directory / "aws")}[kind]

    def strays(self, *, older_than: Seconds) -> Iterator[tuple[str, str]]:
        """Tokens of instances, and uploads that nobody completed, in this account and region, without a journal."""
        wanted = tags.filters({"key": [tags.TOKEN, tags.MADE]})
        told: dict[tuple[str, str], dict[str, str]] = {}
        for tag in self.cloud.list("describe_tags", "Tags", Filters=wanted):
            told.setdefault((tag["ResourceType"], tag["ResourceId"]), {})[tag["Key"]] = tag["Value"]
        latest = tags.when(time.time() - older_than)
        old = {
            thing: one[tags.TOKEN]
            for thing, one in told.items()
            if tags.TOKEN in one and one.get(tags.MADE, "") <= latest
        }
        instances = Instances(cloud=self.cloud, settings=self.settings, keys=self.directory / "aws")
        for token in sorted({token for (kind, _), token in old.items() if kind in PARTS}):
            if instances.find(Token(token)):  # what has ended keeps its tags for a while
                yield KIND, token
        uploads = [name for kind, name in old if kind == "snapshot"]
        for name in self.layers.unfinished(sorted(uploads)):
            yield UPLOAD, name


def open_backend(settings: BackendSettings) -> AwsBackend:
    """The account and region that a target's options and boto3's own rules lead to.

    `AWS_POLL_DELAY_SECONDS` is the time between two looks at what takes long. Raises UsageError without a region.
    """
    shape = TargetShape.model_validate(dict(settings.options))
    region = SHAPE.location(settings.options)
    if not region:
        raise UsageError(
            "no region is given for AWS", hint="set `region` on the target, or `AWS_DEFAULT_REGION`"
        )
    pause = Seconds(float(os.environ.get("AWS_POLL_DELAY_SECONDS", "1")))
    cloud = Cloud(region, profile=shape.profile, pause=pause)
    return AwsBackend(cloud=cloud, settings=shape, directory=settings.directory, state=settings.state / "aws")
