"""Bases: real ones from the Debian archive and from images, and what an archive or an image may not be."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import subprocess
import sys
import tempfile
from math import prod
from pathlib import Path

import pytest

from ingot.backends.local import archive, chain, disk_image, holder
from ingot.backends.local.base import make_base
from ingot.errors import BackendError
from ingot.model.definition import DebootstrapBase, DiskImageBase
from ingot.model.events import ignore
from ingot.model.units import Seconds
from ingot.system import process, waits
from ingot.system.waits import Flag
from tests.backends.local import bases
from tests.backends.local.origin import Origin
from tests.booting import boot_to_login

GIB = 2**30


def fail(source: DebootstrapBase | DiskImageBase, folder: Path, *, disk: int = bases.SIZE) -> BackendError:
    """The error of a base that cannot be made; nothing of the attempt is left."""
    with pytest.raises(BackendError) as caught:
        make_base(
            bases.plan(source, disk),
            folder / "disk.qcow2",
            settings=bases.settings(folder),
            emit=ignore,
            cancel=Flag(),
        )
    assert not (folder / "base").exists()
    return caught.value


# What the archive refuses ------------------------------------------------------------------------------------


@pytest.mark.local
def test_a_mirror_that_does_not_answer_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        mirror = f"http://127.0.0.1:{unused.getsockname()[1]}/debian"
    error = fail(DebootstrapBase(suite="bookworm", mirror=mirror, security=""), tmp_path)
    assert error.message == f"the archive {mirror} could not be reached"
    assert "mirror" in error.hint


@pytest.mark.local
def test_an_archive_without_the_suite_is_named_with_it(tmp_path: Path) -> None:
    with Origin().serving() as origin:
        error = fail(DebootstrapBase(suite="bookwurm", mirror=origin.url("/debian"), security=""), tmp_path)
    assert error.message == f"the archive {origin.url('/debian')} has no suite 'bookwurm'"
    assert "debootstrap" in error.hint


@pytest.mark.local
def test_a_keyring_that_is_not_there(tmp_path: Path) -> None:
    error = fail(DebootstrapBase(suite="bookworm", keyring="keys/acme.gpg"), tmp_path)
    assert "keys/acme.gpg" in error.message and str(tmp_path / "keys/acme.gpg") in error.hint


@pytest.mark.local
@pytest.mark.network
def test_another_keyring_is_told(tmp_path: Path) -> None:
    keys = tmp_path / "old.gpg"
    keys.write_bytes(Path("/usr/share/keyrings/debian-archive-removed-keys.gpg").read_bytes())
    error = fail(DebootstrapBase(suite="bookworm", keyring="old.gpg"), tmp_path)
    assert "is signed with another key than those in old.gpg" in error.message


@pytest.mark.local
@pytest.mark.network
def test_a_package_that_there_is_not_is_named(tmp_path: Path) -> None:
    error = fail(DebootstrapBase(suite="bookworm", include=("openmpi-binn",)), tmp_path)
    assert error.message == "the archive has no package 'openmpi-binn' in bookworm (main)"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("E: Failed to fetch http://m/x.deb  Hash Sum mismatch", "gave a file that does not match its lists"),
        ("E: Release file for http://m/InRelease is expired (invalid since 9d)", "is too old to be trusted"),
        (
            "E: Package 'raspi' has no installation candidate",
            "has no package 'raspi' in bookworm (main, contrib)",
        ),
        ("E: You don't have enough free space in /x/archives/.", "the builder's disk is full"),
        (
            "E: Sub-process gpgv exploded",
            "apt could not get the packages from http://m: Sub-process gpgv exploded",
        ),
    ],
)
def test_apts_sayings_become_sentences(said: str, told: str) -> None:
    source = DebootstrapBase(suite="bookworm", mirror="http://m", components=("main", "contrib"))
    assert told in archive.explain(f"Get:1 something\n{said}\n", source).message


def test_the_mirror_of_the_build_stays_out_of_the_image() -> None:
    source = DebootstrapBase(suite="trixie", mirror="http://mirror.acme", security="http://mirror.acme/s")
    text = archive.image_sources(source)
    assert "acme" not in text
    assert "URIs: http://deb.debian.org/debian\nSuites: trixie trixie-updates\nComponents: main\n" in text
    assert f"Signed-By: {archive.KEYRING_IN_IMAGE}" in text


def test_later_layers_use_the_mirror_too() -> None:
    source = DebootstrapBase(suite="trixie", mirror="http://mirror.acme")
    assert archive.mirrors(source) == {"http://deb.debian.org/debian": "http://mirror.acme"}
    assert archive.mirrors(DebootstrapBase(suite="trixie")) == {}


def test_an_archive_with_keys_of_its_own_stays_in_the_image() -> None:
    source = DebootstrapBase(suite="acme", mirror="http://apt.acme", security="", keyring="acme.asc")
    text = archive.image_sources(source)
    assert text.count("Types: deb") == 1
    assert (
        "URIs: http://apt.acme\nSuites: acme\n" in text
        and "Signed-By: /etc/apt/keyrings/base-archive.asc" in text
    )


# Images ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def cloud_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small raw disk with a partition table and an ext4 root that says what system it is."""
    folder = tmp_path_factory.mktemp("image")
    (folder / "root/etc").mkdir(parents=True)
    (folder / "root/etc/os-release").write_text("ID=tiny\n")
    disk = folder / "disk.raw"
    with disk.open("wb") as file:
        file.truncate(64 * 2**20)
    process.run(["sfdisk", "--quiet", str(disk)], timeout=Seconds(60.0), input=b"label: gpt\nstart=2048\n")
    words = [
        "mke2fs",
        "-q",
        "-t",
        "ext4",
        "-b",
        "4096",
        "-d",
        str(folder / "root"),
        "-E",
        "offset=1048576",
        str(disk),
        "15600",
    ]
    process.run(words, timeout=Seconds(60.0))
    return disk


