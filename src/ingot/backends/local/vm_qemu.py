"""QEMU for one machine: its command line, its firmware, whether KVM may be used, and its control socket."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from ingot.backends.local import chain
from ingot.errors import BackendError, DeadlineError, TransientError
from ingot.model.units import Bytes, Seconds
from ingot.system import process
from ingot.system.files import write_atomically

Firmware = Literal["bios", "uefi"]
Accelerator = Literal["kvm", "tcg"]

# 16-bit code of a boot sector: `mov al, 0x10; out 0xf4, al; hlt`. QEMU's isa-debug-exit device makes it exit
# with (0x10 << 1) | 1, which is known to no other end.
_PROBE = bytes.fromhex("b010e6f4f4ebfd").ljust(510, b"\0") + b"\x55\xaa"
_PROBE_EXIT = 33
DISK = "disk"
"""QEMU's name for the disk that a machine is started with."""
_PROBE_SECONDS = Seconds(2.0)
_UEFI = (
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
    ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
)


def machine_argv(
    files: Sequence[Path],
    *,
    accelerator: Accelerator,
    firmware: Firmware,
    memory: Bytes,
    cpus: int,
    token: str,
) -> list[str]:
    """QEMU's command line, to be run in the machine's folder. `files`: the chain, the machine's own overlay last.

    The folder holds `seed`, and gets `console` (what the serial line said) and `qmp` (the control socket);
    for UEFI it holds `vars`. SSH is forwarded from a port of 127.0.0.1 that the kernel chooses.
    """
    # A guest gets the host's CPU with KVM. In software the features are QEMU's own, all of them.
    accel = "kvm" if accelerator == "kvm" else "tcg,thread=multi"
    words = ["qemu-system-x86_64", "-name", token, "-nodefaults", "-no-user-config", "-display", "none"]
    words += ["-machine", "q35", "-accel", accel, "-cpu", "host" if accelerator == "kvm" else "max"]
    words += ["-m", str(memory // 2**20), "-smp", str(cpus), "-vga", "std"]
    words += ["-chardev", "file,id=console,path=console", "-serial", "chardev:console"]
    words += ["-qmp", "unix:qmp,server=on,wait=off"]
    words += ["-blockdev", json.dumps(_disk(files))]
    words += ["-device", f"virtio-blk-pci,drive={DISK},bootindex=1,serial=ingot"]
    seed = {"driver": "raw", "node-name": "seed", "read-only": True,
            "file": {"driver": "file", "filename": "seed", "read-only": True}}  # fmt: skip
    words += ["-blockdev", json.dumps(seed), "-device", "virtio-blk-pci,drive=seed"]
    words += ["-netdev", "user,id=net,hostfwd=tcp:127.0.0.1:0-:22", "-device", "virtio-net-pci,netdev=net"]
    # Without a source of entropy, making host keys on a first boot waits for one.
    words += ["-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng"]
    if firmware == "uefi":
        code, _ = uefi_files()
        words += ["-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={code}"]
        words += ["-drive", "if=pflash,unit=1,format=raw,file=vars"]
    return words


def _disk(files: Sequence[Path]) -> dict[str, Any]:
    below = json.loads(chain.nested(files[:-1]).removeprefix("json:")) if len(files) > 1 else None
    return {**_overlay(files[-1], node=DISK), "backing": below}


def _overlay(file: Path, *, node: str) -> dict[str, Any]:
    # What such a machine writes need not reach the disk before a layer is made of it, if ever.
    cache = {"direct": False, "no-flush": True}
    return {
        "driver": "qcow2",
        "node-name": node,
        "discard": "unmap",
        "detect-zeroes": "unmap",
        "cache": cache,
        "file": {"driver": "file", "filename": str(file), "discard": "unmap", "cache": cache},
        "backing": None,
    }


def go_on_in(folder: Path, file: Path, *, node: str, instead_of: str) -> None:
    """Has a running machine write to a new overlay, by that node's name; the file before is complete then."""
    control(folder, "blockdev-add", **_overlay(file.resolve(), node=node))
    control(folder, "blockdev-snapshot", node=instead_of, overlay=node)


def uefi_files() -> tuple[Path, Path]:
    """OVMF's code and the variables that each machine gets a copy of. Raises BackendError where it is missing."""
    for code, variables in _UEFI:
        if Path(code).exists() and Path(variables).exists():
            return Path(code), Path(variables)
    raise BackendError(
        "there is no UEFI firmware for virtual machines", hint="install the package `ovmf` (`edk2-ovmf`)"
    )


def copy_uefi_variables(folder: Path) -> None:
    """The machine's own copy of UEFI's variables, which it writes to."""
    shutil.copyfile(uefi_files()[1], folder / "vars")


def choose_accelerator(state: Path) -> Accelerator:
    """`kvm` where a guest really runs with it, else `tcg`. The answer is kept in `state` until the next boot.

    That /dev/kvm opens says little: on some hosts, virtual ones above all, guests then hang or crawl. So a
    guest of one sector is run, which takes a fifth of a second where KVM works and is given two.
    """
    boot = Path("/proc/sys/kernel/random/boot_id")
    now = boot.read_text().strip() if boot.exists() else ""
    note = state / "accelerator.json"
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(note.read_text())
        if known["boot"] == now and known["accelerator"] in ("kvm", "tcg"):
            return "kvm" if known["accelerator"] == "kvm" else "tcg"
    accelerator: Accelerator = "kvm" if runs_guest("kvm", state) else "tcg"
    write_atomically(note, json.dumps({"boot": now, "accelerator": accelerator}))
    return accelerator


def runs_guest(accelerator: Accelerator, folder: Path, *, timeout: Seconds = _PROBE_SECONDS) -> bool:
    """Whether a guest of one boot sector comes to its end in time."""
    if accelerator == "kvm" and not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    sector = folder / f".probe.{os.getpid()}"
    write_atomically(sector, _PROBE)
    words = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-machine", "pc"]
    words += ["-accel", accelerator, "-m", "16", "-device", "isa-debug-exit,iobase=0xf4,iosize=4"]
    words += ["-drive", f"file={sector},format=raw,if=ide"]
    try:
        return process.run(words, timeout=timeout, check=False).code == _PROBE_EXIT
    except DeadlineError:
        return False
    finally:
        sector.unlink(missing_ok=True)


def control(folder: Path, command: str, **arguments: object) -> Any:
    """What QEMU answers to one command of its machine protocol (QMP). Raises TransientError where it does not."""
    try:
        # A socket's path may have 107 bytes; a machine's folder may lie deeper, so it is named by a descriptor.
        fd = os.open(folder, os.O_PATH | os.O_DIRECTORY)
        try:
            with socket.socket(socket.AF_UNIX) as link:
                link.settimeout(10)
                link.connect(f"/proc/self/fd/{fd}/qmp")
                with link.makefile("rwb") as lines:
                    lines.readline()
                    _ask(lines, "qmp_capabilities", {})
                    return _ask(lines, command, arguments)
        finally:
            os.close(fd)
    except (OSError, ValueError) as error:
        raise TransientError(f"the virtual machine's QEMU does not answer: {error}") from error


def _ask(lines: Any, command: str, arguments: dict[str, object]) -> Any:
    lines.write(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
    lines.flush()
    for line in lines:
        answer = json.loads(line)
        if "return" in answer:
            return answer["return"]
        if "error" in answer:
            raise BackendError(f"QEMU refused {command!r}: {answer['error'].get('desc', '')}")
    raise ValueError("the connection ended")


def bytes_read(folder: Path) -> int:
    """How much the machine has read from its disks. Raises TransientError where QEMU does not answer."""
    return sum(int(one["stats"]["rd_bytes"]) for one in control(folder, "query-blockstats"))


def forwarded_port(folder: Path) -> int:
    """The port of 127.0.0.1 that leads to the machine's port 22. Raises TransientError where QEMU is not there yet."""
    text = str(control(folder, "human-monitor-command", **{"command-line": "info usernet"}))
    for line in text.splitlines():
        words = line.split()
        if words and "HOST_FORWARD" in words[0]:
            return int(words[3])
    raise TransientError("QEMU does not say which port it forwards")
