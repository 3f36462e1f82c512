"""Bases: the disks that everything stands on, from a Debian archive or from a cloud image."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import assert_never

from ingot.backends.local import archive, debootstrap, disk_image, network
from ingot.backends.local.download_origin import address_of, upstream_from
from ingot.backends.local.downloads import Downloads
from ingot.backends.local.holder import refuse_without_root
from ingot.errors import BackendError
from ingot.model.definition import CloudBase, DebootstrapBase, DiskImageBase
from ingot.model.events import Emit
from ingot.model.plan import Base
from ingot.ports import BackendSettings, Cancel
from ingot.system import files


def make_base(
    base: Base, disk: Path, *, settings: BackendSettings, emit: Emit, cancel: Cancel
) -> Mapping[str, str]:
    """Writes the disk of a base: a qcow2 file of the base's size that names no other file; not yet durable.

    Returns the labels that its layer gets.

    Works in the disk's folder, and leaves nothing but the disk there. Raises BackendError with a sentence and a
    remedy for whatever the archive, the image or this computer refuses, and CancelledError.
    """
    folder = disk.parent / "base"
    files.remove(folder)
    folder.mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        stack.callback(files.remove, folder)
        match base.source:
            case DebootstrapBase() as source:
                refuse_without_root()
                keyring = archive.find_keyring(source, settings.root)
                proxy = stack.enter_context(_open_downloads(source, settings.state).serve_here())
                work = debootstrap.Assembly(
                    base=base, source=source, keyring=keyring, folder=folder, proxy=proxy
                )
                debootstrap.build(work, disk, emit=emit, cancel=cancel)
                return network.mirror_labels(archive.mirrors(source))
            case DiskImageBase() as source:
                image = disk_image.fetch(
                    source, root=settings.root, cache=settings.state / "images", emit=emit, cancel=cancel
                )
                disk_image.build(image, base, disk, folder=folder, cancel=cancel)
                return {}
            case CloudBase(backend=cloud):
                raise BackendError(
                    f"the base {base.name} is an image of {cloud!r}, and the local backend makes its own",
                    hint=f"give `bases.{base.name}` an entry `local:`",
                )
            case _:
                assert_never(base.source)


def _open_downloads(source: DebootstrapBase, state: Path) -> Downloads:
    # The definition's own archives may be on this computer; a machine asks another proxy, which has no such leave.
    trusted = [address_of(url) for url in (source.mirror, source.security) if url.startswith("http://")]
    return Downloads(state / "downloads", upstream=upstream_from(os.environ, trusted=trusted))
