"""Chroot machines and the layers made of them, with real disks."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from ingot.backends.local import blocks, chain, confine, holder, overlay
from ingot.backends.local.network import mirror_labels
from ingot.errors import BackendError, CancelledError, NotFoundError, RefusedError
from ingot.model.events import ignore
from ingot.model.secret import Secret
from ingot.model.units import Bytes, Seconds
from ingot.ports import MachineSpec, Needle, Token
from ingot.system import process, ssh
from ingot.system.waits import Flag
from tests.backends.local.origin import Origin
from tests.local_fixtures import Site, cached_base, key, open_site, sh, shows, site

__all__ = ["cached_base", "site"]
pytestmark = pytest.mark.local


def on_disk(site: Site, content: str, folder: Path, script: str) -> str:
    """What a script of the builder finds in a layer's root file system, mounted read-only; its working folder."""
    records = site.backend.store.chain(content)  # type: ignore[arg-type]
    assert records
    with holder.mounted(site.backend.store.files(records), folder / "look", writable=False) as held:
        done = held.run(["sh", "-c", f"cd {held.root} && {script}"], timeout=Seconds(60.0))
    return done.stdout


def test_layers_stack(site: Site) -> None:
    one = site.layer("stack-1", "echo one > /root/one; echo gone > /root/gone")
    two = site.layer("stack-2", "cat /root/one; rm /root/gone; echo two > /root/two", one)
    assert two.parent == one.content and one.parent == site.base.content
    with site.machine("ingot-stack", two, purpose="look") as opened:
        assert sh(opened, "cd /root; cat one two; test ! -e gone").stdout == "one\ntwo\n"
    assert site.backend.layer(key("stack-2")) == two
    assert not list((site.state / "local" / "work").iterdir())


def test_machine_goes_on_after_freeze(site: Site) -> None:
    with site.machine("ingot-go") as opened:
        sh(opened, "echo 1 > /root/a")
        first = site.freeze(opened, "go-1")
        again = site.attach(opened)
        sh(again, "cat /root/a; echo 2 > /root/b")
        second = site.freeze(again, "go-2", sealed=True)
    assert second.parent == first.content and second.sealed and not first.sealed
    for name in ("go-1", "go-2"):
        header = chain.read_header(Path(site.backend.layer(key(name)).ref))  # type: ignore[union-attr]
        assert not header.names_backing and not header.dirty


def test_nothing_of_the_build_stays(site: Site, tmp_path: Path) -> None:
    layer = site.layer(
        "residue",
        "test -x /usr/sbin/policy-rc.d; grep -q 10.0.2.3 /etc/resolv.conf; test -e /etc/sudoers.d/ingot\n"
        "cat /etc/apt/apt.conf.d/99ingot; touch /tmp/mine /run/mine /dev/shm/mine",
    )
    was = on_disk(site, site.base.content, tmp_path, "find . -xdev | sort")
    now = on_disk(site, layer.content, tmp_path, "find . -xdev | sort")
    assert set(now.splitlines()) - set(was.splitlines()) <= {"./root/.bash_history", "./root/.cache"}
    assert set(was.splitlines()) - set(now.splitlines()) == set()
    assert on_disk(site, layer.content, tmp_path, "cat etc/resolv.conf") == on_disk(
        site, site.base.content, tmp_path, "cat etc/resolv.conf"
    )
    assert "ingot" not in on_disk(site, layer.content, tmp_path, "grep -rl ingot etc root var run || true")


def test_what_a_step_puts_in_a_visitor_place_stays(site: Site, tmp_path: Path) -> None:
    layer = site.layer("own-resolv", "rm /etc/resolv.conf; ln -s /run/systemd/resolve/x /etc/resolv.conf")
    assert (
        on_disk(site, layer.content, tmp_path, "readlink etc/resolv.conf").strip() == "/run/systemd/resolve/x"
    )
    with site.machine("ingot-own-resolv", layer) as opened:
        assert "10.0.2.3" in sh(opened, "cat /etc/resolv.conf").stdout
        again = site.freeze(opened, "own-resolv-2")
    assert (
        on_disk(site, again.content, tmp_path, "readlink etc/resolv.conf").strip() == "/run/systemd/resolve/x"
    )


