"""The folder that a run keeps of a machine that did not come up: all that was seen, as files for people.

    runs/<run>/forensics/<machine>/
        summary.txt      the cause, what to try, and what each file is
        evidence.json    what was seen, without the long texts
        console.log      what its console said
        journal.log      the journal of its last boot; sshd.log and cloud-init.log are parts of it
        …                the log files of its disk

No file is longer than `LONGEST`, and none holds a secret or a private key.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from ingot.forensics import console
from ingot.model.digest import plain
from ingot.model.forensics import Cause, Evidence
from ingot.model.units import format_bytes, format_seconds
from ingot.system.files import write_atomically

LONGEST = 512 * 2**10
"""Characters of one file: of a longer one the middle is left out."""
_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL
)
_PARTS = {
    "sshd.log": re.compile(r"\bsshd(?:-session)?\[|\bsshd?\.service"),
    "cloud-init.log": re.compile(r"cloud-init"),
}
_LOGS = re.compile(r"[^\w.-]")


def write(folder: Path, evidence: Evidence, cause: Cause, *, scrub: Callable[[str], str]) -> None:
    """Writes the bundle; `scrub` takes secrets out of a text."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name, text in files(evidence, cause, scrub=scrub).items():
        write_atomically(folder / name, text, mode=0o600)


def files(evidence: Evidence, cause: Cause, *, scrub: Callable[[str], str]) -> Mapping[str, str]:
    """The bundle's files by name. Pure."""
    texts = {"console.log": evidence.console, "journal.log": evidence.journal}
    for name, pattern in _PARTS.items():
        texts[name] = "\n".join(line for line in evidence.journal.splitlines() if pattern.search(line))
    for name, text in evidence.logs.items():
        # The log file of cloud-init tells more than its lines in the journal.
        texts[_LOGS.sub("-", name)] = text
    known = {name: clean(text, scrub) for name, text in texts.items() if text.strip()}
    short = replace(evidence, console="", journal="", logs={})
    about = {"cause": cause.name, "stage": console.stage_of(evidence.console), **plain(short)}
    return {
        "summary.txt": clean(summary(evidence, cause, tuple(known)), scrub),
        "evidence.json": clean(json.dumps(about, indent=2, ensure_ascii=False) + "\n", scrub),
        **known,
    }


def clean(text: str, scrub: Callable[[str], str]) -> str:
    """The text without secrets and private keys, and without the middle of what is too long."""
    text = scrub(_PRIVATE_KEY.sub("*** (a private key)", text))
    if len(text) <= LONGEST:
        return text
    half = LONGEST // 2
    return f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"


def summary(evidence: Evidence, cause: Cause, names: tuple[str, ...]) -> str:
    """What people read first."""
    port = evidence.port
    rows = {
        "machine": f"{evidence.kind}, {evidence.state}"
        + (f" ({evidence.status})" if evidence.status else ""),
        "stage": console.stage_of(evidence.console),
        "waited": f"{format_seconds(evidence.seconds)}, the last {format_seconds(evidence.idle)} with nothing new",
        "SSH port": " ".join(word for word in (port.state, port.greeting) if word),
        "login": f"{evidence.user}: {port.login}",
        "waits for": ", ".join(evidence.jobs or console.jobs(evidence.console)),
        "disk": _disk(evidence),
        "units": ", ".join(
            f"{name} {state}" for name, state in (evidence.disk.units if evidence.disk else {}).items()
        ),
        "files": ", ".join(names),
    }
    told = "".join(f"{name:<10} {value}\n" for name, value in rows.items() if value)
    heard = "".join(f"  {line}\n" for line in port.said)
    return f"{cause.name}: {cause.sentence}\ntry: {cause.next}\n\n{told}" + (
        f"\nssh said:\n{heard}" if heard else ""
    )


def _disk(evidence: Evidence) -> str:
    disk = evidence.disk
    if not disk:
        return f"not read: {evidence.unread}" if evidence.unread else ""
    return f"{format_bytes(disk.free)} of {format_bytes(disk.size)} are free"
