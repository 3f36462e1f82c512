"""Sealing: the last layer of every image. A script does it on the machine; `verify` reads what it left.

The script (`seal.sh`) needs nothing on the machine but a POSIX shell, coreutils, findutils, grep and sed, so it
serves Debian's and Red Hat's families alike. What it overwrites and why is told there.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path

from ingot.errors import DeadlineError, ProvisionError
from ingot.model.events import Emit, Output
from ingot.model.step import SealStep
from ingot.ports import Cancel, Finding, Machine
from ingot.system import ssh
from ingot.system.process import Completed


def apply(
    step: SealStep,
    machine: Machine,
    *,
    subject: str,
    emit: Emit,
    cancel: Cancel,
    log: Path | None = None,
) -> None:
    """Seals the machine's disk. Raises ProvisionError with the script's last words where it cannot."""
    done = _run(step, machine, subject=subject, emit=emit, cancel=cancel, log=log)
    if done.code:
        said = next((line for line in reversed(done.tail) if line.strip()), f"exit code {done.code}")
        raise ProvisionError(
            f"{subject}: sealing the image failed: {said.strip()}",
            hint="the log has all that was said; `ingot shell` on the layer below shows the disk as it is",
            step="seal",
            log=str(log or ""),
            tail=done.tail,
        )


def _run(
    step: SealStep, machine: Machine, *, subject: str, emit: Emit, cancel: Cancel, log: Path | None
) -> Completed:
    def hear(stream: str, text: str) -> None:
        emit(Output(subject=subject, text=text, stream="stderr" if stream == "stderr" else "stdout"))

    try:
        return ssh.run(
            machine.ssh,
            ["sh", "-s"],
            timeout=step.timeout,
            cancel=cancel,
            input=script(),
            log=log,
            on_line=hear,
            check=False,
        )
    except DeadlineError as error:
        raise ProvisionError(
            f"{subject}: sealing the image did not end within its time limit",
            hint="raise the step's `timeout`; making an initramfs anew is what takes longest",
            step="seal",
            log=str(log or ""),
        ) from error


def script() -> bytes:
    """The text that seals, for `sh -s`."""
    return resources.files("ingot.provision").joinpath("seal.sh").read_bytes()


def verify(root: Path) -> tuple[Finding, ...]:
    """What of a sealed image is missing on the disk that is mounted at `root`, in an order that people can follow.

    Only reads, and follows no link out of `root`.
    """
    return tuple(finding for look in _LOOKS for finding in look(root))


def _machine_id(root: Path) -> Iterator[Finding]:
    file = root / "etc/machine-id"
    if _text(file).strip():
        yield Finding(
            what="a machine id, which all machines of the image would share", where="/etc/machine-id"
        )
    elif not file.exists() and _has_systemd(root):
        yield Finding(
            what="no empty file: systemd would take each boot for the first", where="/etc/machine-id"
        )
    copy = root / "var/lib/dbus/machine-id"
    if not copy.is_symlink() and copy.exists():
        yield Finding(what="a machine id of its own", where="/var/lib/dbus/machine-id")


_KEY_MAKERS = tuple(
    f"{folder}/systemd/system/{unit}"
    for folder in ("etc", "usr/lib", "lib")
    for unit in ("multi-user.target.wants/ingot-ssh-keys.service", "sshd-keygen@.service")
)


def _host_keys(root: Path) -> Iterator[Finding]:
    for key in sorted((root / "etc/ssh").glob("ssh_host_*")):
        yield Finding(
            what="an SSH host key, which all machines of the image would share", where=_at(root, key)
        )
    if (root / "usr/sbin/sshd").exists() and not any(_exists(root / maker) for maker in _KEY_MAKERS):
        yield Finding(what="nothing makes SSH host keys on first boot", where="/etc/systemd/system")


def _homes(root: Path) -> Iterator[Finding]:
    for home in homes(root):
        for file in sorted((home / ".ssh").glob("authorized_keys*")):
            yield Finding(what="keys that may log in", where=_at(root, file))
        for pattern in _OF_HOMES:
            for file in sorted(home.glob(pattern)):
                yield Finding(what="what somebody did while building", where=_at(root, file))


_HOMES = ("root", "etc/skel", "home/*", "var/lib/*")
_OF_HOMES = (".*_history", ".lesshst", ".viminfo", ".wget-hsts")


def homes(root: Path) -> tuple[Path, ...]:
    """Every home folder that is there: those of /etc/passwd, /root, /home/*, /var/lib/* and the skeleton's."""
    named = {root / name for name in _named_homes(_text(root / "etc/passwd"))}
    usual = {root, *(path for pattern in _HOMES for path in root.glob(pattern))}
    return tuple(sorted(path for path in named | usual if path.is_dir() and not path.is_symlink()))


def _named_homes(passwd: str) -> set[str]:
    lines = [line.split(":") for line in passwd.splitlines()]
    return {fields[5].strip("/") for fields in lines if len(fields) > 5}


_GONE = {
    "var/lib/systemd/random-seed": "a random seed, which all machines of the image would share",
    "var/lib/systemd/credential.secret": "a secret of one machine",
    "var/lib/urandom/random-seed": "a random seed, which all machines of the image would share",
    "var/lib/cloud/instance": "cloud-init's state of the machine that built the image",
    "var/lib/cloud/instances": "cloud-init's state of the machine that built the image",
    "var/lib/cloud/data": "cloud-init's state of the machine that built the image",
    "etc/udev/rules.d/70-persistent-net.rules": "names for the network cards of the machine that built the image",
    "etc/ssl/private/ssl-cert-snakeoil.key": "a TLS key, which all machines of the image would share",
}
_EMPTY = {
    "tmp": "a temporary file",
    "var/tmp": "a temporary file",
    "var/log/journal": "the journal of the machine that built the image",
    "var/lib/dhcp": "an address lease",
    "var/lib/dhclient": "an address lease",
    "var/crash": "a crash dump",
    "var/lib/systemd/coredump": "a crash dump",
}
_WITHOUT_FILES = {
    "var/log": "a log",
    "var/lib/apt/lists": "a package list",
    "var/cache/apt": "a package that was downloaded",
}


def _left_over(root: Path) -> Iterator[Finding]:
    for name, what in _GONE.items():
        if _exists(root / name):
            yield Finding(what=what, where=f"/{name}")
    for name, what in _EMPTY.items():
        folder = root / name
        if folder.is_dir() and not folder.is_symlink():
            for path in sorted(folder.iterdir()):
                yield Finding(what=what, where=_at(root, path))
    for name, what in _WITHOUT_FILES.items():
        for path in sorted((root / name).rglob("*")):
            if path.is_file() and not path.is_symlink() and path.stat().st_size:
                yield Finding(what=what, where=_at(root, path))


def _network(root: Path) -> Iterator[Finding]:
    resolv = root / "etc/resolv.conf"
    if not resolv.is_symlink() and _text(resolv).strip():
        yield Finding(what="name servers of the place where the image was built", where="/etc/resolv.conf")
    if _text(root / "etc/hostname").strip() not in ("", "localhost"):
        yield Finding(what="a host name, which all machines of the image would share", where="/etc/hostname")


_BOOT_MENUS = ("boot/grub/grub.cfg", "boot/grub2/grub.cfg")


def _kernel(root: Path) -> Iterator[Finding]:
    version = newest_kernel(root)
    if not version:
        return
    if not any(
        _exists(root / f"boot/{name}") for name in (f"initrd.img-{version}", f"initramfs-{version}.img")
    ):
        yield Finding(what=f"no initramfs for the kernel {version}", where="/boot")
    for config in _BOOT_MENUS:
        text = _text(root / config)
        if not text:
            continue
        if f"vmlinuz-{version}" not in text and not list(
            (root / "boot/loader/entries").glob(f"*{version}.conf")
        ):
            yield Finding(what=f"no entry that boots the kernel {version}", where=f"/{config}")
        if re.search(r"root=/dev/(loop|nbd|mapper)", text):
            yield Finding(what="a root device that only the building machine had", where=f"/{config}")


def newest_kernel(root: Path) -> str:
    """The version of the newest kernel that has its modules and its image; "" without any."""
    versions = [
        folder.name
        for place in ("lib/modules", "usr/lib/modules")
        for folder in (root / place).glob("*")
        if _exists(root / f"boot/vmlinuz-{folder.name}")
    ]
    return max(versions, key=_version_key, default="")


def _version_key(version: str) -> tuple[tuple[int, int, str], ...]:
    parts = re.findall(r"\d+|[^\d]+", version)
    return tuple((1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts)


def _has_systemd(root: Path) -> bool:
    return (root / "usr/lib/systemd/system").is_dir() or (root / "lib/systemd/system").is_dir()


def _at(root: Path, path: Path) -> str:
    return f"/{path.relative_to(root)}"


def _exists(path: Path) -> bool:
    """Whether there is such a name, be it a link to nothing (or to a place outside of the root)."""
    return path.is_symlink() or path.exists()


def _text(path: Path) -> str:
    if path.is_symlink() or not path.is_file():
        return ""
    return path.read_text(errors="replace")


_LOOKS: tuple[Callable[[Path], Iterator[Finding]], ...] = (
    _machine_id,
    _host_keys,
    _homes,
    _left_over,
    _network,
    _kernel,
)


READS = ("etc/machine-id", "etc/passwd", "etc/resolv.conf", "etc/hostname", *_BOOT_MENUS)
"""The files that `verify` reads. Of everything else it looks at what is there, and whether it is empty."""


def looked_at(passwd: str) -> tuple[str, ...]:
    """All that `verify` looks at, as patterns of pathlib, for a root whose /etc/passwd says this."""
    homes = sorted({"", *_HOMES, *map(glob.escape, _named_homes(passwd))})
    of_homes = (
        f"{home}/{name}".lstrip("/") for home in homes for name in (".ssh/authorized_keys*", *_OF_HOMES)
    )
    return (
        *READS,
        *(home for home in homes if home),
        *of_homes,
        *("var/lib/dbus/machine-id", "etc/ssh/ssh_host_*", "usr/sbin/sshd", *_KEY_MAKERS),
        *(*_GONE, *_EMPTY, *(f"{name}/*" for name in _EMPTY), *(f"{name}/**/*" for name in _WITHOUT_FILES)),
        *("boot/vmlinuz-*", "boot/initrd.img-*", "boot/initramfs-*", "boot/loader/entries/*.conf"),
        *("lib/modules/*", "usr/lib/modules/*", "lib/systemd/system", "usr/lib/systemd/system"),
    )
