"""The table of verbs: what the overview shows, and where each command is found when it is called.

A verb joins by one line. Its module is imported only when the verb is used, or its help is read.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One verb: its section in the overview, the module that has a command of its name, and its one line."""

    name: str
    section: str
    module: str
    help: str


def _entries(section: str, *rows: tuple[str, str, str]) -> tuple[Entry, ...]:
    return tuple(Entry(name=name, section=section, module=module, help=help) for name, module, help in rows)


VERBS: tuple[Entry, ...] = (
    *_entries(
        "Write a definition",
        ("init", "project", "Begin a project that builds as it is"),
        ("validate", "project", "Find every mistake in a definition, each with its place"),
        ("schema", "project", "Print the definition's JSON Schema, for editors"),
        ("lock", "project", "Pin what the outside world would move"),
    ),
    *_entries(
        "Build and prove",
        ("doctor", "examined", "Tell what builds would lack, before anything is spent"),
        ("plan", "planned", "Show which layers would be built, and why"),
        ("build", "built", "Build images, reusing every layer that is there already"),
        ("resume", "machines", "Go on with a build that failed or was interrupted"),
        ("ssh", "machines", "Enter the machine of a run, also one kept after a failure"),
        ("check", "built", "Boot a built image and run its checks"),
        ("shell", "built", "Open a shell in an image, on a copy that is thrown away"),
        ("export", "built", "Write a built image as a disk for somewhere else"),
    ),
    *_entries(
        "Look",
        ("ls", "looked", "List what was built"),
        ("inspect", "looked", "Show what an image contains and how it was made"),
        ("history", "looked", "Show an image's layers: size, time, reused or built"),
        ("logs", "looked", "Show what happened in a run"),
        ("ps", "looked", "List the runs that go on, and what they hold"),
    ),
    *_entries(
        "Keep tidy",
        ("gc", "upkeep", "Remove layers that nothing needs, by age and size"),
        ("sweep", "upkeep", "Remove what interrupted runs left behind"),
        ("cancel", "upkeep", "End a run that goes on elsewhere, cleanly"),
        ("completion", "upkeep", "Print the completion script of a shell"),
    ),
)


def find(name: str) -> Entry | None:
    """The verb's entry, or None."""
    return next((entry for entry in VERBS if entry.name == name), None)
