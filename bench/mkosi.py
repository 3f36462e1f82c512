"""mkosi as the peer: the same packages into a bootable disk, cold and after a change to the last script.

On Debian 13 it runs from its own package in a clean root; on Debian 12 likewise, for 12's own is too old. What it
is measured with is what its manual recommends for speed: incremental caching and a package cache, both warmed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from bench.measure import CACHE, command

ROOT = CACHE / "mkosi-root"
_TOOLS = (
    "mkosi,systemd-sysv,ca-certificates,apt,dpkg-dev,mtools,dosfstools,e2fsprogs,systemd-repart,systemd-boot,"
    "kmod,zstd,debian-archive-keyring,python3,cpio,uidmap"
)
_ARCHIVES = (
    ("http://deb.debian.org/debian", "bookworm bookworm-updates"),
    ("http://deb.debian.org/debian-security", "bookworm-security"),
)
# Everything inside private namespaces, on a root of its own.
_ENTER = """
mount --make-rprivate /
mount --bind "$0" "$0"
mount -t proc proc "$0/proc"; mount --rbind /dev "$0/dev"; mount --rbind /sys "$0/sys"
cd "$0"; mkdir -p mnt/old; pivot_root . mnt/old; umount -l /mnt/old; cd /work/image
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb mkosi "$@"
"""


def unavailable() -> str:
    """Why mkosi cannot be measured here, or nothing."""
    if os.geteuid() != 0:
        return "a root for mkosi needs root"
    if not shutil.which("mmdebstrap"):
        return "mmdebstrap is not installed"
    return ""


def prepare(packages: Sequence[str]) -> None:
    """A Debian 13 root with mkosi, and an image definition with these packages."""
    if not (ROOT / "usr/bin/mkosi").exists():
        ROOT.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(ROOT, ignore_errors=True)
        command(
            ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={_TOOLS}", "trixie", str(ROOT)],
            environment={"DEBIAN_FRONTEND": "noninteractive"},
        )
    shutil.copy("/etc/resolv.conf", ROOT / "etc/resolv.conf")
    image = ROOT / "work/image"
    for folder in ("image", "out", "cache", "packages", "tmp"):
        (ROOT / "work" / folder).mkdir(parents=True, exist_ok=True)
    (image / "mkosi.conf").write_text(
        "[Distribution]\nDistribution=debian\nRelease=bookworm\n"
        "[Output]\nFormat=disk\nOutput=node\nOutputDirectory=/work/out\n"
        "[Build]\nIncremental=yes\nCacheDirectory=/work/cache\nPackageCacheDirectory=/work/packages\n"
        "WorkspaceDirectory=/work/tmp\n"
        "[Content]\nBootable=yes\nBootloader=systemd-boot\nPackages=systemd-boot\n"
        + "".join(f"        {name}\n" for name in packages)
    )
    # The archives that Ingot's base uses, so that both install the same versions. mkosi would also ask for the archive of
    # debug symbols, which not every mirror carries.
    sources = image / "mkosi.sandbox/etc/apt/sources.list.d/mkosi.sources"
    sources.parent.mkdir(parents=True, exist_ok=True)
    sources.write_text("\n".join(_source(*entry) for entry in _ARCHIVES))
    change(0)


def _source(uri: str, suites: str) -> str:
    keys = "/usr/share/keyrings/debian-archive-keyring.gpg"
    return f"Types: deb\nURIs: {uri}\nSuites: {suites}\nComponents: main\nSigned-By: {keys}\n"


def change(number: int) -> None:
    """Changes the last script, as a user would change the last role."""
    script = ROOT / "work/image/mkosi.postinst.chroot"
    script.write_text(f"#!/bin/sh\nset -eu\necho {number} > /etc/bench\n")
    script.chmod(0o755)


def build(*, cold: bool) -> float:
    """Seconds for a build: cold drops its cached trees and keeps its downloads (`-ff`)."""
    return command(
        [
            *("unshare", "--mount", "--pid", "--fork", "--kill-child"),
            *("sh", "-eu", "-c", _ENTER, str(ROOT), "--force", *(["--force"] if cold else []), "build"),
        ]
    )


def disk() -> Path:
    """What was built."""
    return ROOT / "work/out/node.raw"
