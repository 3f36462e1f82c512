"""A base made from a Debian archive: everything fetched, then mmdebstrap straight into a fresh disk.

mmdebstrap decides what is installed in which order, and dpkg installs it. What is ours is around them: packages are
fetched and unpacked ahead (dpkg reads tar files instead of waiting for a decompressor), byte code, certificates and
the initramfs are made once at the end instead of again and again, and nothing needs the network any more by then,
so it runs without one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ingot.backends.local import archive, chain, holder
from ingot.backends.local.layout import Partition
from ingot.backends.local.unpack import unpacking
from ingot.disk import bootloader, layout
from ingot.errors import BackendError
from ingot.model.definition import DebootstrapBase
from ingot.model.events import Emit, Progress
from ingot.model.plan import Base
from ingot.model.units import Seconds
from ingot.ports import Cancel
from ingot.system.process import ToolError, environment

PACKAGES = (
    # What a machine needs to start, to be reached and to be configured.
    "systemd-sysv", "udev", "dbus", "libpam-systemd", "systemd-resolved", "libnss-resolve", "libnss-myhostname",
    "openssh-server", "sudo", "cloud-init", "cloud-guest-utils", "python3", "python3-apt", "ca-certificates",
    "iproute2", "iputils-ping", "e2fsprogs", "fdisk", "initramfs-tools", "zstd", "less", "usr-is-merged",
    *bootloader.PACKAGES,
)  # fmt: skip

_ASSEMBLY = Path(__file__).parent / "assembly"
_PATIENCE = Seconds(3600.0)
_STEP = re.compile(r"(?:Unpacking|Setting up) ")
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, kw_only=True, slots=True)
class Assembly:
    """What putting a base together works with: the pinned base, its archive's keys, a work folder, a proxy."""

    base: Base
    source: DebootstrapBase
    keyring: Path
    folder: Path
    proxy: str

    @property
    def stage(self) -> Path:
        """What the new system sees as `/run/ingot` while it is put together."""
        return self.folder / "stage"


def build(work: Assembly, disk: Path, *, emit: Emit, cancel: Cancel) -> None:
    """Writes the disk, a qcow2 file. Raises BackendError with what the archive, the tools or the disk refused."""
    plan = layout.plan_layout(work.base.key, work.base.disk)
    work.stage.mkdir(parents=True)
    fetched = archive.fetch(
        work.source,
        (*PACKAGES, work.source.kernel, *work.source.include),
        arch=work.base.arch,
        keyring=work.keyring,
        folder=work.stage,
        proxy=work.proxy,
        cancel=cancel,
        log=work.folder / "apt.log",
    )
    with unpacking(fetched.packages, work.stage / "tars"):
        chain.create(disk, work.base.disk)
        write_stage(work, plan)
        with holder.hold(work.folder / "hold") as held:
            divide(held, disk, plan, cancel=cancel)
            install(held, work, total=2 * len(fetched.packages), emit=emit, cancel=cancel)
            make_bootable(held, plan)
            held.unmount(trim=True)
            held.unexport()


def divide(held: holder.HeldDisk, disk: Path, plan: layout.Layout, *, cancel: Cancel) -> None:
    """Partition table and root file system, mounted."""
    held.export([disk], writable=True, cancel=cancel)
    raw = str(held.raw)
    held.tool(layout.sfdisk_argv(raw), text=layout.sfdisk_script(plan), cancel=cancel)
    held.tool(layout.mkfs_argv(plan, raw), cancel=cancel)
    held.mount((Partition(plan.root.number, plan.root.start, plan.root.size, plan.root.type), "ext4"))


def install(held: holder.HeldDisk, work: Assembly, *, total: int, emit: Emit, cancel: Cancel) -> None:
    """Runs mmdebstrap on the mounted root; progress counts packages unpacked and set up."""
    log = work.folder / "mmdebstrap.log"
    env = environment(
        {
            # The kernel's own hook is told to leave the initramfs to `finish`.
            "INITRD": "No",
            "PATH": f"{work.stage}/bin:{environment()['PATH']}",
            # What it leaves when it is killed goes with the work folder.
            "TMPDIR": str(work.folder),
        }
    )
    try:
        held.run(
            ["unshare", "--net", "--uts", "--ipc", "--", *mmdebstrap_argv(work, held.root)],
            timeout=_PATIENCE,
            cancel=cancel,
            env=env,
            log=log,
            on_line=_count("packages", total, emit),
        )
    except ToolError as error:
        raise _explain(log.read_text(errors="replace"), error) from error


def mmdebstrap_argv(work: Assembly, root: Path) -> list[str]:
    """The command that fills `root`. Lists and packages are there already, so nothing is downloaded."""
    names = ",".join((*PACKAGES, work.source.kernel, *work.source.include))
    stage = work.stage
    return [
        "mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory", "--verbose",
        f"--architectures={archive.deb_architecture(work.base.arch)}", f"--include={names}",
        # Fresh disks are not empty: they have a lost+found. Downloaded packages belong to the stage.
        "--skip=check/empty,update,download/empty,essential/unlink,cleanup/apt,cleanup/tmp",
        "--dpkgopt=force-unsafe-io",
        f'--aptopt=DPkg::Path "/run/ingot/bin:{_PATH}"',
        f"--setup-hook=sh {stage}/setup \"$1\" {stage}",
        f"--customize-hook=sh {stage}/customize \"$1\" {stage}",
        work.source.suite, str(root), f"{stage}/etc/sources.sources",
    ]  # fmt: skip


