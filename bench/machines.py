"""One play on Ingot's machines, beside Packer's QEMU builder: the same base disk, roles and virtual hardware.

Both download through the same proxy, Ingot's own over the same warmed folder, and what was built before is forgotten
before each build that is not a rebuild; so both begin with the base's file.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from urllib.parse import urlsplit

from bench import packer
from bench.measure import CACHE, HERE, Row, beside, command
from bench.project import Project, change, forget_layers
from ingot.backends.local import vm_qemu
from ingot.backends.local.download_origin import upstream_from
from ingot.backends.local.downloads import Downloads
from ingot.system.files import file_digest

BUILD, REBUILD, CHROOT = 0.8, 0.25, 0.1
_GATEWAY = "10.0.2.2"
"""This computer's 127.0.0.1, as a guest reaches it."""

_BASE = """\
name: bench-base
targets:
  local: {backend: local, disk: 8 GiB}
bases:
  debian-12:
    local: {debootstrap: bookworm}
images:
  base:
    base: debian-12
    targets: [local]
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """Seconds, one figure a round."""

    build: list[float] = field(default_factory=list)
    rebuild: list[float] = field(default_factory=list)
    chroot: list[float] = field(default_factory=list)
    packer: list[float] = field(default_factory=list)


def measure(rounds: int) -> list[Row]:
    """Both tools in turn, so that a busy moment hits both."""
    reason = packer.unavailable()
    project, sha256 = prepare()
    last = project.folder / "roles/site/tasks/main.yml"
    numbers = count(1)
    seconds = Measured()
    build(project, sha256, machine="chroot")  # the downloads
    accelerator = vm_qemu.choose_accelerator(project.state / "local")  # what Ingot's machines take
    with proxy(project) as url:
        if not reason:
            peer = packer.prepare(project.folder, sha256=sha256, accelerator=accelerator, proxy=url)
        for _ in range(rounds):
            forget_layers(project)
            seconds.build.append(build(project, sha256, machine="vm"))
            change(last, next(numbers))
            seconds.rebuild.append(build(project, sha256, machine="vm"))
            forget_layers(project)
            seconds.chroot.append(build(project, sha256, machine="chroot"))
            if not reason:
                seconds.packer.append(peer.build())
    return rows(seconds, reason=reason, accelerator=accelerator)


def rows(seconds: Measured, *, reason: str, accelerator: str) -> list[Row]:
    """Ingot's figures as multiples of Packer's one: it builds everything anew, whatever changed."""
    figures = (
        ("vm build", seconds.build, BUILD),
        ("vm rebuild, last role changed", seconds.rebuild, REBUILD),
        ("chroot build", seconds.chroot, CHROOT),
    )
    return [
        beside(
            f"{name} / Packer",
            ours,
            seconds.packer,
            limit=limit,
            tool=f"Packer ({accelerator})",
            reason=reason,
        )
        for name, ours, limit in figures
    ]


def prepare() -> tuple[Project, str]:
    """The project in `bench/node`, and the checksum of its base: a sealed disk of Ingot's, flat and uncompressed."""
    folder = CACHE / "projects" / "machines"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(HERE / "bench" / "node", folder)
    (folder / "base").mkdir()
    (folder / "base/ingot.yaml").write_text(_BASE)
    base = Project(folder=folder / "base", state=CACHE / "state")
    base.ingot("build")
    base.ingot("export", "base", "--format", "qcow2", "-o", str(folder / "base/base.qcow2"))
    disk = folder / "base.qcow2"
    command(["qemu-img", "convert", "-O", "qcow2", str(folder / "base/base.qcow2"), str(disk)])
    shutil.rmtree(folder / "base")
    return Project(folder=folder, state=base.state), file_digest(disk).removeprefix("sha256:")


def build(project: Project, sha256: str, *, machine: str) -> float:
    """Seconds of a build on such a machine."""
    return project.ingot("build", "--var", f"machine={machine}", "--var", f"sha256={sha256}")


@contextmanager
def proxy(project: Project) -> Iterator[str]:
    """Ingot's download proxy over the downloads that its builds keep, by its URL in a guest of QEMU's user network."""
    downloads = Downloads(project.state / "downloads", upstream=upstream_from(os.environ))
    with downloads.serve_here() as url:
        yield f"http://{_GATEWAY}:{urlsplit(url).port}"
