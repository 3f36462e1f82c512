"""What the pretend cloud keeps: its images, and its layers as garbage collection sees them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ingot.backends.memory.shelf import Shelf
from ingot.errors import RefusedError
from ingot.model.digest import short
from ingot.model.image import Image, LayerRef
from ingot.model.units import Bytes
from ingot.ports import StoredLayer

if TYPE_CHECKING:
    from ingot.backends.memory.backend import MemoryBackend


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryImages:
    """Implements `ports.ImageStore`."""

    cloud: MemoryBackend

    def list(self, labels: Mapping[str, str]) -> Iterator[Image]:
        """The images that bear all these labels."""
        return (image for image in self.cloud.shelf.images() if labels.items() <= image.labels.items())

    def register(self, layer: LayerRef, name: str, *, arch: str, labels: Mapping[str, str]) -> Image:
        """An image of a sealed layer. The same layer under the same name again gives the image there is."""
        if not layer.sealed:
            raise RefusedError(
                f"the layer {short(layer.content)} is not sealed", hint="build the whole image"
            )
        cloud = self.cloud
        ref = f"{name}-{layer.content.removeprefix('sha256:')}"

        def make() -> Image:
            for image in cloud.shelf.images():
                if image.ref == ref:
                    return image
            cloud.count("images")
            image = Image(
                name=name,
                backend=cloud.name,
                location=cloud.location,
                ref=ref,
                digest=layer.content,
                key=layer.key,
                arch=arch,
                size=Bytes(cloud.shelf.disk(layer.content)["size"]),
                created=cloud.clock.now().isoformat(timespec="seconds"),
                labels=dict(labels),
            )
            cloud.shelf.put_image(image)
            return image

        return cloud.ask("register", make)

    def delete(self, image: Image) -> None:
        """Removes an image; one that is gone already is fine."""
        self.cloud.shelf.drop_image(image.ref)


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryLayers:
    """Implements `ports.LayerStore`."""

    shelf: Shelf

    def layers(self) -> Iterator[StoredLayer]:
        """Every layer, with those that stand on it; one with a machine on it is leased."""
        found = tuple(self.shelf.layers())
        under = {(self.shelf.machine(token) or {}).get("on") for token in self.shelf.machines()}
        for layer in found:
            yield StoredLayer(
                ref=layer,
                last_used=self.shelf.used(layer.content),
                leased=layer.content in under,
                children=frozenset(child.content for child in found if child.parent == layer.content),
            )

    def drop(self, ref: LayerRef) -> None:
        """Removes a layer. Raises RefusedError for one in use, or with others on it."""
        for layer in self.layers():
            if layer.ref.parent == ref.content:
                raise RefusedError(
                    f"the layer {short(ref.content)} has layers standing on it", hint="drop those first"
                )
            if layer.ref.content == ref.content and layer.leased:
                raise RefusedError(
                    f"the layer {short(ref.content)} is in use", hint="wait for the build to end"
                )
        self.shelf.drop_layer(ref.content)
