"""Distribution packages, straight over SSH: no Ansible, for it would take longer to start than apt to install.

Debian and Ubuntu (apt) are what this was run with. For Fedora, RHEL, Rocky and Alma there is dnf's command line below,
and for SUSE zypper's; those two have not been run.
"""

from __future__ import annotations

import difflib
import re
import shlex
from dataclasses import dataclass

from ingot.errors import ProvisionError
from ingot.model.events import Warned
from ingot.model.step import PackagesStep
from ingot.model.units import Seconds
from ingot.ports import Cancel, Machine
from ingot.provision.log import StepLog
from ingot.system import process, ssh

_LOCK_SECONDS = 300
FRESH_MINUTES = 24 * 60
"""How old apt's lists may be to be used as they are."""
_LISTS_TIMEOUT = Seconds(600.0)

# $1: the epoch of the lock. The lists are fetched anew when there are none, when they are a day old, when a source or
# a key was changed since, or when another epoch fetched them. They are compared by the time of the *inode* (-cnewer,
# -cmin), for apt gives lists the server's time and a files step keeps the time of its source. The mark lies among the
# lists, so it goes with them when the image is sealed.
_APT_UPDATE = f"""
mark=/var/lib/apt/lists/ingot-epoch
stale() {{
  test -f "$mark" && test "$(cat "$mark")" = "$1" || return 0
  test -n "$(find /var/lib/apt/lists -maxdepth 1 -name '*_Packages*')" || return 0
  test -z "$(find "$mark" -mmin +{FRESH_MINUTES})" || return 0
  test -n "$(find /etc/apt/sources.list /etc/apt/sources.list.d /etc/apt/keyrings /usr/share/keyrings \\
    /etc/apt/auth.conf.d -cnewer "$mark" 2>/dev/null)"
}}
update() {{
  # Descriptions in other languages are a third of what would be fetched, and nobody reads them; compressed lists
  # take 19 MB of the layer rather than 48, and cost apt no time.
  apt-get -q -o DPkg::Lock::Timeout={_LOCK_SECONDS} -o APT::Update::Error-Mode=any -o Acquire::Languages=none \\
    -o Acquire::GzipIndexes=true \\
    update || exit 92
  printf %s "$1" > "$mark"
}}
"""

_APT = f"""
export DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true NEEDRESTART_MODE=l UCF_FORCE_CONFFOLD=1
exec </dev/null
epoch=$1; recommends=$2; shift 2
{_APT_UPDATE}
apt() {{
  apt-get -q -y -o DPkg::Lock::Timeout={_LOCK_SECONDS} -o Dpkg::Use-Pty=0 -o APT::Install-Recommends="$recommends" \\
    -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold --allow-downgrades "$@"
}}
remove=; install=
set -f
for word; do
  case $word in
    -*) dpkg-query -W -f '${{db:Status-Abbrev}}' "${{word#-}}" 2>/dev/null | grep -q '^.[^n]' \\
          && remove="$remove ${{word#-}}";;
    *) install="$install $word";;
  esac
done
updated=
if test -n "$install"; then
  if stale "$epoch"; then update "$epoch"; updated=1; fi
  if ! apt install $install; then
    # What the lists name may be gone from the mirror by now.
    test -z "$updated" || exit 93
    update "$epoch"; apt install $install || exit 93
  fi
fi
test -z "$remove" || apt purge $remove || exit 94
"""

_DNF = """
exec </dev/null
epoch=$1; recommends=$2; shift 2
remove=; install=
set -f; for word; do case $word in -*) remove="$remove ${word#-}";; *) install="$install $word";; esac; done
test -z "$install" || dnf -y --setopt=install_weak_deps="$recommends" install $install || exit 93
test -z "$remove" || dnf -y remove $remove || exit 94
"""

_ZYPPER = """
exec </dev/null
epoch=$1; recommends=$2; shift 2
remove=; install=
set -f; for word; do case $word in -*) remove="$remove ${word#-}";; *) install="$install $word";; esac; done
weak=--no-recommends; test "$recommends" = false || weak=--recommends
test -z "$install" || zypper -n install $weak $install || exit 93
test -z "$remove" || zypper -n remove $remove || exit 94
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Manager:
    """A package manager: its program, the script that uses it, how it writes a version, how to list names."""

    program: str
    script: str
    version: str
    names: str


MANAGERS = (
    Manager(program="apt-get", script=_APT, version="=", names="apt-cache pkgnames"),
    Manager(program="dnf", script=_DNF, version="-", names="dnf -q repoquery --qf '%{name}\\n'"),
    Manager(program="zypper", script=_ZYPPER, version="=", names="zypper -q search -s"),
)
_ABSENT = 90


def apply(step: PackagesStep, machine: Machine, *, log: StepLog, cancel: Cancel) -> None:
    """Installs and removes. Raises ProvisionError with a sentence that names the package or the mirror at fault."""
    for manager in MANAGERS:
        done = process.run(
            ssh.argv(machine.ssh, "sh", "-c", script(manager), "ingot", *arguments(step, manager)),
            timeout=step.timeout,
            cancel=cancel,
            on_line=log.line,
            check=False,
        )
        if done.code == 0:
            return
        if done.code != _ABSENT:
            lines = tuple(log.mask(line) for line in done.stdout.splitlines()) + tuple(log.tail)
            raise explain(step, machine, manager=manager, code=done.code, lines=lines, log=log)
    raise ProvisionError(
        "the machine has no package manager that Ingot knows",
        hint=f"it looked for {', '.join(manager.program for manager in MANAGERS)}; use a script step",
    )


def fetch_lists(machine: Machine, *, log: StepLog, cancel: Cancel) -> None:
    """Has apt fetch its lists. A failure is told as a warning: who called may do without them."""
    done = process.run(
        ssh.argv(machine.ssh, "sh", "-c", f"exec </dev/null\n{_APT_UPDATE}\nupdate ''"),
        timeout=_LISTS_TIMEOUT,
        cancel=cancel,
        on_line=log.line,
        check=False,
    )
    if done.code:
        host = _mirror("\n".join(done.tail))
        said = f"the mirror {host} cannot be reached" if host else " ".join(done.tail[-1:])
        log.emit(
            Warned(
                subject=log.subject,
                message=f"apt's lists could not be fetched: {said or 'no answer'}",
                hint="a role that installs packages will not find them; check the network and the base's mirror",
            )
        )


def script(manager: Manager) -> str:
    """What runs on the machine. Exit codes: 90 no such manager, 92 lists, 93 install, 94 remove."""
    return f"command -v {manager.program} >/dev/null || exit {_ABSENT}\n{manager.script}"


def arguments(step: PackagesStep, manager: Manager) -> list[str]:
    """The script's arguments: epoch, recommends, then each package, those to remove with a `-` before them."""
    install = [manager.version.join(name.split("=", 1)) for name in step.install]
    return [step.epoch, str(step.recommends).lower(), *install, *(f"-{name}" for name in step.remove)]


