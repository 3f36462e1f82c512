"""Waiting for a booted system, and telling what keeps it."""

from __future__ import annotations

from pathlib import Path

from ingot.backends.local import disk_look
from ingot.backends.local.holder import HeldDisk
from ingot.backends.local.progress import Watch
from ingot.errors import BackendError, DeadlineError, IngotError, TransientError
from ingot.forensics import console as consoles
from ingot.model.events import Emit, Warned
from ingot.model.forensics import Evidence, Port
from ingot.model.secret import Secret
from ingot.model.units import Seconds
from ingot.ports import Cancel, SshAccess
from ingot.system import ssh
from ingot.system.process import Completed
from ingot.system.waits import poll

CONSOLE = "boot.log"
SYSTEMS = ("/usr/lib/systemd/systemd", "/lib/systemd/systemd")
PATIENCE = Seconds(180.0)
_STILL = Seconds(30.0)
_ENDED = ("running", "degraded", "maintenance")
_ASK = """
state=$(systemctl is-system-running 2>/dev/null)
echo "$state"
[ "$state" != degraded ] || systemctl list-units --failed --plain --no-legend --no-pager | cut -d' ' -f1
"""
_VENDOR_DATA = """\
#cloud-config
# The disk has its size, a host key is thrown away when the image is sealed, and what else the image has it keeps.
growpart: {mode: "off"}
resize_rootfs: false
ssh_deletekeys: false
ssh_genkeytypes: [ed25519]
locale: false
apt: {preserve_sources_list: true}
"""
_JOBS = "systemctl list-jobs --plain --no-legend --no-pager | grep -w running || systemctl list-jobs --no-legend --no-pager"


def refuse_without_system(present: bool) -> None:
    """Raises BackendError for a disk that has nothing to boot."""
    if not present:
        raise BackendError(
            "the disk has no systemd, so its system cannot be booted",
            hint="install systemd-sysv in a step before, or write `machine: chroot`",
        )


def seed(user_data: Secret, *, instance: str) -> dict[str, str]:
    """The files of a NoCloud seed for one boot. Text of the machine's kind: bytes as Latin-1."""
    return {
        "meta-data": f"instance-id: {instance}\nlocal-hostname: localhost\n",
        "user-data": user_data.reveal().encode().decode("latin-1"),
        "vendor-data": _VENDOR_DATA,
    }


def watch_start(console: Path, *, limit: Seconds) -> Watch:
    """Follows the start of a system."""
    return Watch(
        console,
        timeout=Seconds(min(PATIENCE, limit)),
        limit=Seconds(min(3 * PATIENCE, limit)),
        patience=Seconds(min(_STILL, PATIENCE)),
    )


def wait_until_up(
    access: SshAccess, init: int, *, watch: Watch, begun: bool = False, emit: Emit, cancel: Cancel
) -> None:
    """Returns when all that the system starts at boot was started, or has failed, of which it warns.

    With `begun` already once it can be logged into: cloud-init is part of what starts, and may take its time.

    Raises BackendError where it has ended, and DeadlineError naming the jobs that it still waits for.
    """
    console = watch.path

    def up() -> list[str] | None:
        if not Path(f"/proc/{init}").exists():
            last = " ".join(console.read_text(errors="replace").split()[-40:]) if console.exists() else ""
            raise BackendError(
                f"the system ended while it started: {last or 'it said nothing'}",
                hint=f"{console} has what it said",
                console=console,
            )
        done = _ask(access, _ASK)
        words = done.stdout.split()
        if words and words[0] in _ENDED:
            return words
        watch.look()
        if done.code == 255:
            raise TransientError(f"it cannot be logged into: {' '.join(done.tail[-1:])}")
        if begun and words and words[0] in ("initializing", "starting"):
            return ["begun"]
        return None

    try:
        state, *failed = poll(
            up,
            what="the start of the system",
            every=Seconds(0.1),
            deadline=watch.limit,
            cancel=cancel,
            emit=emit,
        )
    except DeadlineError as error:
        error.facts.setdefault("console", console)
        error.add_note(
            f"jobs that had not ended: {', '.join(_jobs(access)) or 'none'}; {console} has what it said"
        )
        raise
    if state == "maintenance":
        raise BackendError(
            "the system ended in its rescue mode", hint=f"{console} has what it said", console=console
        )
    if failed:
        emit(
            Warned(
                message=f"the booted system runs, but these units have failed: {', '.join(failed)}",
                hint=f"`systemctl status` in a script step tells why; {console} has the boot's own words",
            )
        )


def look(held: HeldDisk, access: SshAccess, init: int, *, watch: Watch) -> Evidence | None:
    """What can be seen of a booted system; None for one that is up and answers."""
    runs = Path(f"/proc/{init}").exists()
    state, port = _answer(access) if runs else ("", Port())
    if state in ("running", "degraded"):
        return None
    try:
        read = disk_look.read_mounted(held)
    except (IngotError, OSError) as error:
        read = disk_look.Read(unread=str(error))
    return Evidence(
        kind="booted",
        console=consoles.plain(watch.read()),
        state="running" if runs else "ended",
        status=state,
        seconds=watch.seconds,
        idle=watch.idle,
        patience=watch.patience,
        port=port,
        disk=read.disk,
        journal=read.journal,
        logs=read.logs,
        unread=read.unread,
        jobs=_jobs(access) if state else (),
    )


def _answer(access: SshAccess) -> tuple[str, Port]:
    """What the system says of its own state; "" and how the login failed where nobody can log in."""
    try:
        done = _ask(access, _ASK)
    except DeadlineError:
        return "", Port(login="failed", said=("nothing came back in time",))
    if done.code == 255:
        return "", Port(login="failed", said=done.tail[-5:])
    return (done.stdout.split() or ["unknown"])[0], Port(login="accepted")


def _jobs(access: SshAccess) -> tuple[str, ...]:
    lines = [line.split() for line in _ask(access, _JOBS).stdout.splitlines()]
    return tuple(words[1] for words in lines if len(words) > 1)


def _ask(access: SshAccess, script: str) -> Completed:
    return ssh.run(access, ["sh", "-c", script], timeout=Seconds(30.0), check=False)