def test_links_on_the_disk_lead_nowhere_on_the_builder(site: Site, tmp_path: Path) -> None:
    """A step may turn a folder into a link to a path that the builder has too."""
    outside = tmp_path / "outside"
    outside.mkdir()
    layer = site.layer(
        "links", f"rm -rf /etc/sudoers.d /etc/apt; ln -s {outside} /etc/sudoers.d; ln -s {outside} /etc/apt"
    )
    with site.machine("ingot-links", layer, purpose="look") as opened:
        sh(opened, "true")
    assert not list(outside.iterdir())


def test_environment_of_a_login(site: Site) -> None:
    with site.machine("ingot-env", purpose="look") as opened:
        words = sh(opened, "env").stdout.splitlines()
        assert {"SYSTEMD_OFFLINE=1", "debian_chroot=ingot", "DEBIAN_FRONTEND=noninteractive"} <= set(words)
        become = "useradd -m user; sudo -n sh -c 'env'; sudo -n -u user env"
        kept = sh(opened, become).stdout.splitlines()
        assert kept.count("SYSTEMD_OFFLINE=1") == 2 and kept.count("debian_chroot=ingot") == 2
        assert sh(opened, "getent hosts localhost; hostname").stdout.split()[-1] == "localhost"


def test_limits_of_a_cluster_node_apply(site: Site) -> None:
    """Raising limits needs a right that containers often lack; without it `sudo -u` fails on such a disk."""
    bound = next(line for line in Path("/proc/self/status").read_text().splitlines() if "CapBnd" in line)
    if not int(bound.split()[1], 16) >> confine.CAPABILITIES["SYS_RESOURCE"] & 1:
        pytest.skip("this builder itself may not raise limits")
    with site.machine("ingot-limits", purpose="look") as opened:
        sh(opened, "echo '* - memlock unlimited' > /etc/security/limits.d/x.conf; useradd user")
        assert sh(opened, "sudo -n -u user sh -c 'ulimit -l'").stdout.strip() == "unlimited"


def test_locked_root_is_reached(site: Site) -> None:
    layer = site.layer("locked", "passwd -l root; grep '^root:!' /etc/shadow")
    with site.machine("ingot-locked", layer, purpose="look") as opened:
        assert sh(opened, "id -u").stdout == "0\n"


def test_disk_without_sshd_is_told(site: Site) -> None:
    layer = site.layer("no-sshd", "mv /usr/sbin/sshd /usr/sbin/sshd.away")
    with pytest.raises(BackendError, match="no /usr/sbin/sshd"), site.machine("ingot-no-sshd", layer):
        pass
    assert not list((site.state / "local" / "work").iterdir())


def test_lost_init_is_told(site: Site) -> None:
    with site.machine("ingot-lost", purpose="look") as opened:
        again = ssh.run(opened.ssh, ["true"], timeout=Seconds(30.0))
        assert again.code == 0
        with pytest.raises(RefusedError, match="throw-away"):
            site.freeze(opened, "never")
    gone = ssh.run(opened.ssh, ["true"], timeout=Seconds(30.0), check=False)
    assert gone.code == 255


def test_apt_downloads_through_the_cache(site: Site) -> None:
    with site.machine("ingot-apt", purpose="look") as opened:
        done = sh(opened, "apt-config dump Acquire::http::Proxy; cat /etc/apt/apt.conf.d/99ingot")
        assert "127.0.0.1:3142" in done.stdout
        reach = "import socket; socket.create_connection(('127.0.0.1', 3142), 5)"
        sh(opened, f'python3 -c "{reach}"')


def test_the_mirror_of_the_base_serves_all_layers_above(site: Site) -> None:
    fetch = (
        "import urllib.request as r; proxy = r.ProxyHandler({'http': 'http://127.0.0.1:3142'});"
        "print(r.build_opener(proxy).open('http://deb.debian.org/debian/pool/ask', timeout=20).read().decode())"
    )
    with Origin().serving() as mirror, site.machine("ingot-mirror-1") as machine:
        mirror.put("/acme/pool/ask", b"the mirror's own")
        labels = mirror_labels({"http://deb.debian.org/debian": mirror.url("/acme")})
        first = site.backend.hosts.freeze(
            machine, key("mirrored"), labels=labels, scanned=False, sealed=False, cancel=Flag()
        )
        above = site.layer("above-mirrored", "true", first)
        with site.machine("ingot-mirror-2", above) as later:
            assert sh(later, f'python3 -c "{fetch}"').stdout.strip() == "the mirror's own"


