"""Reboots: the machine's system starts anew, and is waited for until all that it starts has been started.

That it happened is proven by the kernel's own id of the boot (`/proc/sys/kernel/random/boot_id`), not by a connection
that broke.
"""

from __future__ import annotations

from ingot.errors import DeadlineError, ProvisionError, TransientError
from ingot.model.step import RebootStep
from ingot.model.units import Seconds
from ingot.ports import Cancel, Machine, SshAccess
from ingot.provision.log import StepLog
from ingot.system import ssh
from ingot.system.waits import poll

_ASK = Seconds(30.0)
_NOW = "cat /proc/sys/kernel/random/boot_id; uname -r"
_NEEDED = r"""
for file in /run/reboot-required /var/run/reboot-required; do
  [ ! -e "$file" ] || { echo "packages ask for it: $(sort -u "$file.pkgs" 2>/dev/null | tr '\n' ' ')"; exit; }
done
if command -v needs-restarting >/dev/null 2>&1; then
  needs-restarting -r >/dev/null 2>&1
  [ $? != 1 ] || { echo "needs-restarting asks for it"; exit; }
fi
newest=$(for folder in /lib/modules/*/; do
  version=$(basename "$folder")
  [ -e "/boot/vmlinuz-$version" ] && echo "$version"
done | sort -V | tail -n 1)
[ -z "$newest" ] || [ "$newest" = "$(uname -r)" ] || echo "the kernel $newest is installed, $(uname -r) runs"
"""
# A system that is up but for failed units is up: they are the checks' to tell of.
_SETTLED = "systemctl is-system-running --wait || :"


def apply(step: RebootStep, machine: Machine, *, log: StepLog, cancel: Cancel) -> None:
    """Returns when the machine's system runs anew, or at once where no reboot is needed and none was asked for.

    Raises ProvisionError for a machine that does not go down, or that does not come back in the step's time.
    """
    if step.if_needed:
        reason = _ask(machine.ssh, _NEEDED).strip()
        log.line("stdout", f"a reboot is needed: {reason}" if reason else "no reboot is needed")
        if not reason:
            return
    before, kernel = _ask(machine.ssh, _NOW).split()
    ssh.run(machine.ssh, ["systemctl", "reboot", "--no-block"], timeout=_ASK, check=False)
    ssh.close(machine.ssh)
    running = _await(machine.ssh, before, step=step, log=log, cancel=cancel)
    log.line("stdout", f"rebooted: kernel {kernel} before, {running} now")


def _await(access: SshAccess, before: str, *, step: RebootStep, log: StepLog, cancel: Cancel) -> str:
    """The version of the kernel that the machine runs once it has booted anew."""

    def up() -> str | None:
        done = ssh.run(access, ["sh", "-c", _NOW], timeout=_ASK, check=False)
        words = done.stdout.split()
        if done.code or len(words) != 2:
            ssh.close(access)
            raise TransientError(done.tail[-1] if done.tail else "it cannot be logged into")
        if words[0] == before:
            raise TransientError("it still runs as before")
        return words[1]

    try:
        kernel = poll(
            up,
            what="the machine to come back",
            every=Seconds(0.5),
            deadline=step.timeout,
            cancel=cancel,
            emit=log.emit,
            subject=log.subject,
        )
        ssh.run(access, ["sh", "-c", _SETTLED], timeout=step.timeout, cancel=cancel, check=False)
    except DeadlineError as error:
        raise ProvisionError(
            f"the machine did not come back from its reboot: {error.message}",
            hint="raise the step's `timeout` if it is only slow to boot; `--on-error keep` keeps it to be looked at",
        ) from error
    return kernel


def _ask(access: SshAccess, script: str) -> str:
    done = ssh.run(access, ["sh", "-c", script], timeout=_ASK, check=False)
    if done.code:
        raise ProvisionError(
            f"the machine could not be asked: {done.tail[-1] if done.tail else f'exit code {done.code}'}",
            hint="the step before may have cut it off",
        )
    return done.stdout
