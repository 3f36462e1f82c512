"""User-data applied by cloud-init itself: the machine was told of it at its first boot; here it is waited for.

What cloud-init says goes to the log as it comes. When it is done its own state and logs are removed, so that the finished
image runs it again at its own first boot, and what the user-data wrote elsewhere is the image's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ingot.errors import ProvisionError
from ingot.model.events import Warned
from ingot.model.secret import Secret, reveal
from ingot.model.step import CloudInitStep
from ingot.model.units import Seconds
from ingot.ports import Cancel, Machine
from ingot.provision.log import StepLog
from ingot.system import process, ssh

# `tail --pid` reads once more after the process has ended, so that no last line is lost. Where cloud-init never began,
# `status --wait` would wait for ever: not once all that starts at boot has ended.
_WAIT = r"""
command -v cloud-init >/dev/null || exit 127
cloud-init status --wait >/dev/null 2>&1 & waiting=$!
(systemctl is-system-running --wait; sleep 5; kill "$waiting") >/dev/null 2>&1 & watching=$!
tail -q -n +1 -s 0.2 -F --pid="$waiting" /var/log/cloud-init-output.log 2>/dev/null
wait "$waiting"; code=$?
kill "$watching" 2>/dev/null
exit "$code"
"""
_ASK = r"""
cat /run/cloud-init/status.json 2>/dev/null
printf '\0'
cloud-init status --long 2>&1
printf '\0'
grep -s -E '\[(WARNING|ERROR|CRITICAL)\]' /var/log/cloud-init.log | tail -n 20
"""
_CLEAN = r"""
systemctl is-system-running --wait >/dev/null 2>&1
for name in instance instances data sem; do
  if [ -L "/var/lib/cloud/$name" ]; then rm -f "/var/lib/cloud/$name"; continue; fi
  [ ! -d "/var/lib/cloud/$name" ] || find "/var/lib/cloud/$name" -mindepth 1 -delete
done
rm -f /var/log/cloud-init.log /var/log/cloud-init-output.log
"""
_STAGES = ("init-local", "init", "modules-config", "modules-final")
_PROBLEM = re.compile(r"\('(?P<module>[\w-]+)', (?P<error>.*)\)", re.DOTALL)
_OWN_WORDS = re.compile(r"Cloud-init v\. |.* - \S+\[(WARNING|ERROR|CRITICAL|INFO|DEBUG)\]: ")
_LINTED = "Invalid cloud-config provided"
"""Said by a version whose schema is older than the one that the user-data was compared with before."""
_SHORT = Seconds(60.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """One thing that went wrong: cloud-init's stage, its module (`cc_runcmd`; "" where not known), and its words."""

    stage: str
    module: str
    words: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    """What cloud-init says of its run. Without a `datasource` it did not run, and `said` tells why."""

    datasource: str
    faults: tuple[Fault, ...]
    warnings: tuple[str, ...]
    said: str


def user_data(step: CloudInitStep, *, root: Path, secrets: Mapping[str, Secret]) -> Secret:
    """The step's user-data with its secrets filled in. Raises ProvisionError where its file cannot be read."""
    if not step.path:
        return Secret(reveal(step.inline, secrets))
    try:
        return Secret((root / step.path).read_text())
    except (OSError, ValueError) as error:
        raise ProvisionError(
            f"the user-data file {step.path!r} cannot be read: {error}",
            hint=f"its path is relative to the project, {root}",
        ) from error


def apply(step: CloudInitStep, machine: Machine, *, log: StepLog, cancel: Cancel) -> None:
    """Returns when cloud-init has ended well. Raises ProvisionError naming the module that failed and what it said."""
    done = process.run(
        ssh.argv(machine.ssh, "sh", "-c", _WAIT),
        timeout=step.timeout,
        cancel=cancel,
        on_line=log.line,
        check=False,
    )
    if done.code == 127:
        raise ProvisionError(
            "the machine has no cloud-init",
            hint="install the package `cloud-init` in a step before",
            **_place(step),
        )
    if done.code == 255:
        raise ProvisionError(
            "the machine could not be reached, or was lost, while cloud-init ran",
            hint=f"its whole output is in {log.path}",
            **_place(step),
        )
    status = _ask(machine)
    _refuse_untold(step, status)
    if status.faults:
        _fail(step, status.faults, log)
    if done.code == 1:
        words = status.said or "it does not say why"
        raise ProvisionError(f"cloud-init failed: {words}", hint=_hint(log), **_place(step))
    for warning in status.warnings:
        log.emit(Warned(subject=log.subject, message=log.mask(f"cloud-init: {warning}")))
    ssh.run(machine.ssh, ["sh", "-c", _CLEAN], timeout=step.timeout, cancel=cancel)


def _ask(machine: Machine) -> Status:
    done = ssh.run(machine.ssh, ["sh", "-c", _ASK], timeout=_SHORT, check=False)
    text, said, logged, *_ = [*done.stdout.split("\0"), "", ""]
    return read_status(text, said=said, logged=logged)


def read_status(text: str, *, said: str = "", logged: str = "") -> Status:
    """What `status.json` says, with `cloud-init status --long` and the warnings of its log beside it."""
    try:
        about = json.loads(text)["v1"]
    except (ValueError, KeyError, TypeError):
        about = {}
    faults, warnings = [], []
    for stage in _STAGES:
        part = about.get(stage) or {}
        faults += [_fault(stage, str(words)) for words in part.get("errors") or ()]
        for level, listed in (part.get("recoverable_errors") or {}).items():
            warnings += [str(words) for words in listed if level != "DEPRECATED"]
    if "recoverable_errors" not in (about.get("init") or {}):  # before 23.4 only the log has them
        warnings += [line.partition("]: ")[2] for line in logged.splitlines()]
    short = " ".join(said.split())
    return Status(
        datasource=str(about.get("datasource") or ""),
        faults=tuple(faults),
        warnings=tuple(dict.fromkeys(one for one in warnings if one and not one.startswith(_LINTED))),
        said=short[-400:],
    )


def _fault(stage: str, words: str) -> Fault:
    found = _PROBLEM.fullmatch(words.strip())
    if not found:
        return Fault(stage=stage, module="", words=words)
    return Fault(stage=stage, module=f"cc_{found['module'].replace('-', '_')}", words=found["error"])


def _refuse_untold(step: CloudInitStep, status: Status) -> None:
    if "NoCloud" in status.datasource:
        return
    what = f"took its data from {status.datasource}" if status.datasource else f"did not run: {status.said}"
    raise ProvisionError(
        f"cloud-init was not told of the user-data: it {what}",
        hint="`datasource_list` in /etc/cloud/cloud.cfg.d must name NoCloud, and /etc/cloud/cloud-init.disabled must not be there",
        **_place(step),
    )


def _fail(step: CloudInitStep, faults: tuple[Fault, ...], log: StepLog) -> None:
    first = faults[0]
    module = f"the module {first.module}" if first.module else "cloud-init"
    said = next(
        (line.strip() for line in reversed(log.tail) if line.strip() and not _OWN_WORDS.match(line)), ""
    )
    spoken = f"; the last that was said: {said}" if said else ""
    raise ProvisionError(
        log.mask(f"{module} failed in the stage {first.stage}: {first.words}{spoken}"),
        hint=_hint(log),
        task=first.module or first.stage,
        **_place(step),
    )


def _hint(log: StepLog) -> str:
    return f"its whole output is in {log.path}"


def _place(step: CloudInitStep) -> dict[str, object]:
    return {"file": step.path or step.place.file, "line": 0 if step.path else step.place.line}
