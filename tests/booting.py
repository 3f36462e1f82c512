"""Booting a disk with nothing but QEMU and its firmware: no Ingot, no seed, no network to the outside."""

from __future__ import annotations

from pathlib import Path

from ingot.model.units import Seconds
from ingot.system import process, waits
from ingot.system.waits import Flag

FIRMWARE = Path("/usr/share/OVMF")


def boot_to_login(disk: Path, *, firmware: str, folder: Path) -> str:
    """What a qcow2 disk's serial console says up to its login prompt. The disk is written to."""
    console = folder / "console"
    words = [
        "qemu-system-x86_64",
        "-accel",
        "tcg,thread=multi",
        "-cpu",
        "max",
        "-m",
        "1024",
        "-display",
        "none",
    ]
    words += ["-nodefaults", "-no-reboot", "-serial", f"file:{console}"]
    words += ["-netdev", "user,id=net,restrict=on", "-device", "virtio-net-pci,netdev=net"]
    words += ["-drive", f"file={disk},if=virtio,format=qcow2"]
    if firmware == "uefi":
        variables = folder / "variables"
        variables.write_bytes((FIRMWARE / "OVMF_VARS_4M.fd").read_bytes())
        words += ["-drive", f"if=pflash,format=raw,readonly=on,file={FIRMWARE / 'OVMF_CODE_4M.fd'}"]
        words += ["-drive", f"if=pflash,format=raw,file={variables}"]
    machine = process.spawn(words)
    try:
        waits.poll(
            lambda: (console.exists() and "login:" in console.read_text(errors="replace")) or None,
            what=f"a login after a start by {firmware}",
            every=Seconds(0.5),
            deadline=Seconds(600.0),
            cancel=Flag(),
        )
    finally:
        process.end(machine)
    return console.read_text(errors="replace")
