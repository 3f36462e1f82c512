"""Images of the local store written as disks for other places."""

from __future__ import annotations

from pathlib import Path

from ingot.backends.local import chain
from ingot.backends.local.store import Store
from ingot.model.events import Emit
from ingot.model.image import Image
from ingot.ports import Cancel


class LocalExporter:
    """Implements `ports.Exporter`: a chain of layers becomes one flat file."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @property
    def formats(self) -> dict[str, str]:
        """The formats by name, each with the ending that a file of it has."""
        from ingot.disk import formats

        return {name: format.suffix for name, format in formats.KNOWN.items()}

    def export(
        self, image: Image, output: Path, *, format: str, subject: str, emit: Emit, cancel: Cancel
    ) -> Path:
        """Writes the image; its layers' bytes are checked first. Raises NotFoundError where one is damaged."""
        from ingot.disk import formats

        formats.find_format(format)
        records = self._store.verify(image.digest, cancel=cancel)
        with self._store.lease(records):
            source = chain.nested(self._store.files(records))
            return formats.write_disk(
                source, output, format=format, subject=subject, emit=emit, cancel=cancel
            )
