"""Images of the local store written as disks for other places."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from ingot.backends.local import chain
from ingot.backends.local.store import Store
from ingot.model.events import Emit
from ingot.model.image import Image
from ingot.model.plan import ContentId
from ingot.ports import Cancel

if TYPE_CHECKING:
    from ingot.backends.local.disk_blocks import ChainDisk


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

    @contextmanager
    def opened(
        self, content: ContentId, *, since: ContentId | None = None, cancel: Cancel
    ) -> Iterator[ChainDisk]:
        """The disk of a layer, to be read by blocks; its layers' bytes are checked first, and nobody drops them meanwhile.

        Raises NotFoundError where one is damaged. Where the layers of the earlier disk are gone, no block is known to be
        the same.
        """
        from ingot.backends.local.disk_blocks import ChainDisk

        records = self._store.verify(content, cancel=cancel)
        earlier = (self._store.chain(since) if since else None) or ()
        pairs = zip(records, earlier, strict=False)
        shared = len(list(takewhile(lambda pair: pair[0].content == pair[1].content, pairs)))
        with ExitStack() as stack:
            stack.enter_context(self._store.lease([*records, *earlier[shared:]]))
            yield stack.enter_context(
                ChainDisk(
                    self._store.files(records),
                    content,
                    shared=shared,
                    others=self._store.files(earlier[shared:]),
                    cancel=cancel,
                )
            )