def write_stage(work: Assembly, plan: layout.Layout) -> None:
    """The programs that stand before Debian's while packages are installed, and the files that the image gets."""
    programs = work.stage / "bin"
    programs.mkdir()
    for name in ("dpkg-deb", "py3compile", "update-ca-certificates"):
        _copy(name, programs / name, mode=0o755)
    for name in ("setup", "customize", "finish", "hook-functions"):
        _copy(name, work.stage / name)
    if not archive.mirrors(work.source):
        # The image's sources are those that the lists were fetched from, so it may have the lists.
        (work.stage / "keep-lists").touch()
    (work.stage / "bootloader").write_text(bootloader.setup_script(plan.root_fs))
    for path, text in image_files(work.source, plan).items():
        place = work.stage / "files" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    if work.source.keyring:
        place = work.stage / "files" / archive.own_keyring(work.source).lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(work.keyring.read_bytes())
        place.chmod(0o644)


def image_files(source: DebootstrapBase, plan: layout.Layout) -> dict[str, str]:
    """What the image gets beside its packages, by path below its root."""
    return {
        "etc/fstab": layout.fstab(plan),
        "etc/hostname": "localhost\n",
        "etc/hosts": "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n",
        "etc/default/locale": "LANG=C.UTF-8\n",
        "etc/default/grub.d/10_ingot.cfg": bootloader.DEFAULTS,
        "etc/apt/sources.list.d/debian.sources": archive.image_sources(source),
        # Every driver stays in; packing it well would cost each build and each new kernel fifteen seconds for 7 MB.
        "etc/initramfs-tools/conf.d/compression": "COMPRESS=zstd\nCOMPRESSLEVEL=1\n",
        "etc/cloud/cloud.cfg.d/10_ingot.cfg": _CLOUD,
        "etc/systemd/network/80-dhcp.network": _NETWORK,
    }


# Debian's cloud-init would look for ifupdown and netplan only; systemd brings all that is needed.
_CLOUD = """\
# The network is configured through systemd-networkd, which is part of every image.
system_info:
  network:
    renderers: [netplan, networkd, eni]
    activators: [netplan, networkd, eni]
# For images with the package grub-pc, which asks where to install itself; there is none.
grub_dpkg:
  enabled: false
"""
# cloud-init's file for a network card sorts before this one, and the first that matches counts.
_NETWORK = """\
# For machines that nobody tells about their network: DHCP on every wired card.
[Match]
Type=ether
Kind=!*

[Network]
DHCP=yes

[DHCPv4]
UseDomains=true
"""


def make_bootable(held: holder.HeldDisk, plan: layout.Layout) -> None:
    """GRUB's menu for the kernels that are there, and what starts it, by BIOS and by UEFI."""
    root = held.outside(held.root)
    kernels = sorted(
        (path.name.removeprefix("vmlinuz-") for path in (root / "boot").glob("vmlinuz-*")),
        key=_version,
        reverse=True,
    )
    if not kernels:
        raise BackendError(
            "the base has no kernel in /boot", hint="name one with `kernel:`, for example `linux-image-amd64`"
        )
    (root / "boot/grub/grub.cfg").write_text(bootloader.grub_config(plan.root_fs, kernels))
    grub = root / "boot/grub"
    bootloader.write_bios(
        held.outside(held.raw),
        plan,
        boot_img=(grub / "i386-pc/boot.img").read_bytes(),
        core_img=(grub / "i386-pc/core.img").read_bytes(),
    )
    for argv in bootloader.esp_argvs(plan, str(held.raw), f"{held.root}/boot/grub/x86_64-efi/core.efi"):
        held.tool(argv)


def _version(text: str) -> list[tuple[int, str]]:
    return [(int(word or 0), rest) for word, rest in re.findall(r"(\d*)(\D*)", text)]


def _copy(name: str, place: Path, *, mode: int = 0o644) -> None:
    place.write_bytes((_ASSEMBLY / name).read_bytes())
    place.chmod(mode)


def _count(unit: str, total: int, emit: Emit) -> Callable[[str, str], None]:
    done = 0

    def hear(stream: str, line: str) -> None:
        nonlocal done
        if _STEP.match(line):
            done += 1
            # Essential packages are unpacked by name twice; no bar should run over its end.
            emit(Progress(what="installing the base", done=min(done, total), total=total, unit="steps"))

    return hear


def _explain(log: str, error: ToolError) -> BackendError:
    if re.search(r"No space left on device|not enough free space|failed in write on buffer copy", log):
        return BackendError(
            "the disk is full: the base does not fit on it, or the builder's own disk has no room left",
            hint="raise `disk:` of the target, or free some space below the state folder",
        )
    lines = [line for line in log.splitlines() if re.match(r"E: |dpkg: error|.*: error:", line)]
    said = lines[0] if lines else error.message
    return BackendError(
        f"mmdebstrap could not put the base together: {said}", hint=error.hint, log=error.facts.get("log", "")
    )
