"""A small cached base disk and a local backend on it, for tests that need real machines (`@pytest.mark.local`).

In a test module: `from tests.local_fixtures import Site, cached_base, site`. The base is made once per checkout
(about 40 s) and kept below `.cache/`; `site` is a backend with a state folder of the test's own.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from ingot.backends.local import chain, holder
from ingot.backends.local.backend import LocalBackend, open_backend
from ingot.backends.local.store import NewLayer
from ingot.model.digest import digest
from ingot.model.events import ignore
from ingot.model.image import LayerRef
from ingot.model.plan import LayerKey
from ingot.model.units import Bytes, Seconds
from ingot.ports import BackendSettings, Machine, MachineSpec, Token
from ingot.system import locks, process, ssh
from ingot.system.waits import Flag

_CACHE = Path(__file__).parent.parent / ".cache"
_SIZE = Bytes(3 * 2**30)
_TABLE = (
    "label: gpt\n"
    "size=1MiB,type=21686148-6449-6E6F-744E-656564454649\n"
    "type=4f68bce3-e8cd-4db1-96e7-fbcaf984b709\n"
)
_PACKAGES = "openssh-server,python3,python3-apt,sudo,systemd,systemd-sysv,iproute2,procps,ca-certificates"
_RECIPE = ["mmdebstrap", "--variant=minbase", f"--include={_PACKAGES}", "bookworm"]
_MIRROR = "http://deb.debian.org/debian"


@pytest.fixture(scope="session")
def cached_base() -> Path:
    """A bootable-looking Debian 12 without a kernel: GPT, ext4, sshd, Python, sudo, systemd. Never written to."""
    return make_cached_base()


def make_cached_base() -> Path:
    """As `cached_base`, for programs of tests."""
    mark = hashlib.sha256(repr((_RECIPE, _TABLE, _SIZE)).encode()).hexdigest()[:12]
    path = _CACHE / f"test-base-{mark}.qcow2"
    with locks.lock(_CACHE / "test-base.lock"):
        if not path.exists():
            folder = _CACHE / "test-base"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            _make_base(folder, folder / "disk.qcow2")
            (folder / "disk.qcow2").rename(path)
            shutil.rmtree(folder)
    return path


def _make_base(folder: Path, disk: Path) -> None:
    chain.create(disk, _SIZE)
    with holder.hold(folder / "ns") as held:
        held.export([disk], writable=True)
        held.tool(["sfdisk", "--quiet", str(held.raw)], text=_TABLE)
        held.unexport()
        root, _ = held.export([disk], writable=True).partitions[-1]
        words = ["mke2fs", "-q", "-t", "ext4", "-E", f"offset={root.start},nodiscard", str(held.raw)]
        held.tool([*words, f"{root.size // 1024}k"])
        held.unexport()
        held.export([disk], writable=True)
        held.mount()
        held.run([*_RECIPE, str(held.root), _MIRROR], timeout=Seconds(900.0), cancel=Flag())
        held.unmount(trim=True)
        held.unexport()


@dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    """A local backend with one layer, the base, in a state folder of its own."""

    state: Path
    backend: LocalBackend
    base: LayerRef

    @contextmanager
    def machine(
        self, token: str = "ingot-test-1", parent: LayerRef | None = None, **spec: object
    ) -> Iterator[Machine]:
        """A running chroot machine, removed at the end."""
        resource = self.backend.hosts.machine(MachineSpec(parent=parent or self.base, **spec))  # type: ignore[arg-type]
        ref = resource.create(Token(token))
        try:
            yield self.backend.hosts.attach(ref, emit=ignore, cancel=Flag())
        finally:
            resource.delete(ref)

    def freeze(self, machine: Machine, name: str, *, sealed: bool = False, scanned: bool = False) -> LayerRef:
        """What the machine wrote, as the layer whose key is made of the name."""
        return self.backend.hosts.freeze(
            machine, key(name), labels={"name": name}, scanned=scanned, sealed=sealed, cancel=Flag()
        )

    def attach(self, machine: Machine) -> Machine:
        """The machine, running again after a freeze."""
        return self.backend.hosts.attach(machine.ref, emit=ignore, cancel=Flag())

    def layer(self, name: str, script: str, parent: LayerRef | None = None) -> LayerRef:
        """A layer made by one script."""
        with self.machine(f"ingot-{name}-1", parent) as machine:
            sh(machine, script)
            return self.freeze(machine, name)


def key(name: str) -> LayerKey:
    """A key for a test's layer."""
    return LayerKey(digest(name))


def sh(machine: Machine, script: str, *, check: bool = True) -> process.Completed:
    """A shell script run on the machine as root, with `set -e`."""
    text = ("set -e\n" + script).encode()
    return ssh.run(machine.ssh, ["sh", "-s"], timeout=Seconds(120.0), input=text, check=check)


def shows(site: Site, machine: Machine, top: LayerRef, text: str, folder: Path) -> bool:
    """Whether the bytes of a detached machine's disk, all of them, have the text; `top` is the layer it stands on."""
    records = site.backend.store.chain(top.content)
    assert records
    overlay = site.state / "local" / "work" / machine.ref / "disk.qcow2"
    flat = folder / "flat.raw"
    source = chain.nested([*site.backend.store.files(records), overlay])
    process.run(["qemu-img", "convert", "-O", "raw", source, str(flat)], timeout=Seconds(120.0))
    found = process.run(["grep", "--text", "--quiet", text, str(flat)], timeout=Seconds(120.0), check=False)
    flat.unlink()
    return found.code == 0


def open_site(state: Path, base: Path) -> Site:
    """A site whose store has this disk as its base."""
    backend = open_backend(BackendSettings(state=state, directory=state / "runs" / "test", root=state))
    copy = state / "base.qcow2"
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(base, copy)
    record = backend.store.add(
        copy, NewLayer(key=key("base"), parent=None, sealed=False, scanned=True, labels={})
    )
    return Site(state=state, backend=backend, base=record.ref(backend.store.file(record.content)))


@pytest.fixture(scope="module")
def site(cached_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site for the tests of one module."""
    return open_site(tmp_path_factory.mktemp("state"), cached_base)
