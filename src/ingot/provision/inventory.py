"""What a machine contains, read in one SSH call."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

from ingot.errors import ProvisionError
from ingot.model.image import Package
from ingot.model.units import Seconds
from ingot.ports import Machine
from ingot.system import ssh

# dpkg's `i` as the second letter of the status is "installed"; virtual rpm packages (keys) have no architecture.
_SCRIPT = r"""
cat /etc/os-release 2>/dev/null || cat /usr/lib/os-release
echo "== kernel"
for folder in /lib/modules/*; do
  test -e "/boot/vmlinuz-${folder##*/}" -o -e "$folder/vmlinuz" && echo "${folder##*/}"
done | sort -V | tail -n 1
echo "== packages"
if command -v dpkg-query >/dev/null; then
  dpkg-query -W -f '${db:Status-Abbrev}\t${Package}\t${Version}\t${Architecture}\n' | grep '^.i' | cut -f 2-
elif command -v rpm >/dev/null; then
  rpm -qa --qf '%{NAME}\t%{EVR}\t%{ARCH}\n'
fi
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Contents:
    """What one look at a machine found. `kernel` is the newest one installed, "" where there is none."""

    packages: tuple[Package, ...] = ()
    os_release: Mapping[str, str] = field(default_factory=dict)
    kernel: str = ""


def read_contents(machine: Machine) -> Contents:
    """Packages with versions, os-release and the newest kernel. Raises ProvisionError when it can't be read."""
    done = ssh.run(machine.ssh, ["sh", "-c", _SCRIPT], timeout=Seconds(120.0), check=False)
    if "== packages\n" not in done.stdout:
        raise ProvisionError(
            f"cannot read what is installed on {machine.ref}: {' '.join(done.tail[-1:]) or 'no answer'}",
            hint="the machine must answer over SSH and have /etc/os-release",
        )
    return parse_contents(done.stdout)


def parse_contents(text: str) -> Contents:
    """What the script printed, as values. Packages are ordered by name."""
    release, _, rest = text.partition("== kernel\n")
    kernel, _, listed = rest.partition("== packages\n")
    rows = [line.split("\t") for line in listed.splitlines()]
    packages = [
        Package(name=row[0], version=row[1], arch=row[2] if row[2] != "(none)" else "")
        for row in rows
        if len(row) == 3
    ]
    return Contents(
        packages=tuple(sorted(packages, key=lambda package: (package.name, package.arch))),
        os_release=dict(_setting(line) for line in release.splitlines() if "=" in line and line[0] != "#"),
        kernel=kernel.strip(),
    )


def _setting(line: str) -> tuple[str, str]:
    name, _, value = line.partition("=")
    try:
        return name.strip(), "".join(shlex.split(value))
    except ValueError:  # an unfinished quote
        return name.strip(), value.strip()


class MachineInventory:
    """`ports.Inventory`. `packages` always looks; the other two reuse its look at the same machine."""

    def __init__(self) -> None:
        self._last: tuple[Machine, Contents] | None = None

    def packages(self, machine: Machine) -> tuple[Package, ...]:
        self._last = (machine, read_contents(machine))
        return self._last[1].packages

    def os_release(self, machine: Machine) -> Mapping[str, str]:
        return self._contents(machine).os_release

    def kernel(self, machine: Machine) -> str:
        return self._contents(machine).kernel

    def _contents(self, machine: Machine) -> Contents:
        if self._last is None or self._last[0] is not machine:
            self._last = (machine, read_contents(machine))
        return self._last[1]
