"""Where a pretend cloud keeps its things: a folder of small JSON files, there after a SIGKILL as a cloud's are.

<folder>/
    keys/<key>            the content that a key leads to
    layers/<content>      a layer: its disk, and what it stands on
    machines/<token>.json a machine: its disk, and since when it is there
    images/<ref>.json     an image
    locks/<key>           held by who builds a layer
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ingot.errors import NotFoundError
from ingot.model.digest import plain
from ingot.model.image import Image, LayerRef
from ingot.model.plan import ContentId, LayerKey
from ingot.model.units import Bytes
from ingot.system.files import write_atomically

Disk = dict[str, Any]
"""What a disk holds: `size`, `packages`, `files` by path, and what was `done` to it, in order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shelf:
    """Reads and writes the files; knows no habits and waits for nothing."""

    root: Path

    def lock(self, key: LayerKey) -> Path:
        return self.root / "locks" / _name(key)

    def layer(self, key: LayerKey) -> LayerRef | None:
        """The layer of this key, if it and all that it stands on are there."""
        pointer = self.root / "keys" / _name(key)
        return self._whole(ContentId(pointer.read_text())) if pointer.exists() else None

    def layers(self) -> Iterator[LayerRef]:
        for file in sorted(
            (self.root / "layers").glob("[!.]*")
        ):  # a dot begins what was never renamed into place
            yield self._ref(ContentId(f"sha256:{file.name}"))

    def used(self, content: ContentId) -> datetime:
        """When the layer was last written or touched."""
        return datetime.fromtimestamp(self._layer(content).stat().st_mtime, UTC)

    def disk(self, content: ContentId) -> Disk:
        """What a disk holds that stands on this layer. Raises NotFoundError for a layer that is lost."""
        if not self._layer(content).exists():
            raise NotFoundError(
                f"the layer {content} is lost", hint="build again: what is missing is made anew"
            )
        disk: Disk = _read(self._layer(content))["disk"]
        return disk

    def put_layer(self, disk: Disk, about: LayerRef) -> LayerRef:
        """Keeps a layer, and lets its key lead to it."""
        write_atomically(self._layer(about.content), json.dumps({"disk": disk, "about": plain(about)}))
        write_atomically(self.root / "keys" / _name(about.key), about.content)
        return about

    def drop_layer(self, content: ContentId) -> None:
        self._layer(content).unlink(missing_ok=True)

    def damage(self, key: LayerKey) -> None:
        """Loses the bytes of a layer, as a broken disk would; its key still leads to it."""
        self.drop_layer(ContentId((self.root / "keys" / _name(key)).read_text()))

    def machine(self, token: str) -> dict[str, Any] | None:
        """What is known of a machine; None for one that is not there."""
        file = self._machine(token)
        return _read(file) if file.exists() else None

    def machines(self) -> list[str]:
        """The tokens of the machines that are there."""
        return sorted(path.stem for path in (self.root / "machines").glob("*.json"))

    def put_machine(self, token: str, about: Mapping[str, Any]) -> None:
        write_atomically(self._machine(token), json.dumps(about))

    def drop_machine(self, token: str) -> None:
        self._machine(token).unlink(missing_ok=True)

    def images(self) -> Iterator[Image]:
        for file in sorted((self.root / "images").glob("*.json")):
            yield Image(**_read(file))

    def put_image(self, image: Image) -> None:
        write_atomically(self.root / "images" / f"{image.ref}.json", json.dumps(plain(image)))

    def drop_image(self, ref: str) -> None:
        (self.root / "images" / f"{ref}.json").unlink(missing_ok=True)

    def _whole(self, content: ContentId) -> LayerRef | None:
        below: ContentId | None = content
        while below is not None:
            if not self._layer(below).exists():
                return None
            below = self._ref(below).parent
        return self._ref(content)

    def _ref(self, content: ContentId) -> LayerRef:
        about = _read(self._layer(content))["about"]
        return LayerRef(**{**about, "size": Bytes(about["size"])})

    def _layer(self, content: ContentId) -> Path:
        return self.root / "layers" / _name(content)

    def _machine(self, token: str) -> Path:
        return self.root / "machines" / f"{token}.json"


def _name(value: str) -> str:
    return value.removeprefix("sha256:")


def _read(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text())
    return found
