"""Scripts: a program of the project, or text, run on the machine as root with its output as events.

Program and environment travel over SSH's standard input, so that a secret is never on a command line or on the
disk: they lie in a folder under /run or /tmp (neither is part of an image) for as long as the script runs.
"""

from __future__ import annotations

import io
import shlex
import tarfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from ingot.errors import ProvisionError
from ingot.model.secret import Secret, reveal, secret_names
from ingot.model.step import ScriptStep
from ingot.ports import Cancel, Machine
from ingot.provision.log import StepLog
from ingot.system import process, ssh

# A hardened machine mounts /run or /tmp noexec: the first folder in which a program starts is taken.
_RUNNER = r"""
umask 077
for base in /run /tmp /var/tmp; do
  folder=$(mktemp -d "$base/ingot.XXXXXX" 2>/dev/null) || continue
  printf '#!/bin/sh\n' > "$folder/try" && chmod 700 "$folder/try"
  "$folder/try" 2>/dev/null && break
  rm -rf "$folder"; folder=
done
test -n "$folder" || { echo "no folder of /run, /tmp and /var/tmp lets programs run" >&2; exit 126; }
trap 'rm -rf "$folder"' EXIT
trap 'exit 129' HUP; trap 'exit 143' TERM; trap 'exit 130' INT
rm -f "$folder/try"
tar -x -f - -C "$folder" || exit 125
program=$1; shift
set -a; . "$folder/.environment"; set +a
rm -f "$folder/.environment"
umask 022
"""


def apply(
    step: ScriptStep,
    machine: Machine,
    *,
    root: Path,
    secrets: Mapping[str, Secret],
    log: StepLog,
    cancel: Cancel,
) -> None:
    """Runs the script to its end. Without a `#!` line it is read by `/bin/sh -eu`. Raises ProvisionError on failure."""
    if names := sorted(secret_names(step.args)):
        raise ProvisionError(
            f"{_name(step)} would get the secret {names[0]!r} as an argument",
            hint="arguments are visible to every process of the machine; hand it over in the step's `env`",
        )
    program = read_program(step, root=root, secrets=secrets)
    name = PurePosixPath(step.path).name or "inline"
    direct = program.startswith((b"#!", b"\x7fELF"))
    start = (
        '"$folder/$program" "$@" </dev/null' if direct else '/bin/sh -eu "$folder/$program" "$@" </dev/null'
    )
    done = process.run(
        ssh.argv(machine.ssh, "sh", "-c", _RUNNER + start + "\n", "ingot", name, *step.args),
        input=_archive(name, program, environment=reveal(dict(step.env), secrets)),
        timeout=step.timeout,
        cancel=cancel,
        on_line=log.line,
        check=False,
    )
    if done.code:
        said = next((line.strip() for line in reversed(log.tail) if line.strip()), "it said nothing")
        lost = " (the machine could not be reached, or was lost)" if done.code == 255 else ""
        raise ProvisionError(
            f"{_name(step)} exited with {done.code}{lost}: {said}",
            hint=f"its whole output is in {log.path}",
            task=name,
            file=step.path or step.place.file,
            line=step.place.line if not step.path else 0,
            code=done.code,
        )


def read_program(step: ScriptStep, *, root: Path, secrets: Mapping[str, Secret]) -> bytes:
    """The program's bytes, with secrets filled in where it is inline text. Raises ProvisionError if it can't be read."""
    if not step.path:
        text: str = reveal(step.inline, secrets)
        return text.encode()
    path = root / step.path
    try:
        return path.read_bytes()
    except OSError as error:
        raise ProvisionError(
            f"the script {step.path!r} cannot be read: {error.strerror}",
            hint=f"a script's path is relative to the project, {root}",
        ) from error


def _name(step: ScriptStep) -> str:
    return f"the script {step.path!r}" if step.path else "the inline script"


def _archive(name: str, program: bytes, *, environment: Mapping[str, str]) -> bytes:
    settings = "".join(f"{name}={shlex.quote(value)}\n" for name, value in environment.items())
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for member, data, mode in ((name, program, 0o700), (".environment", settings.encode(), 0o600)):
            info = tarfile.TarInfo(member)
            info.size, info.mode = len(data), mode
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()
