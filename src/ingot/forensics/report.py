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
        cause = self._keep(evidence, ref)
        verb = "was lost" if lost else "did not come up"
        # The console's own file goes with the machine; the bundle has it.
        facts = {name: value for name, value in error.facts.items() if name != "console"}
        told = type(error)(
            f"{_NAMES[evidence.kind]} {verb}: {cause.sentence}",
            hint=cause.next,
            **{**facts, "cause": cause.name, "bundle": str(self._folder(ref))},
        )
        for note in getattr(error, "__notes__", ()):
            told.add_note(note)
        return told

    def _keep(self, evidence: Evidence, ref: str) -> Cause:
        """The cause, with the bundle written."""
        from ingot.forensics import bundle
        from ingot.forensics.classify import classify

        found = classify(evidence)
        folder = self._folder(ref)
        words = {"{image}": self.image, "{bundle}": str(folder)}
        next_ = found.next
        for name, value in words.items():
            next_ = next_.replace(name, value)
        cause = replace(found, sentence=self.scrub(found.sentence), next=next_)
        bundle.write(folder, evidence, cause, scrub=self.scrub)
        return cause

    def _look(self, ref: str) -> Evidence | None:
        self.emit(Progress(subject=self.subject, what="looking at why the machine does not answer", done=0))
        try:
            return self.hosts.examine(ref)
        except (IngotError, OSError):
            return None  # what was known before is told

    def _folder(self, ref: str) -> Path:
        return self.directory / FOLDER / ref