def sha256(path: Path) -> str:
    """The checksum as a definition has it."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def make(source: DiskImageBase, folder: Path, *, disk: int = GIB) -> Path:
    """The disk of an image base."""
    path = folder / "disk.qcow2"
    make_base(bases.plan(source, disk), path, settings=bases.settings(folder), emit=ignore, cancel=Flag())
    return path


@pytest.mark.local
def test_an_image_grows_to_the_disk(cloud_image: Path, tmp_path: Path) -> None:
    disk = make(DiskImageBase(url=str(cloud_image)), tmp_path)
    assert chain.refuse_foreign(disk).size == GIB
    with holder.mounted([disk], tmp_path / "look", writable=False) as held:
        assert held.exported and held.exported.root[0].size > 0.99 * GIB
        assert held.read("/etc/os-release") == ["ID=tiny\n"]
        blocks = held.tool(["stat", "--file-system", "--format=%b %S", str(held.root)])
        assert prod(map(int, blocks.split())) > 0.9 * GIB
    process.run(["qemu-img", "check", "-q", str(disk)], timeout=Seconds(60.0))


@pytest.mark.local
def test_an_image_is_fetched_once_and_checked(cloud_image: Path, tmp_path: Path) -> None:
    wanted = sha256(cloud_image)
    with Origin().serving() as origin:
        url = origin.put("/tiny.raw", cloud_image.read_bytes())
        origin.cuts["/tiny.raw"] = 1
        make(DiskImageBase(url=url, sha256=wanted), tmp_path, disk=64 * 2**20)
        (tmp_path / "again").mkdir()
        asked = len(origin.asked)
        path = disk_image.fetch(
            DiskImageBase(url=url, sha256=wanted),
            root=tmp_path,
            cache=tmp_path / "images",
            emit=ignore,
            cancel=Flag(),
        )
    assert len(origin.asked) == asked == 2
    assert path == tmp_path / "images" / wanted


def test_another_checksum_names_both(cloud_image: Path, tmp_path: Path) -> None:
    found, wanted = sha256(cloud_image), "0" * 64
    with Origin().serving() as origin:
        url = origin.put("/tiny.raw", cloud_image.read_bytes())
        for source in (
            DiskImageBase(url=url, sha256=wanted),
            DiskImageBase(url=str(cloud_image), sha256=wanted),
        ):
            error = fail(source, tmp_path)
            assert found in error.message and wanted in error.message
    assert not list((tmp_path / "images").iterdir())


def test_an_image_that_is_not_there(tmp_path: Path) -> None:
    assert "images/none.qcow2" in fail(DiskImageBase(url="images/none.qcow2"), tmp_path).message
    with Origin().serving() as origin:
        error = fail(DiskImageBase(url=origin.url("/none"), sha256="0" * 64), tmp_path)
    assert "404" in error.message and origin.url("/none") in error.message


def test_a_url_needs_a_checksum(tmp_path: Path) -> None:
    assert (
        "has no checksum" in fail(DiskImageBase(url="https://images.example/debian.qcow2"), tmp_path).message
    )


@pytest.mark.parametrize("option", [("-b", "/etc/passwd", "-F", "raw"), ("-o", "data_file=data.raw")])
def test_an_image_that_points_to_other_files_is_refused(option: tuple[str, ...], tmp_path: Path) -> None:
    image = tmp_path / "foreign.qcow2"
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", *option, str(image), "64M"], check=True, cwd=tmp_path
    )
    error = fail(DiskImageBase(url=str(image)), tmp_path)
    assert "refers to another file" in error.message and "flatten" in error.hint


@pytest.mark.parametrize(
    ("data", "told"),
    [(b"\xfd7zXZ\x00" + bytes(1000), "is a xz file"), (b"<html>" + bytes(2000), "neither qcow2 nor a raw disk"),
     (b"KDMV" + bytes(508), "is a vmdk file")],
)  # fmt: skip
def test_what_is_no_disk_is_refused(data: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(data)
    assert told in fail(DiskImageBase(url="image"), tmp_path).message


def test_a_disk_never_shrinks(cloud_image: Path, tmp_path: Path) -> None:
    error = fail(DiskImageBase(url=str(cloud_image)), tmp_path, disk=32 * 2**20)
    assert "64.0 MiB" in error.message and "32.0 MiB" in error.message


# Debian bases ------------------------------------------------------------------------------------------------


@pytest.fixture(params=["bookworm", pytest.param("trixie", marks=pytest.mark.slow)])
def debian(request: pytest.FixtureRequest) -> Path:
    """The disk of a real base."""
    return bases.debian(request.param)


_SOUND = """
dpkg --audit
dpkg --verify | grep -v -e ' c /' || true
apt-get --simulate --fix-broken install | grep -q '0 newly installed'
test -z "$(cat /etc/machine-id)" && test ! -e /etc/ssh/ssh_host_rsa_key && test -s /etc/ssl/certs/ca-certificates.crt
for file in /etc/apt/apt.conf.d/99mmdebstrap /run/ingot /etc/apt/preferences.d/ingot /usr/sbin/policy-rc.d; do
  test ! -e $file || echo "$file was left"