def test_kernel_settings_are_written_and_not_made(site: Site) -> None:
    before = Path("/proc/sys/vm/swappiness").read_text()
    with site.machine() as machine:
        said = sh(
            machine, "echo vm.swappiness=7 > /etc/sysctl.d/7.conf; sysctl -w vm.swappiness=7; sysctl --system"
        )
        assert said.stdout == ""
        assert sh(machine, "sysctl -n vm.swappiness").stdout == before
    assert Path("/proc/sys/vm/swappiness").read_text() == before


def test_grows(site: Site) -> None:
    size = Bytes(5 * 2**30)
    with site.machine("ingot-grow", disk=size) as opened:
        assert int(sh(opened, "df -k --output=size / | tail -1").stdout) > 4.7 * 2**20
        layer = site.freeze(opened, "grown")
    assert chain.read_header(Path(layer.ref)).size == size
    with site.machine("ingot-grown", layer, purpose="look") as opened:
        assert int(sh(opened, "df -k --output=size / | tail -1").stdout) > 4.7 * 2**20
    with (
        pytest.raises(BackendError, match="cannot shrink"),
        site.machine("ingot-small", layer, disk=Bytes(2**30)),
    ):
        pass


def test_long_chain_is_flattened(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlay, "LONGEST", 3)
    with site.machine("ingot-long") as opened:
        layers = []
        for number in range(5):
            sh(site.attach(opened), f"echo {number} > /root/n{number}")
            layers.append(site.freeze(opened, f"long-{number}"))
    assert [layer.parent is None for layer in layers] == [False, False, True, False, False]
    with site.machine("ingot-long-look", layers[-1], purpose="look") as opened:
        assert sh(opened, "cat /root/n*").stdout.split() == list("01234")


def test_layer_is_no_larger_than_what_was_written(site: Site) -> None:
    """Nothing of the free blocks is in it, and what was freed meanwhile is given back."""
    small = site.layer("small", "echo one > /root/one")
    freed = site.layer("freed", "head -c 64M /dev/urandom > /root/random; sync; rm /root/random", small)
    assert Path(small.ref).stat().st_size < 2 * 2**20
    assert Path(freed.ref).stat().st_blocks * 512 < 4 * 2**20


def test_disk_stays_in_sight_beside_a_machine_with_a_network(site: Site, tmp_path: Path) -> None:
    """slirp4netns shuts itself in, and with shared mounts unmounts the disk's export for everybody."""
    records = site.backend.store.chain(site.base.content)
    assert records
    overlay = tmp_path / "disk.qcow2"
    chain.create(overlay, records[-1].disk)
    with holder.hold(tmp_path / "ns") as held:
        exported = held.export([*site.backend.store.files(records), overlay], writable=True)
        held.mount()
        held.start(visitors=[], run_files=[], sizes={"tmp": 2**20, "run": 2**20, "shm": 2**20})
        assert held.outside(held.raw).stat().st_size == exported.size
        held.stop()
        held.settle()
        assert held.outside(held.raw).stat().st_size == exported.size
        held.unmount(trim=False)
        held.unexport()


def test_connection_is_buried_by_who_began_it(site: Site) -> None:
    """Else the machine's end waits for the builder's process 1 to look after an orphan."""
    with site.machine("ingot-hangup") as opened:
        settings = opened.ssh.config.read_text()
        line = next(line for line in settings.splitlines() if "ProxyCommand" in line)
        words = shlex.split(line.split("ProxyCommand", 1)[1].strip().replace("%%", "%"))
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as connection:
            assert connection.stdin and connection.stdout
            assert connection.stdout.readline().startswith(b"SSH-2.0")
            inside = psutil.Process(connection.pid).children(recursive=True)
            connection.send_signal(signal.SIGHUP)
            connection.stdin.close()
            assert connection.wait(timeout=30) >= 0
        assert inside and not any(process.is_running() for process in inside)