_UNKNOWN = re.compile(
    r"Unable to locate package (\S+)"
    r"|Package '?(\S+?)'? has no installation candidate"
    r"|Couldn't find any package by (?:regex|glob) '([^']+)'"
    r"|Unable to find a match: (\S+)"
    r"|No match for argument: (\S+)"
    r"|'([^']+)' not found in package names"
)
_NO_VERSION = re.compile(r"Version '([^']+)' for '([^']+)' was not found")
_UNREACHED = re.compile(
    r"Temporary failure resolving '([^']+)'|Could not (?:connect to|resolve host:?) '?([^\s:']+)"
    r"|Unable to connect to ([^\s:]+)|Failed to fetch https?://([^/\s]+)|Curl error .* for https?://([^/\s]+)"
)
_FULL = re.compile(r"No space left on device|not have enough free space|At least .* more space needed")
_LOCKED = re.compile(r"Could not get lock (\S+)")


def explain(
    step: PackagesStep,
    machine: Machine,
    *,
    manager: Manager,
    code: int,
    lines: tuple[str, ...],
    log: StepLog,
) -> ProvisionError:
    """The error that fits what the package manager said."""
    text = "\n".join(lines)
    hint = f"its whole output is in {log.path}"
    facts = {"file": step.place.file, "line": step.place.line, "code": code}
    if found := _NO_VERSION.search(text):
        version, name = found.groups()
        return ProvisionError(
            f"package {name} has no version {version} in the archive{_versions(machine, manager, name=name)}",
            hint="name a version that the archive has, or none",
            **facts,
        )
    if found := _UNKNOWN.search(text):
        name = next(group for group in found.groups() if group)
        return ProvisionError(
            f"package {name} is not in the archive{_similar(machine, manager, name=name)}",
            hint="check its spelling, and that its repository is among the machine's sources",
            **facts,
        )
    if _FULL.search(text):
        return ProvisionError(
            "the machine's disk is full", hint="give the target a larger `disk`, then build again", **facts
        )
    if host := _mirror(text):
        return ProvisionError(
            f"the package mirror {host} cannot be reached from the machine",
            hint="check the network, the proxy and the mirror in the base's definition, then build again",
            **facts,
        )
    if found := _LOCKED.search(text):
        return ProvisionError(
            f"another package manager on the machine has held {found[1]} for {_LOCK_SECONDS} seconds",
            hint="an earlier step may have left one running",
            **facts,
        )
    said = next((line for line in lines if line.startswith("dpkg: error")), "") or next(
        (line for line in reversed(lines) if line.startswith(("E:", "Error"))), f"exit code {code}"
    )
    what = {92: "fetch its lists", 93: "install the packages", 94: "remove the packages"}.get(code, "be run")
    return ProvisionError(f"{manager.program} could not {what}: {said}", hint=hint, **facts)


def _mirror(text: str) -> str:
    """The host that could not be reached, "" if that was not the trouble."""
    found = _UNREACHED.search(text)
    return next((group for group in found.groups() if group), "") if found else ""


def _similar(machine: Machine, manager: Manager, *, name: str) -> str:
    names = _ask(machine, manager.names).split()
    close = difflib.get_close_matches(name.split("=")[0], names, n=3, cutoff=0.75)
    return f" (did you mean {' or '.join(close)}?)" if close else ""


def _versions(machine: Machine, manager: Manager, *, name: str) -> str:
    if manager.program != "apt-get":
        return ""
    rows = [line.split("|") for line in _ask(machine, f"apt-cache madison {shlex.quote(name)}").splitlines()]
    there = list(dict.fromkeys(row[1].strip() for row in rows if len(row) == 3))
    return f"; it has {', '.join(there[:5])}" if there else ""


def _ask(machine: Machine, command: str) -> str:
    return ssh.run(machine.ssh, ["sh", "-c", command], timeout=Seconds(60.0), check=False).stdout