done
grep -rlE 'mmdebstrap|127\\.0\\.0\\.1:[0-9]' /etc/apt /etc/dpkg || true
apt-cache policy tmux | grep -q 'Candidate: [0-9]' || echo "no package lists"
for name in apt yaml jinja2 cloudinit; do python3 -B -c "import $name"; done
python3 -B - <<'CHECK'
import importlib.util, pathlib
sources = pathlib.Path("/usr/lib/python3/dist-packages").rglob("*.py")
missing = [str(path) for path in sources if not pathlib.Path(importlib.util.cache_from_source(str(path))).exists()]
assert len(missing) < 5, missing
CHECK
"""


@pytest.mark.local
@pytest.mark.network
def test_a_debian_base_is_sound(debian: Path, tmp_path: Path) -> None:
    assert not chain.refuse_foreign(debian).dirty
    with holder.mounted([debian], tmp_path, writable=False) as held:
        said = held.run(["chroot", str(held.root), "sh", "-euc", _SOUND], timeout=Seconds(300.0)).stdout
        assert said.strip() == ""
        assert held.read("/etc/hostname") == ["localhost\n"]


@pytest.mark.local
@pytest.mark.network
def test_the_initramfs_holds_what_debians_own_program_puts_in(debian: Path, tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.qcow2"
    chain.create(overlay, bases.SIZE)
    compare = """