def test_scan_sees_files_and_deleted_bytes(site: Site) -> None:
    secret = "correct-horse-battery-staple"
    with site.machine("ingot-scan") as opened:
        sh(opened, f"mkdir /opt/x; echo token={secret} > /opt/x/file; sync; echo done > /opt/y")
        needle = Needle(name="token", value=Secret(secret))
        found = site.backend.hosts.scan(opened, [needle], cancel=Flag())
        assert any(finding.where == "/opt/x/file" for finding in found)
        sh(site.attach(opened), "rm /opt/x/file; cat /opt/y")
        layer = site.freeze(opened, "scanned-files")
    assert layer.size


def test_scan_sees_what_an_earlier_layer_left_and_the_disk_still_shows(site: Site, tmp_path: Path) -> None:
    """Whether it does is QEMU's matter: what was freed is given back in whole clusters (7.2), or exactly (10)."""
    secret = "correct-horse-battery-staple-2"
    with site.machine("ingot-below") as opened:
        sh(opened, f"echo {secret} > /opt/secret; sync")
        below = site.freeze(opened, "below-1")
        sh(site.attach(opened), "rm /opt/secret")
        found = site.backend.hosts.scan(opened, [Needle(name="token", value=Secret(secret))], cancel=Flag())
        shown = shows(site, opened, below, secret, tmp_path)
    assert bool([finding.where for finding in found if "token" in finding.what]) == shown


def test_image_is_of_a_sealed_layer(site: Site) -> None:
    layer = site.layer("image", "true")
    with pytest.raises(RefusedError, match="not sealed"):
        site.backend.images.register(layer, "image", arch="x86_64", labels={})
    with site.machine("ingot-image", layer) as opened:
        sealed = site.freeze(opened, "image-sealed", sealed=True)
    image = site.backend.images.register(sealed, "image", arch="x86_64", labels={"a": "b"})
    assert (image.ref, image.digest) == (sealed.ref, sealed.content)
    assert site.backend.images.register(sealed, "image", arch="x86_64", labels={"a": "b"}) == image
    assert list(site.backend.images.list({"a": "b"})) == [image]
    assert list(site.backend.images.list({"a": "c"})) == []
    site.backend.images.delete(image)
    assert list(site.backend.images.list({})) == []


def test_damaged_parent_is_refused_when_a_machine_opens(site: Site) -> None:
    layer = site.layer("damaged", "true")
    path = Path(layer.ref)
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(70000)
        file.write(b"damage")
    with pytest.raises(NotFoundError, match="damaged"), site.machine("ingot-damaged", layer):
        pass
    assert site.backend.layer(key("damaged")) is None and site.backend.layer(key("base"))
    assert not (site.state / "local" / "work" / "ingot-damaged").exists()


def test_foreign_architecture_is_refused(site: Site) -> None:
    with pytest.raises(BackendError, match="aarch64"):
        site.backend.hosts.machine(MachineSpec(parent=site.base, arch="aarch64"))


def test_cancel_stops_an_attach(site: Site) -> None:
    resource = site.backend.hosts.machine(MachineSpec(parent=site.base))
    ref = resource.create(Token("ingot-cancel"))
    flag = Flag()
    flag.set()
    with pytest.raises(CancelledError):
        site.backend.hosts.attach(ref, emit=ignore, cancel=flag)
    resource.delete(ref)
    resource.delete(ref)
    assert resource.find(Token(ref)) is None


def test_full_disk_is_told_and_leaves_no_layer(cached_base: Path, tmp_path: Path) -> None:
    """The state folder on a small file system of its own, filled by what a step writes."""
    small = tmp_path / "small"
    small.mkdir()
    process.run(["mount", "-t", "tmpfs", "-o", "size=900m", "none", str(small)], timeout=Seconds(30.0))
    try:
        site = open_site(small, cached_base)
        with site.machine("ingot-full") as opened:
            sh(opened, "dd if=/dev/urandom of=/root/large bs=1M count=800 || true; sync || true", check=False)
            with pytest.raises(BackendError, match=r"is full.*are free"):
                site.freeze(opened, "full")
            with pytest.raises(BackendError, match="cannot be used any more"):
                site.freeze(opened, "full")
        assert site.backend.layer(key("full")) is None
        assert site.backend.layer(key("base"))
        with site.machine("ingot-after-full", purpose="look") as opened:
            sh(opened, "test ! -e /root/large")
    finally:
        process.run(["umount", str(small)], timeout=Seconds(30.0))


