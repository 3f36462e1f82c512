"""What the leak scan of a build looks for beside its own patterns: the user's secrets and the run's keys."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ingot.errors import LeakError
from ingot.model.events import Emit, Warned
from ingot.model.secret import Secret
from ingot.ports import Cancel, Finding, Machine, MachineHost, Needle

_SHORTEST = 6  # shorter ones are found by chance
_ORDINARY = 20  # places; so many hold a word of some language or a piece of an alphabet
_PRIVATE = b"-----BEGIN OPENSSH PRIVATE KEY-----"
_LARGEST_KEY = 16 * 2**10


def refuse_leaks(
    hosts: MachineHost,
    machine: Machine,
    *,
    secrets: Mapping[str, Secret],
    directory: Path,
    subject: str,
    emit: Emit,
    cancel: Cancel,
) -> None:
    """Scans the finished disk. Raises LeakError, with `findings`, naming each thing and its place."""
    needles = [*secret_needles(secrets, subject=subject, emit=emit), *key_needles(directory)]
    findings = hosts.scan(machine, needles, cancel=cancel)
    if findings:
        raise _leak(findings)


def secret_needles(secrets: Mapping[str, Secret], *, subject: str, emit: Emit) -> Iterator[Needle]:
    """A needle for each secret; a warning for one too short to be looked for."""
    for name, secret in sorted(secrets.items()):
        if len(secret.reveal().strip()) >= _SHORTEST:
            yield Needle(name=f"the secret {name}", value=Secret(secret.reveal().strip()))
        elif secret.reveal():
            emit(
                Warned(
                    subject=subject,
                    message=f"the secret {name} is too short to be looked for on the finished disk",
                    hint=f"make it {_SHORTEST} characters or longer",
                )
            )


def key_needles(directory: Path) -> Iterator[Needle]:
    """A needle for each SSH key that the run made: its public half, and a line from inside its private one."""
    for path in sorted(directory.rglob("*")):
        if not path.is_file() or path.stat().st_size > _LARGEST_KEY:
            continue
        data = path.read_bytes()
        if data.startswith(_PRIVATE):
            lines = data.decode("ascii", errors="ignore").split("\n")
            inside = [line for line in lines if line and not line.startswith("-----")]
            # The first lines say "ed25519" and are alike in all keys; the private half begins later.
            yield from (
                Needle(name=f"the run's private key {path.name}", value=Secret(x), fresh=True)
                for x in inside[2:4]
            )
        elif path.suffix == ".pub" and data.startswith(b"ssh-") and data.count(b" ") >= 1:
            body = data.decode("ascii", errors="ignore").split()[1]
            yield Needle(name=f"the run's public key {path.name}", value=Secret(body), fresh=True)


def _leak(findings: Sequence[Finding]) -> LeakError:
    listed = "; ".join(f"{finding.what} at {finding.where}" for finding in findings[:8])
    more = f" and {len(findings) - 8} more" if len(findings) > 8 else ""
    hint = "remove it in the step that leaves it there, or keep it in memory (/run) only"
    common = Counter(finding.what for finding in findings).most_common(1)[0]
    if common[1] > _ORDINARY:
        hint = (
            f"{common[0]} stands in {common[1]} places: a value so ordinary is no secret; choose a longer one"
        )
    return LeakError(
        f"the finished disk holds what may not be in an image: {listed}{more}",
        hint=hint,
        findings=tuple(findings),
    )