kernel=$(basename /boot/initrd.img-* | sed s/^initrd.img-//)
mkinitramfs -o /tmp/own "$kernel"
listing() { lsinitramfs -l "$1" | awk '{ if ($1 ~ /^d/) print $1, $NF; else { $2 = $6 = $7 = $8 = ""; print } }' | sort; }
listing /tmp/own >/tmp/own.list
listing /boot/initrd.img-$kernel >/tmp/made.list
test $(wc -l </tmp/own.list) -gt 500
diff /tmp/own.list /tmp/made.list
"""
    with holder.hold(tmp_path / "hold") as held:
        held.export([debian, overlay], writable=True)
        held.mount()
        said = held.run(
            ["chroot", str(held.root), "sh", "-euc", compare], timeout=Seconds(300.0), check=False
        )
        assert (said.code, said.stdout) == (0, "")
        held.unmount(trim=False)


_MAKE = """
import sys
from pathlib import Path
from ingot.backends.local.base import make_base
from ingot.model.definition import DebootstrapBase
from ingot.model.events import ignore
from ingot.system.waits import Flag
from tests.backends.local import bases
folder, state = Path(sys.argv[1]), Path(sys.argv[2])
base = bases.plan(DebootstrapBase(suite="bookworm"))
make_base(base, folder / "disk.qcow2", settings=bases.settings(state), emit=ignore, cancel=Flag())
"""


@pytest.mark.local
@pytest.mark.network
def test_nothing_runs_on_when_the_builder_is_killed(tmp_path: Path) -> None:
    words = [sys.executable, "-c", _MAKE, str(tmp_path), str(bases.CACHE)]
    builder = process.spawn(words, env=process.environment({"PYTHONPATH": "src:."}), cwd=bases.ROOT)
    log = tmp_path / "base/mmdebstrap.log"
    before = set(Path(tempfile.gettempdir()).glob("mmdebstrap.*"))

    def installs() -> bool | None:
        assert builder.poll() is None
        return (log.exists() and "Setting up" in log.read_text(errors="replace")) or None

    waits.poll(installs, what="an installation", every=Seconds(0.1), deadline=Seconds(300.0), cancel=Flag())
    builder.kill()
    builder.wait()

    def quiet() -> bool | None:
        return not _traces(tmp_path) or None

    waits.poll(quiet, what="the end of all traces", every=Seconds(0.1), deadline=Seconds(60.0), cancel=Flag())
    assert set(Path(tempfile.gettempdir()).glob("mmdebstrap.*")) <= before


def _traces(folder: Path) -> list[str]:
    """Processes and loop devices that have to do with a folder."""
    found = []
    for place in (*Path("/proc").glob("[0-9]*/cmdline"), *Path("/sys/block").glob("loop*/loop/backing_file")):
        with contextlib.suppress(OSError):
            if str(folder).encode() in place.read_bytes():
                found.append(str(place))
    return found


@pytest.fixture
def overlay(debian: Path, tmp_path: Path) -> Path:
    """A disk to boot: what it writes goes into a file of the test's own."""
    path = tmp_path / "boot.qcow2"
    words = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(debian), "-F", "qcow2", str(path)]
    process.run(words, timeout=Seconds(60.0))
    return path


@pytest.mark.local
@pytest.mark.network
@pytest.mark.boot
@pytest.mark.slow  # in CI an image on such a base boots so: tests/roles
@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_a_debian_base_boots_to_a_login(firmware: str, overlay: Path, tmp_path: Path) -> None:
    text = boot_to_login(overlay, firmware=firmware, folder=tmp_path)
    # Host keys are made by what sealing puts in; without any, sshd does not start.
    failed = [line for line in text.splitlines() if "Failed to start" in line and "Secure Shell" not in line]
    assert not failed and "Press any key" not in text
