"""Virtual machines that build: what a killed builder leaves, and what the guest's scripts do. Whole builds: test_vm_builds."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest

from ingot.errors import RefusedError
from ingot.model.events import ignore
from ingot.model.units import Seconds
from ingot.ports import MachineSpec, Token
from ingot.system import ssh
from ingot.system.waits import Flag, poll
from tests.backends.local.test_kept import later
from tests.local_fixtures import Site, cached_base, key, site

__all__ = ["cached_base", "site"]
pytestmark = pytest.mark.local


def qemus(token: str) -> list[int]:
    """The processes of this machine's QEMU."""
    found = psutil.process_iter(["name", "cmdline"])
    return [
        one.pid
        for one in found
        if one.info["name"].startswith("qemu") and token in (one.info["cmdline"] or [])
    ]


def wait_for(token: str, *, there: bool) -> None:
    poll(
        lambda: bool(qemus(token)) == there or None,
        what=f"QEMU's {'start' if there else 'end'}",
        every=Seconds(0.1),
        deadline=Seconds(60.0),
        cancel=Flag(),
    )


def test_a_killed_builder_leaves_a_folder_that_sweeping_removes(site: Site) -> None:
    token = "ingot-vmkilled-1"
    child = os.fork()
    if not child:
        try:
            hosts = later(site).hosts
            hosts.attach(
                hosts.machine(MachineSpec(parent=site.base, kind="vm")).create(Token(token)),
                emit=ignore,
                cancel=Flag(),
            )
        finally:
            os._exit(1)
    try:
        wait_for(token, there=True)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    wait_for(token, there=False)
    work = site.state / "local" / "work" / token
    assert work.exists()
    backend = later(site)
    assert ("local.vm", token) in list(backend.strays(older_than=Seconds(0.0)))
    backend.resource("local.vm").delete(token)
    assert not work.exists() and not ssh.socket_folder(work).exists()
    assert [one.leased for one in backend.layers.layers() if one.ref.content == site.base.content] == [False]


def test_what_was_never_booted_becomes_a_layer_all_the_same(site: Site) -> None:
    """A disk that only grows is made so without root."""
    hosts = site.backend.hosts
    spec = MachineSpec(parent=site.base, kind="vm")
    resource = hosts.machine(spec)
    ref = resource.create(Token("ingot-vmidle-1"))
    try:
        machine = type("Known", (), {"ref": ref})()
        layer = hosts.freeze(
            machine, key("vm-idle"), labels={}, scanned=False, sealed=False, final=True, cancel=Flag()
        )
        assert layer.parent == site.base.content and layer.labels["machine"] == "vm"
    finally:
        resource.delete(ref)
    assert not qemus(ref)


def test_a_look_is_never_frozen(site: Site) -> None:
    hosts = site.backend.hosts
    resource = hosts.machine(MachineSpec(parent=site.base, kind="vm", purpose="look"))
    ref = resource.create(Token("ingot-vmlook-1"))
    try:
        machine = type("Known", (), {"ref": ref})()
        with pytest.raises(RefusedError, match="never frozen"):
            hosts.freeze(
                machine, key("vm-look"), labels={}, scanned=False, sealed=False, final=True, cancel=Flag()
            )
        with pytest.raises(RefusedError, match="not kept"):
            hosts.keep(ref, 0.0)
    finally:
        resource.delete(ref)
    assert not Path(site.state / "local" / "work" / ref).exists()
