"""Evidence to cause. Pure, for any backend: what a backend could not see is as it is by default.

A boot that goes on is slow and nothing else, unless something on the console, on the disk or at the port says in so many
words what is wrong. Causes are looked for in the order in which they bring one another about: a full disk keeps
cloud-init from making host keys, without which sshd does not start.
"""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from dataclasses import dataclass

from ingot.forensics import console
from ingot.model.forensics import Cause, Evidence, Stage
from ingot.model.units import format_bytes, format_seconds

_NO_ROOM = re.compile(r"No space left on device|Errno 28\b|ENOSPC")
_ROOTS_SHARE = 0.06
"""Of a file system is kept for root by default, and a little more."""
_POWERED_OFF = re.compile(
    r"reboot: (?:Power down|System halted)|Powering off\.|Reached target [^\n]*(?:poweroff|Power)"
)
_NO_NETWORK = re.compile(
    r"Failed to start [^\n]*(?:wait-online|Wait for Network to be|systemd-networkd\.service|networking\.service|"
    r"NetworkManager\.service|Raise network)|[Tt]imeout occurred while waiting for network connectivity"
)
_NETWORKS = ("systemd-networkd.service", "NetworkManager.service", "networking.service")
_SSH = ("ssh.service", "sshd.service", "ssh.socket", "sshd.socket")
_OFF = ("masked", "masked-runtime", "disabled", "not-found")
_FAILED_SSH = re.compile(
    r"Failed to start [^\n]*(?:sshd?\.service|Secure Shell|OpenSSH)|sshd?\.service: (?:Failed with|Start request repeated)"
)
_CLOUD_INIT = (
    re.compile(r"(Failed loading yaml blob[^\n]*)"),
    re.compile(
        r"(?:Failed (?:at merging in cloud config|to parse|to shellify)|Invalid (?:cloud-config|format))[^\n]*"
    ),
    re.compile(r"((?i:running) module \S+ \([^)\n]*\) failed)"),
    re.compile(r"(Failed (?:to run|running) (?:module |bootcmd|/\S+)[^\n]*)"),
    re.compile(r"\[CRITICAL\]: ([^\n]*)"),
    re.compile(r"(Failed to start [^\n]*cloud-(?:init|config|final)[^\n]*)"),
    re.compile(
        r"((?:No instance datasource found|Used fallback datasource|Did not find any data source)[^\n]*)"
    ),
)
_WHY_REFUSED = (
    re.compile(r"sshd\[\d+\]: (User \S+ from \S+ not allowed because [^\n]*)"),
    re.compile(r"sshd\[\d+\]: (ROOT LOGIN REFUSED FROM[^\n]*)"),
    re.compile(r"sshd\[\d+\]: (Invalid user \S+)"),
    re.compile(r"sshd\[\d+\]: (Authentication refused: [^\n]*)"),
    re.compile(r"sshd\[\d+\]: [^\n]*(Account \S+ has expired|account is locked)"),
)
_OTHER_USER = re.compile(r"Please login as the user \"([^\"]+)\"")
_HOST_KEY = re.compile(
    r"HOST IDENTIFICATION HAS CHANGED|Host key verification failed|No \S+ host key is known"
)
_MOST_BOOTS = 3
_PLACES: dict[Stage, str] = {
    "nothing": "its console has said nothing at all",
    "firmware": "it had come to its firmware",
    "boot loader": "it had come to its boot loader",
    "kernel": "its kernel had started",
    "initramfs": "it had come to its initramfs",
    "root mounted": "it had mounted its root file system",
    "systemd": "systemd was starting its services",
    "network": "its network was up",
    "sshd": "its SSH server had started",
    "cloud-init": "cloud-init was done",
    "login": "it had come to its login prompt",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Case:
    """The evidence with what is read out of it once."""

    seen: Evidence
    boot: str
    stage: Stage

    @property
    def settled(self) -> bool:
        """Whether the boot has come to its end, one way or the other."""
        return self.seen.idle >= self.seen.patience

    @property
    def over(self) -> bool:
        """Whether what failed until now may be taken for failed: a boot that goes on may try it again."""
        return self.settled or self.stage in ("cloud-init", "login")

    @property
    def up(self) -> bool:
        """Whether all was started that a boot starts."""
        return self.settled and self.stage in ("cloud-init", "login")

    @property
    def words(self) -> str:
        """All that the machine said of this boot."""
        return "\n".join((self.boot, self.seen.journal, *self.seen.logs.values()))


def classify(evidence: Evidence) -> Cause:
    """The one cause. In `next`, `{image}` and `{bundle}` stand for the image's name and the bundle's folder."""
    boot = console.last_boot(evidence.console)
    case = _Case(seen=evidence, boot=boot, stage=console.stage_of(evidence.console))
    return next(cause for rule in _RULES if (cause := rule(case)))


def _paused(case: _Case) -> Cause | None:
    if case.seen.state != "paused":
        return None
    if case.seen.status == "io-error":
        return Cause(
            name="builder-disk-full",
            sentence="it was paused because what it wrote could not be kept: this computer's own disk is full",
            next="`df -h` tells which disk; `ingot gc` removes old layers, and INGOT_STATE moves the state folder",
        )
    return Cause(
        name="paused",
        sentence=f"it stands still: its hypervisor has paused it ({case.seen.status})",
        next="`less {bundle}/console.log` has what it said until then",
    )


def _ended(case: _Case) -> Cause | None:
    seen = case.seen
    if seen.state != "ended":
        return None
    if seen.exit_code is not None and seen.exit_code < 0:
        name = _signal_name(-seen.exit_code)
        return Cause(
            name="killed",
            sentence=f"the process that ran it was ended by {name} from outside",
            next="`journalctl --dmesg --grep 'Killed process'` tells whether this computer's memory ran out",
        )
    if _POWERED_OFF.search(seen.console[-20000:]) or (seen.exit_code == 0 and seen.kind != "booted"):
        return Cause(
            name="powered-off",
            sentence="it powered itself off",
            next="look in the steps for `poweroff`, `shutdown` or `halt`; a restart is a step of its own, `reboot`",
        )
    how = f"with code {seen.exit_code}" if seen.exit_code else "and nobody saw how"
    said = f": {seen.status}" if seen.status else ""
    return Cause(
        name="ended",
        sentence=f"what ran it ended {how}{said}",
        next="`tail -n 40 {bundle}/console.log` has its last words",
    )


def _fatal(case: _Case) -> Cause | None:
    found = console.sign_of(case.seen.console, fatal_only=True)
    if not found:
        return None
    sign, means = found
    hints = {
        "kernel-panic": "`grep -n -B 20 'Kernel panic' {bundle}/console.log` shows what came before it",
        "no-root": "`ingot shell {image} -- cat /etc/fstab /boot/grub/grub.cfg` shows which root it looks for",
        "emergency-mode": "`grep -E 'FAILED|Failed|DEPEND' {bundle}/console.log` shows what failed; "
        "often a mount in /etc/fstab that is not there",
        "boot-loader": "`ingot shell {image} -- ls -l /boot /boot/grub` shows what is there to be started",
    }
    return Cause(name=sign.name, sentence=means, next=hints[sign.name])


def _full_disk(case: _Case) -> Cause | None:
    disk = case.seen.disk
    complains = _NO_ROOM.search(case.words)
    if disk and not (disk.full or (complains and disk.free <= disk.size * _ROOTS_SHARE)):
        return None
    if not disk and not (complains and case.over):
        return None
    room = f" ({format_bytes(disk.free)} of {format_bytes(disk.size)} are free)" if disk else ""
    if disk and 0 <= disk.files_free < 8:
        room = " (it takes no more files, though it has room for bytes)"
    return Cause(
        name="disk-full",
        sentence=f"its root file system is full{room}, so services could not start",
        next="`ingot shell {image} -- du -xh --max-depth=3 /` shows what fills it; raise `disk:` or remove that in a step",
    )


def _no_server_there(case: _Case) -> Cause | None:
    """Without an enabled SSH server on the disk none will ever answer, however long it is waited for."""
    disk = case.seen.disk
    if not disk or case.seen.port.state == "greeted" or case.seen.kind == "booted" or not case.over:
        return None
    states = {name: disk.units[name] for name in _SSH if name in disk.units}
    if not states or any(state not in _OFF for state in states.values()):
        return None
    if masked := next((name for name, state in states.items() if state.startswith("masked")), ""):
        why, next_ = f"{masked} is masked", f"`systemctl unmask {masked}` in a step"
    elif off := next((name for name, state in states.items() if state == "disabled"), ""):
        why, next_ = f"{off} is disabled", f"`systemctl enable {off}` in a step"
    else:
        why, next_ = "the image has none", "a step `packages: [openssh-server]`"
    return Cause(
        name="no-sshd",
        sentence=f"no SSH server runs on it: {why}",
        next=f"{next_} brings it; `ingot shell {{image}} -- systemctl is-enabled ssh.service` shows how it is now",
    )


def _network(case: _Case) -> Cause | None:
    seen = case.seen
    if seen.port.state not in ("silent", "unknown") or seen.kind == "booted" or not case.over:
        return None
    units = seen.disk.units if seen.disk else {}
    states = {name: units[name] for name in _NETWORKS if name in units}
    off = bool(states) and all(state in _OFF for state in states.values())
    failed = _NO_NETWORK.search(case.words)
    next_ = (
        "`less {bundle}/journal.log` has what its network services said; "
        "`ingot shell {image} -- systemctl is-enabled systemd-networkd` shows whether one starts"
    )
    if off:
        named = ", ".join(f"{name} is {state}" for name, state in states.items() if state != "not-found")
        why = named or "no network service is installed"
    elif failed:
        why = failed[0].strip()
    elif case.up and seen.port.state == "silent":
        why = "it came up, and nothing answers at its address"
        next_ = (
            "`grep -E 'ci-info|network' {bundle}/console.log` shows its addresses; "
            "a firewall on it, or a security group before it, looks the same from outside"
        )
    else:
        return None
    return Cause(name="network-down", sentence=f"its network is down: {why}", next=next_)


def _cloud_init(case: _Case) -> Cause | None:
    if case.seen.port.login == "accepted" or not case.over:
        return None
    said = _cloud_init_error(case)
    if not said:
        return None
    return Cause(
        name="cloud-init",
        sentence=f"cloud-init failed, so the machine was not set up to be logged into: {said}",
        next="`cloud-init schema --config-file USER-DATA` names the mistake in user-data; "
        "`less {bundle}/cloud-init.log` has what it said",
    )


def _cloud_init_error(case: _Case) -> str:
    lines = "\n".join(line for line in case.words.splitlines() if "loud-init" in line or "[WARNING]" in line)
    logs = "\n".join(text for name, text in case.seen.logs.items() if name.startswith("cloud-init"))
    for pattern in _CLOUD_INIT:
        if found := pattern.search(f"{lines}\n{logs}"):
            return found[0].replace('"', "").strip()[:300]
    return _noted_error(case.seen.logs.get("status.json", ""))


def _noted_error(status: str) -> str:
    """The first error in cloud-init's own record of its stages."""
    try:
        stages = json.loads(status)["v1"].values()
    except (ValueError, KeyError, AttributeError):
        return ""
    errors = [
        str(error) for stage in stages if isinstance(stage, dict) for error in stage.get("errors") or ()
    ]
    return errors[0][:300] if errors else ""


def _login(case: _Case) -> Cause | None:
    seen = case.seen
    said = "\n".join(seen.port.said)
    if seen.port.state != "greeted" or seen.port.login == "accepted":
        return None
    if other := _OTHER_USER.search(said):
        return Cause(
            name="wrong-user",
            sentence=f"SSH answers and lets nobody in as {seen.user}: it asks for the user {other[1]}",
            next="`disable_root: false` in its cloud-init configuration lets root in",
        )
    why = next((found[1] for pattern in _WHY_REFUSED if (found := pattern.search(seen.journal))), "")
    if not (why or case.settled):
        return None
    if _HOST_KEY.search(said):
        return Cause(
            name="other-host-key",
            sentence="SSH answers with another host key than the machine was given: cloud-init did not set its keys",
            next="`ingot shell {image} -- ls /etc/cloud/cloud-init.disabled /usr/bin/cloud-init` shows whether it may run",
        )
    if seen.port.login != "refused" and not why:
        return None
    return Cause(
        name="wrong-user",
        sentence=f"SSH answers ({seen.port.greeting}) and refuses the user {seen.user} with its key"
        + (f": {why}" if why else ""),
        next="`ingot shell {image} -- sshd -T -C user=" + seen.user + "` prints what its SSH server allows "
        "(`permitrootlogin`, `allowusers`); `less {bundle}/sshd.log` has what it said",
    )


def _no_server(case: _Case) -> Cause | None:
    if case.seen.port.state not in ("closed", "unknown") or case.seen.kind == "booted":
        return None
    if case.over and _FAILED_SSH.search(case.words):
        last = re.findall(r"sshd\[\d+\]: ([^\n]*)", case.seen.journal)
        why = f"it failed to start{f': {last[-1]}' if last else ''}"
    elif case.up and case.seen.port.state == "closed":
        why = "its port is closed although all else came up"
    else:
        return None
    return Cause(
        name="no-sshd",
        sentence=f"no SSH server runs on it: {why}",
        next="`ingot shell {image} -- sshd -t` tries its configuration; `less {bundle}/sshd.log` has what it said",
    )


def _answers(case: _Case) -> Cause | None:
    if case.seen.port.login != "accepted" or case.seen.kind == "booted":
        return None
    return Cause(
        name="slow",
        sentence=f"it answers now, after {format_seconds(case.seen.seconds)}: it is slow, not broken",
        next=_MORE_TIME,
    )


_MORE_TIME = (
    "raise `check_timeout` where it is checked, or try again while this computer has less to do; "
    "`tail {bundle}/console.log` shows how far it came"
)


def _loop(case: _Case) -> Cause | None:
    boots = console.count_boots(case.seen.console)
    if boots <= _MOST_BOOTS:
        return None
    return Cause(
        name="boot-loop",
        sentence=f"it starts again and again, {boots} times until now, and never comes to a login prompt",
        next="`grep -n -B 12 'Linux version' {bundle}/console.log` shows what it said before each start",
    )


def _unfinished(case: _Case) -> Cause:
    seen = case.seen
    waits = seen.jobs or console.jobs(seen.console)
    last = f"last progress {format_seconds(seen.idle)} ago"
    if not case.settled:
        sentence = (
            f"it is still booting (stage {case.stage}, {last}): it is slow, not broken; raise the timeout"
        )
        if waits:
            sentence += f"; it waits for {', '.join(waits)}"
        return Cause(name="slow", sentence=sentence, next=_MORE_TIME)
    where = _PLACES[case.stage]
    if waits:
        return Cause(
            name="waiting",
            sentence=f"it has not finished starting ({where}, {last}): it waits for {', '.join(waits)}",
            next=f"`grep -F '{waits[0]}' {{bundle}}/journal.log {{bundle}}/console.log` shows what that said",
        )
    if case.stage == "nothing":
        return Cause(
            name="silent",
            sentence="its console stayed silent: no boot loader, or a kernel without `console=ttyS0`",
            next="`ingot shell {image} -- grep -r console= /boot/grub/grub.cfg` shows the kernel's options",
        )
    memory = re.search(r"Out of memory: Killed process \d+ \(([^)]*)\)", case.boot)
    if memory:
        return Cause(
            name="memory",
            sentence=f"its memory ran out: the kernel killed {memory[1]}",
            next="`grep -n 'Out of memory' {bundle}/console.log` shows when; give it more memory",
        )
    return Cause(
        name="stalled",
        sentence=f"it does not go on ({where}, {last}), and nothing that it said tells why",
        next="`tail -n 40 {bundle}/console.log` has its last words; " + _MORE_TIME.partition(";")[0],
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


_RULES: tuple[Callable[[_Case], Cause | None], ...] = (
    _paused,
    _ended,
    _fatal,
    _full_disk,
    _no_server_there,
    _network,
    _cloud_init,
    _login,
    _no_server,
    _answers,
    _loop,
    _unfinished,
)
