"""Machines that a process leaves for another one."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingot.backends.local.backend import LocalBackend, open_backend
from ingot.errors import NotFoundError, RefusedError
from ingot.model.events import ignore
from ingot.ports import BackendSettings, MachineSpec, Token
from ingot.system.waits import Flag
from tests.local_fixtures import Site, cached_base, key, sh, site

__all__ = ["cached_base", "site"]
pytestmark = pytest.mark.local


def later(site: Site) -> LocalBackend:
    """The backend as another process opens it."""
    return open_backend(
        BackendSettings(state=site.state, directory=site.state / "runs" / "test", root=site.state)
    )


@pytest.mark.parametrize("kind", ["chroot", "booted"])
def test_the_disk_is_as_it_was_left(site: Site, kind: str) -> None:
    resource = site.backend.hosts.machine(MachineSpec(parent=site.base, kind=kind))  # type: ignore[arg-type]
    ref = resource.create(Token(f"ingot-kept-{kind}-1"))
    machine = site.backend.hosts.attach(ref, emit=ignore, cancel=Flag())
    sh(machine, "echo one > /root/one")
    layer = site.freeze(machine, f"kept-{kind}")
    machine = site.attach(machine)
    sh(machine, "echo two > /root/two")
    site.backend.hosts.keep(ref, 0.0)
    backend = later(site)
    # What it stands on stays, whatever is asked for.
    assert [one.leased for one in backend.layers.layers() if one.ref.key == key(f"kept-{kind}")] == [True]
    with pytest.raises(RefusedError):
        backend.layers.drop(layer)
    again = backend.hosts.attach(ref, emit=ignore, cancel=Flag())
    assert again.kind == kind
    assert sh(again, "cat /root/one /root/two; echo three > /root/three").stdout == "one\ntwo\n"
    with pytest.raises(RefusedError, match="in use"):
        later(site).hosts.attach(ref, emit=ignore, cancel=Flag())
    backend.hosts.keep(ref, 0.0)
    third = later(site)
    assert sh(third.hosts.attach(ref, emit=ignore, cancel=Flag()), "cat /root/three").stdout == "three\n"
    third.resource(resource.kind).delete(ref)
    assert not list((site.state / "local" / "work").iterdir())
    third.layers.drop(layer)
    with pytest.raises(NotFoundError):
        later(site).hosts.attach(ref, emit=ignore, cancel=Flag())


def test_another_process_removes_what_was_kept(site: Site, tmp_path: Path) -> None:
    resource = site.backend.hosts.machine(MachineSpec(parent=site.base))
    ref = resource.create(Token("ingot-kept-left-1"))
    site.backend.hosts.attach(ref, emit=ignore, cancel=Flag())
    site.backend.hosts.keep(ref, 0.0)
    later(site).resource(resource.kind).delete(ref)
    assert not list((site.state / "local" / "work").iterdir())
    assert not list((site.state / "local" / "pins").iterdir())
