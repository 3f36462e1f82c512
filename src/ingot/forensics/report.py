"""From an error on a machine to the error that is told: what the machine's own trouble is, and where all of it lies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ingot.errors import CancelledError, IngotError
from ingot.model.events import Emit, Progress
from ingot.model.forensics import Cause, Evidence
from ingot.ports import MachineHost

FOLDER = "forensics"
_NOT_LOST = ("slow", "stalled", "waiting")
"""What failed on a machine that only takes long to answer failed by itself."""
_NAMES = {"booted": "the booted system", "vm": "the virtual machine", "instance": "the machine"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Examiner:
    """Looks at machines of one run. `directory` is the run's, `image` what they are made for."""

    hosts: MachineHost
    directory: Path
    image: str
    scrub: Callable[[str], str]
    emit: Emit
    subject: str = ""

    def explain(self, error: IngotError, ref: str, *, lost: bool = False) -> IngotError:
        """The error with the machine's cause in place of its own words; as it was where the machine is well.

        `lost`: it had come up before. The class, and so the exit code, stays. The machine is ended then.
        """
        if isinstance(error, CancelledError):
            return error
        evidence = self._look(ref)
        if not evidence:
            return error
        from ingot.forensics.classify import classify

        folder = self.directory / FOLDER / ref
        cause = self._worded(classify(evidence), folder)
        if lost and cause.name in _NOT_LOST:
            return error
        kept = self._keep(folder, evidence, cause)
        verb = "was lost" if lost else "did not come up"
        # The console's own file goes with the machine; the bundle has it.
        facts = {name: value for name, value in error.facts.items() if name != "console"}
        told = type(error)(
            f"{_NAMES[evidence.kind]} {verb}: {cause.sentence}",
            hint=cause.next,
            **{**facts, "cause": cause.name, **({"bundle": str(folder)} if kept else {})},
        )
        for note in getattr(error, "__notes__", ()):
            told.add_note(note)
        return told

    def _worded(self, cause: Cause, folder: Path) -> Cause:
        """The cause without secrets, and with what to try ready to paste."""
        tries = cause.next.replace("{image}", self.image).replace("{bundle}", str(folder))
        return replace(cause, sentence=self.scrub(cause.sentence), next=tries)

    def _keep(self, folder: Path, evidence: Evidence, cause: Cause) -> bool:
        from ingot.forensics import bundle

        try:
            bundle.write(folder, evidence, cause, scrub=self.scrub)
        except OSError:
            return False  # a full disk may be the very cause
        return True

    def _look(self, ref: str) -> Evidence | None:
        self.emit(Progress(subject=self.subject, what="looking at the machine", done=0))
        try:
            return self.hosts.examine(ref)
        except (IngotError, OSError):
            return None  # what was known before is told