def test_machines_at_once(site: Site) -> None:
    def build(number: int) -> str:
        with site.machine(f"ingot-par-{number}") as opened:
            sh(opened, f"echo {number} > /root/number; sleep 0.3")
            return site.freeze(opened, f"par-{number}").content

    with ThreadPoolExecutor(3) as pool:
        contents = list(pool.map(build, range(3)))
    assert len(set(contents)) == 3
    for number in range(3):
        with site.machine(
            "ingot-par-look", site.backend.layer(key(f"par-{number}")), purpose="look"
        ) as opened:
            assert sh(opened, "cat /root/number").stdout == f"{number}\n"


def test_lock_of_a_key_is_waited_for(site: Site) -> None:
    heard: list[object] = []
    order: list[str] = []
    entered = threading.Event()

    def second() -> None:
        with site.backend.lock(key("lock"), emit=heard.append, cancel=Flag()):
            order.append("second")

    with site.backend.lock(key("lock"), emit=ignore, cancel=Flag()):
        thread = threading.Thread(target=second)
        thread.start()
        while not heard:
            entered.wait(0.01)
        order.append("first")
    thread.join()
    assert order == ["first", "second"] and "waiting" in str(heard[0])


def children() -> set[psutil.Process]:
    """All processes below this one."""
    return set(psutil.Process().children(recursive=True))


def memory_of(processes: set[psutil.Process]) -> int:
    """Bytes of memory that they hold, shared pages counted once each."""
    total = 0
    for child in processes:
        try:
            total += child.memory_full_info().pss
        except psutil.NoSuchProcess:
            continue
    return total


def test_large_disk_needs_little_memory(site: Site) -> None:
    others = children()  # servers that other tests share
    with site.machine("ingot-large", disk=Bytes(100 * 2**30)) as opened:
        sh(opened, "head -c 300M /dev/urandom > /root/data; sync")
        running = memory_of(children() - others)
        layer = site.freeze(opened, "large")
    assert chain.read_header(Path(layer.ref)).size == 100 * 2**30
    assert running < 150 * 2**20


def test_strays_are_work_folders_of_the_dead(site: Site) -> None:
    left = site.state / "local" / "work" / "ingot-dead-1"
    left.mkdir(parents=True)
    with site.machine("ingot-alive"):
        strays = dict(site.backend.strays(older_than=Seconds(0.0)))
        assert strays == {"local.machine": "ingot-dead-1"}
        assert dict(site.backend.strays(older_than=Seconds(3600.0))) == {}
    site.backend.resource("local.machine").delete("ingot-dead-1")
    assert not left.exists()
    with pytest.raises(KeyError):
        site.backend.resource("aws.instance")


def test_ordinary_user_is_told() -> None:
    ask = (
        "import os\n"
        "from ingot.backends.local.holder import refuse_without_root\n"
        "from ingot.errors import BackendError\n"
        "os.setuid(65534)\n"
        "try: refuse_without_root()\n"
        "except BackendError as error: print(error, error.hint)\n"
    )
    source = Path(holder.__file__).parents[3]
    done = process.run(
        [sys.executable, "-c", ask], timeout=Seconds(30.0), env={**os.environ, "PYTHONPATH": str(source)}
    )
    assert "need root" in done.stdout and "sudo" in done.stdout


def test_allocated_blocks_are_read_past_qemu(site: Site, tmp_path: Path) -> None:
    layer = site.layer("blocks", "head -c 3M /dev/urandom | tee /root/random | sha256sum > /root/sum")
    extents = blocks.read_extents(Path(layer.ref))
    assert 3 * 2**20 < sum(extent.length for extent in extents) < 64 * 2**20
    listed = json.loads(
        process.run(
            ["qemu-img", "map", "--output=json", chain.nested([Path(layer.ref)])], timeout=Seconds(30.0)
        ).stdout
    )
    assert sum(item["length"] for item in listed if item["data"]) == sum(extent.length for extent in extents)
    seen = b"".join(data for _, data in blocks.read_blocks(Path(layer.ref), Path(layer.ref)))
    random = bytes.fromhex(
        on_disk(site, layer.content, tmp_path, "head -c 4096 root/random | od -An -tx1 -v")
    )
    assert random in seen
