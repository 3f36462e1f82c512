from __future__ import annotations

from pathlib import Path

import pytest

from ingot.model.secret import Secret
from ingot.ports import Finding, Needle
from ingot.system.waits import Flag
from tests.local_fixtures import Site, cached_base, sh, shows, site

__all__ = ["cached_base", "site"]

pytestmark = pytest.mark.local

SECRET = "q8Zt0kP3vWx9LmN2aBcD"
NEEDLE = Needle(name="the secret token", value=Secret(SECRET))
KEY = "ssh-keygen -q -t ed25519 -N '' -f /root/id"


def scan(site: Site, *scripts: str, needles: tuple[Needle, ...] = (NEEDLE,)) -> tuple[Finding, ...]:
    """What the scan finds after these scripts: each but the last is a layer of its own."""
    with site.machine() as machine:
        for number, script in enumerate(scripts):
            if number:
                site.freeze(machine, f"{scripts[:number]}")
                site.attach(machine)
            sh(machine, script)
        return site.backend.hosts.scan(machine, needles, cancel=Flag())


def notes(site: Site) -> dict[str, str]:
    return {path.name: path.read_text() for path in (site.state / "local/scans").glob("*.json")}


def test_files_of_every_layer_are_looked_at(site: Site) -> None:
    found = scan(site, f"echo {SECRET} > /etc/one", KEY, "true")
    assert {(finding.what, finding.where) for finding in found} == {
        ("the secret token", "/etc/one"),
        ("private key", "/root/id"),
    }


def test_what_was_deleted_is_found_in_its_block_if_the_disk_still_shows_it(
    site: Site, tmp_path: Path
) -> None:
    """QEMU 7.2 gives whole clusters back, so a block between two that stay keeps its bytes; QEMU 10 gives it back."""
    text = f"for n in 1 2 3; do head -c 4096 /dev/urandom > /etc/$n; echo {SECRET} > /etc/x$n; done; sync"
    with site.machine() as machine:
        sh(machine, text)
        below = site.freeze(machine, "deleted-below")
        sh(site.attach(machine), "rm /etc/x2 /etc/x1 /etc/x3")
        found = site.backend.hosts.scan(machine, (NEEDLE,), cancel=Flag())
        expected = ["the secret token"] if shows(site, machine, below, SECRET, tmp_path) else []
    assert [finding.what for finding in found] == expected
    assert all(finding.where.startswith("block at byte ") for finding in found)


def test_what_a_layer_above_overwrote_is_not_told(site: Site) -> None:
    assert scan(site, KEY, "shred -z -u -n 1 /root/id; sync") == ()


def test_what_one_image_overwrote_is_told_of_another_on_the_same_layer(site: Site) -> None:
    below = site.layer("with-key", KEY)
    results = []
    for script in ("shred -z -u -n 1 /root/id; sync", "true"):
        with site.machine(parent=below) as machine:
            sh(machine, script)
            results.append(site.backend.hosts.scan(machine, [], cancel=Flag()))
    first, second = results
    assert first == ()
    assert [finding.what for finding in second] == ["private key"]


def test_what_the_base_had_already_is_not_told(site: Site) -> None:
    # The base's own host keys, whose blocks come along when their neighbours are written.
    assert scan(site, "for key in /etc/ssh/ssh_host_*; do echo gone > $key; done; sync") == ()


def test_layers_found_clean_are_not_read_again(site: Site) -> None:
    assert scan(site, "echo first > /etc/first", "true") == ()
    before = notes(site)
    assert before and all(SECRET not in note for note in before.values())
    assert scan(site, "echo first > /etc/first", "echo second > /etc/second") == ()
    assert before.items() <= notes(site).items()


def test_a_secret_that_no_earlier_scan_knew_is_looked_for_everywhere(site: Site) -> None:
    later = Needle(name="later", value=Secret("Wx9LmN2aBcDq8Zt0kP3v"))
    steps = ("echo Wx9LmN2aBcDq8Zt0kP3v > /etc/later", "true")
    assert scan(site, *steps) == ()
    assert [finding.where for finding in scan(site, *steps, needles=(NEEDLE, later))] == ["/etc/later"]


def test_a_layer_that_leaks_gets_no_note(site: Site) -> None:
    known = set(notes(site))
    for _ in range(2):
        found = scan(site, f"echo {SECRET} > /etc/leak", "true")
        assert [finding.where for finding in found] == ["/etc/leak"]
    assert set(notes(site)) == known


def test_the_key_of_the_notes_is_for_their_owner_alone(site: Site) -> None:
    scan(site, "true")
    key: Path = site.state / "local/scans/key"
    assert key.stat().st_mode & 0o077 == 0
