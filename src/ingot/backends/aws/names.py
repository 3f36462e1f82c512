"""Names and tags made of templates: the words that may stand in them, and the texts that come of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from string import Formatter

WORDS = ("project", "image", "target", "run", "arch", "created", "digest")
"""What `{…}` in a template may say. Of what is not an image yet, `digest` is not known."""
_LONGEST, _SHORTEST = 128, 3
_VALUE = 256
_UNFIT = re.compile(r"[^A-Za-z0-9()\[\] ./'@_-]+")


def unknown_words(template: str) -> tuple[str, ...]:
    """The words of a template that are none of WORDS. Raises ValueError for one that cannot be read."""
    parts = list(Formatter().parse(template))
    if any(spec or conversion for _, _, spec, conversion in parts):
        raise ValueError("a word stands alone between its braces")
    return tuple(word for _, word, _, _ in parts if word is not None and word not in WORDS)


def words(labels: Mapping[str, str], *, arch: str, digest: str = "") -> Mapping[str, str]:
    """The words for what is made now, and bears these labels."""
    told = {word: labels.get(word, "") for word in ("project", "image", "target", "run")}
    made = {**told, "arch": arch, "created": datetime.now(UTC).strftime("%Y%m%d-%H%M%S")}
    return {**made, "digest": digest} if digest else made


def tag_values(templates: Mapping[str, str], known: Mapping[str, str]) -> dict[str, str]:
    """Tags with their words filled in; one that needs a word which is not known yet is left out."""
    return {
        key: template.format_map(known)[:_VALUE]
        for key, template in templates.items()
        if {word for _, word, _, _ in Formatter().parse(template) if word} <= known.keys()
    }


def ami_name(template: str, known: Mapping[str, str], *, taken: bool = False) -> str:
    """The name of an AMI: 3 to 128 characters, of those that EC2 takes (RegisterImage, `Name`).

    One that is too long, too short, or `taken` by another image ends in the digest, so that it stays unique.
    """
    name = _UNFIT.sub("-", template.format_map(known)).strip("-. ")
    if _SHORTEST <= len(name) <= _LONGEST and not taken:
        return name
    end = known["digest"]
    return f"{name[: _LONGEST - len(end) - 1].rstrip('-. ')}-{end}".lstrip("-")
