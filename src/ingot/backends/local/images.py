"""Images of the local store: names for sealed layers, one small record each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from ingot.backends.local.store import Store
from ingot.errors import NotFoundError, RefusedError
from ingot.model.digest import canonical, digest, short
from ingot.model.image import Image, LayerRef
from ingot.system import files

LOCATION = "local"


class LocalImages:
    """Implements `ports.ImageStore` over `<state>/local/images`."""

    def __init__(self, folder: Path, store: Store) -> None:
        self._folder = folder
        self._store = store

    def list(self, labels: Mapping[str, str]) -> Iterator[Image]:
        """The images that have all these labels and whose chain is whole."""
        for path in sorted(self._folder.glob("[0-9a-f]*.json")):
            image = _read(path)
            if image and labels.items() <= dict(image.labels).items() and self._store.chain(image.digest):
                yield image

    def register(self, layer: LayerRef, name: str, *, arch: str, labels: Mapping[str, str]) -> Image:
        """An image of a sealed layer; `ref` is the path of its last file, which stands on the chain's others.

        Raises RefusedError for a layer that is not sealed, NotFoundError for one that is lost or damaged.
        """
        if not layer.sealed:
            raise RefusedError(
                f"the layer {short(layer.key)} is not sealed, so it is no image",
                hint="end the build with a seal",
            )
        path = self._path(layer, name)
        known = _read(path)
        if known:
            return known
        records = self._store.chain(layer.content)
        if not records:
            raise NotFoundError(f"the layer {short(layer.content)} is lost or damaged", hint="build again")
        image = Image(
            name=name,
            backend="local",
            location=LOCATION,
            ref=layer.ref,
            digest=layer.content,
            key=layer.key,
            arch=arch,
            size=records[-1].disk,
            created=records[-1].created,
            labels=dict(labels),
        )
        files.write_atomically(path, canonical(image))
        return image

    def delete(self, image: Image) -> None:
        """Removes the name; its layers stay until garbage collection takes them."""
        for path in self._folder.glob("[0-9a-f]*.json"):
            found = _read(path)
            if found and (found.name, found.digest) == (image.name, image.digest):
                files.remove(path)

    def _path(self, layer: LayerRef, name: str) -> Path:
        mark = digest({"name": name, "content": layer.content}).removeprefix("sha256:")
        return self._folder / f"{mark[:32]}.json"


def _read(path: Path) -> Image | None:
    try:
        return Image(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
