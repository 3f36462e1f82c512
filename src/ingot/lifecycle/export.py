"""Writing an image as a disk for somewhere else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ingot.errors import PlanError, RefusedError, UsageError
from ingot.model.events import Emit, ignore
from ingot.model.image import Image
from ingot.ports import Backend, Cancel

DEFAULT = "qcow2"


def export(
    image: Image,
    *,
    format: str,
    output: Path,
    backend: Backend,
    cancel: Cancel,
    force: bool = False,
    emit: Emit = ignore,
    subject: str = "",
) -> Path:
    """The file that the image was written to: `output`, or a file named after the image where that is a folder.

    Raises PlanError for a backend that cannot export, UsageError for an unknown format, RefusedError for a file that
    is there without `force`: all before anything is made.
    """
    path = decide_output(image, format=format, output=output, endings=endings(backend))
    if path.exists() and not force:
        raise RefusedError(f"{path} is there already", hint="`--force` replaces it; `-o` names another file")
    exporter = backend.exporter
    assert exporter is not None, "endings refuses a backend without one"
    return exporter.export(image, path, format=format, subject=subject, emit=emit, cancel=cancel)


def endings(backend: Backend) -> Mapping[str, str]:
    """The formats of a backend by name, with their files' endings. Raises PlanError where it cannot export."""
    if backend.exporter is None:
        raise PlanError(
            f"images of the backend {backend.name!r} cannot be exported",
            hint="build the image for a target of the `local` backend and export that one",
        )
    return backend.exporter.formats


def decide_output(image: Image, *, format: str, output: Path, endings: Mapping[str, str]) -> Path:
    """Where to write: `output`, or in that folder a file named after the image. Raises UsageError for the format."""
    if format not in endings:
        raise UsageError(
            f"there is no disk format {format!r}", hint=f"choose one of: {', '.join(sorted(endings))}"
        )
    return output / f"{image.name}{endings[format]}" if output.is_dir() else output


def guess_format(output: Path, endings: Mapping[str, str]) -> str:
    """The format that a file's name asks for by its ending; DEFAULT where it asks for none."""
    fitting = [name for name, ending in endings.items() if output.name.endswith(ending)]
    return max(fitting, key=lambda name: len(endings[name]), default=DEFAULT)
