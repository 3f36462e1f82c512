"""Checks that every image gets. A new one is a function here and its name in `KNOWN`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from ingot.model.units import Seconds
from ingot.ports import Cancel, Machine
from ingot.system import ssh

_LINES = 10
"""Of a failed unit's journal: systemd's own words on a failure are up to four, the unit's come before them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What a check found; `message` says what is wrong, or why it was not looked for."""

    outcome: Literal["passed", "failed", "skipped"]
    message: str = ""


class BuiltinCheck(Protocol):
    """Looks at a machine that answers. Raises DeadlineError where it has not settled in time."""

    def __call__(self, machine: Machine, *, timeout: Seconds, cancel: Cancel) -> Verdict: ...


def passed(message: str = "") -> Verdict:
    return Verdict(outcome="passed", message=message)


def failed(message: str) -> Verdict:
    return Verdict(outcome="failed", message=message)


def skipped(message: str) -> Verdict:
    return Verdict(outcome="skipped", message=message)


def cloud_init_is_done(machine: Machine, *, timeout: Seconds, cancel: Cancel) -> Verdict:
    """cloud-init came to its end on the first boot, without errors."""
    script = "command -v cloud-init >/dev/null || exit 99; cloud-init status --wait --long"
    done = ssh.run(machine.ssh, ["sh", "-c", script], timeout=timeout, cancel=cancel, check=False)
    return skipped("the image has no cloud-init") if done.code == 99 else read_cloud_init(done.stdout)


def read_cloud_init(text: str) -> Verdict:
    """The verdict on what `cloud-init status --wait --long` says."""
    status = re.search(r"^status: (\S+)", text, re.MULTILINE)
    if status and status[1] == "done":
        return passed()
    if status and status[1] in ("disabled", "not"):
        return skipped("cloud-init is disabled in the image")
    detail = re.search(r"^detail:\s*\n(.+?)(?:\n\S|\Z)", text, re.MULTILINE | re.DOTALL)
    errors = re.findall(r"^\s*- (.+)$", text.partition("errors:")[2], re.MULTILINE)
    said = "; ".join(errors) or (detail[1].strip() if detail else text.strip())
    return failed(f"cloud-init ended with status {status[1] if status else 'unknown'}: {said[:600]}")


def no_failed_units(machine: Machine, *, timeout: Seconds, cancel: Cancel) -> Verdict:
    """The system came up whole: systemd has nothing left to start, and no unit failed."""
    script = "command -v systemctl >/dev/null || exit 99; systemctl is-system-running --wait"
    done = ssh.run(machine.ssh, ["sh", "-c", script], timeout=timeout, cancel=cancel, check=False)
    if done.code == 99:
        return skipped("the image has no systemd")
    state = done.stdout.strip()
    if state == "running":
        return passed()
    listing = ["systemctl", "list-units", "--failed", "--plain", "--no-legend", "--no-pager"]
    told = ssh.run(machine.ssh, listing, timeout=Seconds(60.0), cancel=cancel, check=False)
    units = [line.split()[0] for line in told.stdout.splitlines() if line.strip()]
    if not units:
        return failed(f"the system is {state or 'in no known state'}, though no unit failed")
    logs = [_last_words(unit, machine, cancel) for unit in units[:8]]
    return failed(f"{len(units)} unit{'s' * (len(units) > 1)} failed: {', '.join(units)}\n" + "\n".join(logs))


def _last_words(unit: str, machine: Machine, cancel: Cancel) -> str:
    words = ["journalctl", "--unit", unit, "--lines", str(_LINES), "--output", "cat", "--no-pager"]
    done = ssh.run(machine.ssh, words, timeout=Seconds(60.0), cancel=cancel, check=False)
    return f"{unit}:\n" + "\n".join(f"  {line}" for line in done.stdout.splitlines())


KNOWN: Mapping[str, BuiltinCheck] = {
    "cloud-init is done": cloud_init_is_done,
    "no failed units": no_failed_units,
}
