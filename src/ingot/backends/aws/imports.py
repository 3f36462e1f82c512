"""Disks that were made on the user's own computer, as AMIs: no bucket, no import role, and later ones as deltas."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ingot.backends.aws import tags
from ingot.backends.aws.cloud import Cloud
from ingot.backends.aws.ebs_direct import EbsDirect, client_options
from ingot.backends.aws.images import AmiStore
from ingot.backends.aws.shape import TargetShape
from ingot.backends.aws.snapshot import Snapshots
from ingot.backends.aws.upload import LEDGER, Earlier, Order, read_earlier, upload
from ingot.model.events import Emit
from ingot.model.image import Image, LayerRef
from ingot.model.units import Bytes
from ingot.ports import Cancel, Exporter, Holder
from ingot.system import files

_LAST = "last"
"""The folder of the upload that the next one of the same image is a delta on."""
_ROOT = "/dev/xvda"
"""What the root device of an imported AMI is called, as in Debian's own; NVMe instances rename it anyway."""
_TRAITS = {
    # The disks have GRUB for both.
    "x86_64": {tags.ARCH: "x86_64", tags.ROOT: _ROOT, tags.BOOT: "uefi-preferred"},
    "aarch64": {tags.ARCH: "arm64", tags.ROOT: _ROOT, tags.BOOT: "uefi"},
}


@dataclass(frozen=True, kw_only=True, slots=True)
class AwsImporter:
    """Implements `ports.Importer`. `folder` holds what is known of uploads, and outlives runs."""

    cloud: Cloud
    settings: TargetShape
    store: AmiStore
    folder: Path

    def take(
        self,
        image: Image,
        exporter: Exporter,
        *,
        labels: Mapping[str, str],
        held: Holder,
        subject: str,
        emit: Emit,
        cancel: Cancel,
    ) -> Image:
        """The image as an AMI. Its disk goes up as a delta on the last one of its name, where that is possible."""
        known = next(self.store.found(image.digest, image.name), None)
        if known:
            return self.store.image(known)
        here = self.folder / self.cloud.region / image.name
        mine = here / image.digest.removeprefix("sha256:")[:32]
        mine.mkdir(parents=True, exist_ok=True)
        earlier = self._earlier(here / _LAST)
        with exporter.opened(image.digest, since=earlier.content if earlier else None, cancel=cancel) as disk:
            done = upload(
                disk,
                self.direct(),
                self._order(image, labels),
                folder=mine,
                earlier=earlier,
                held=held,
                subject=subject,
                emit=emit,
                cancel=cancel,
            )
        files.write_atomically(here / _LAST, mine.name + "\n")
        layer = LayerRef(
            key=image.key,
            content=image.digest,
            parent=None,
            ref=done.snapshot,
            size=Bytes(done.gib * tags.GIB),
            created=image.created,
            sealed=True,
            labels=labels,
        )
        return self.store.register(layer, image.name, arch=image.arch, labels=labels)

    def direct(self) -> EbsDirect:
        """The clients that upload."""
        options = {key: value for key, value in client_options().items() if key in _POOL}
        return EbsDirect(ebs=self.cloud.client("ebs", **options), ec2=self.cloud.client("ec2"))

    def snapshots(self) -> Snapshots:
        """What deletes uploads that a dead run left."""
        return Snapshots(direct=self.direct())

    def _earlier(self, last: Path) -> Earlier | None:
        name = last.read_text().strip() if last.exists() else ""
        return read_earlier(last.parent / name / LEDGER) if name else None

    def _order(self, image: Image, labels: Mapping[str, str]) -> Order:
        settings = self.settings
        told = {
            **settings.tags,
            **tags.label_tags(labels),
            **_TRAITS[image.arch],
            tags.KEY: image.key,
            tags.CONTENT: image.digest,
            tags.SEALED: "yes",
            tags.SCANNED: "yes",
            tags.MADE: tags.when(time.time()),
            "Name": f"{labels.get('project', 'ingot')}/{image.name}",
        }
        encrypts = settings.encrypt or bool(settings.kms_key)
        return Order(
            description=f"Ingot: {told['Name']}",
            tags=told,
            encrypted=encrypts,
            key=settings.kms_key,
            encrypted_copy=encrypts or any(one.kms_key for one in settings.copy_to),
            leave_out_zeros=settings.leave_out_zeros,
        )


_POOL = ("max_pool_connections", "tcp_keepalive")
"""The rest of what an upload's client wants is what `Cloud` gives every client."""
