"""What secrets look like: the forms that a known one takes on a disk, and the patterns of unknown ones.

A search has two steps, because a disk is long. A literal that hardly ever occurs is found at memory speed; only
where it stands is a regular expression matched. What the expression captures is the secret's own material: its
fingerprint tells whether two finds are the same secret, without keeping it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from ingot.ports import Needle

SHORTEST = 6
"""A known secret of fewer bytes stands in too many places by chance: only whole files are compared with it."""
AHEAD = 1024
"""How many bytes from its literal on a pattern may look at."""
BEHIND = 48
"""How many bytes before its literal a pattern may look at."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Literal:
    """Bytes to search for; `follows` decides where they stand, None when the bytes themselves are the secret."""

    what: str
    text: bytes
    anyof: re.Pattern[bytes] | None = None
    """Stands in for `text`, at the same length, where one search may serve several literals."""
    follows: re.Pattern[bytes] | None = None
    before: re.Pattern[bytes] | None = None
    """What has to end right before the literal, within BEHIND bytes."""
    example: bytes = b""
    """What documentation's own examples have in them, which are nobody's secret."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pattern:
    """A kind of secret: `literals` that start it and what has to follow. Group 1 is the secret's material.

    `[abc]` in a literal is any of these bytes. (With fixed bytes in front, `re` searches as fast as for text.)
    """

    what: str
    literals: tuple[bytes, ...]
    follows: bytes
    before: bytes = b""
    example: bytes = b""


# A key's lines may be apart by real line ends or, inside JSON, YAML or C text, by their escapes.
_BREAK = rb"(?:\r?\n[ \t]*|\\r|\\n)"
_BODY = rb"((?:[A-Za-z0-9+/=]|" + _BREAK + rb"){40,})"

PATTERNS: tuple[Pattern, ...] = (
    Pattern(
        what="private key",
        literals=(b"PRIVATE KEY-----",),
        before=rb"-----BEGIN (?:[A-Z0-9]+ ){0,2}",
        follows=_BREAK + rb"(?:(?:Proc-Type|DEK-Info):[^\r\n]{1,80}\r?\n)*" + _BREAK + rb"?" + _BODY,
    ),
    Pattern(
        what="PGP private key",
        literals=(b"BEGIN PGP PRIVATE KEY BLOCK-----",),
        follows=_BREAK + rb"(?:[A-Z][a-z]+: [^\r\n]{1,80}\r?\n)*" + _BREAK + rb"?" + _BODY,
    ),
    Pattern(what="PuTTY private key", literals=(b"Private-Lines: ",), follows=rb"\d+\r?\n" + _BODY),
    Pattern(
        what="AWS access key",
        literals=(b"AKIA",),
        before=rb"(?:^|[^A-Za-z0-9+/])",
        follows=rb"([A-Z2-7]{16})(?![A-Za-z0-9+/])",
        example=b"EXAMPLE",
    ),
    Pattern(
        what="AWS secret key",
        literals=(b"aws_secret_access_key", b"AWS_SECRET_ACCESS_KEY"),
        follows=rb"[\"']?\s{0,8}[=:]\s{0,8}[\"']?([A-Za-z0-9/+]{40})(?![A-Za-z0-9/+])",
        example=b"EXAMPLE",
    ),
    Pattern(what="GitHub token", literals=(b"gh[pousr]_",), follows=rb"([A-Za-z0-9]{36})"),
    Pattern(what="GitHub token", literals=(b"github_pat_",), follows=rb"([A-Za-z0-9]{22}_[A-Za-z0-9]{59})"),
    Pattern(what="GitLab token", literals=(b"glpat-",), follows=rb"([A-Za-z0-9_-]{20,})"),
    Pattern(what="Slack token", literals=(b"xox[abp]-",), follows=rb"([0-9]{6,}-[0-9A-Za-z-]{16,})"),
    Pattern(
        what="Slack webhook",
        literals=(b"hooks.slack.com/services/T",),
        follows=rb"([A-Z0-9]{6,}/B[A-Z0-9]{6,}/[A-Za-z0-9]{20,})",
    ),
    Pattern(what="npm token", literals=(b"npm[_]",), follows=rb"([A-Za-z0-9]{36})(?![A-Za-z0-9_])"),
    Pattern(what="npm token", literals=(b"_authToken=",), follows=rb"[\"']?([A-Za-z0-9_\-]{20,})"),
    Pattern(what="PyPI token", literals=(b"pypi-AgEIcHlwaS5vcmc",), follows=rb"([A-Za-z0-9_-]{50,})"),
    Pattern(
        what="Azure account key",
        literals=(b"AccountKey=", b"SharedAccessKey="),
        follows=rb"([A-Za-z0-9+/]{43,86}={1,2})",
    ),
    Pattern(what="Google API key", literals=(b"AIzaSy",), follows=rb"([A-Za-z0-9_-]{33})(?![A-Za-z0-9_-])"),
    Pattern(
        what="JSON web token",
        literals=(b"eyJhbGciOi",),
        follows=rb"([A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{20,})",
    ),
    Pattern(what="Vault token", literals=(b"hvs.CAESI",), follows=rb"([A-Za-z0-9_-]{60,})"),
)


def pattern_literals() -> tuple[Literal, ...]:
    """Every pattern as what to search for."""
    return tuple(
        Literal(
            what=pattern.what,
            text=re.sub(rb"\[(.)[^]]*\]", rb"\1", text),
            anyof=re.compile(text) if b"[" in text else None,
            follows=re.compile(pattern.follows),
            before=re.compile(pattern.before + rb"\Z") if pattern.before else None,
            example=pattern.example,
        )
        for pattern in PATTERNS
        for text in pattern.literals
    )


def needle_literals(needles: Sequence[Needle]) -> tuple[Literal, ...]:
    """The forms that the needles take on a disk, each once."""
    forms = {form: needle.name for needle in reversed(needles) for form in needle_forms(needle)}
    return tuple(Literal(what=name, text=form) for form, name in forms.items())


def needle_forms(needle: Needle) -> tuple[bytes, ...]:
    """The bytes by which a secret may be met: as it is, JSON-escaped, URL-encoded, in hex, in Base64.

    Base64 depends on where in its three-byte groups the secret starts, so there are three, without the
    characters at either end that its neighbours decide. () for a secret that is shorter than SHORTEST.
    """
    text = needle.value.reveal().strip()
    raw = text.encode()
    if len(raw) < SHORTEST:
        return ()
    forms = [raw, json.dumps(text)[1:-1].encode(), json.dumps(text, ensure_ascii=False)[1:-1].encode()]
    forms += [quote(text, safe="").encode(), quote(text).encode()]
    forms += [raw.hex().encode(), raw.hex().upper().encode()]
    for shift, lost in ((0, 0), (1, 2), (2, 3)):
        padded = b"\0" * shift + raw
        encoded = base64.b64encode(padded[: len(padded) // 3 * 3] or padded).rstrip(b"=")[lost:]
        if len(encoded) >= SHORTEST:
            forms += [encoded, encoded.translate(bytes.maketrans(b"+/", b"-_"))]
    return tuple(dict.fromkeys(forms))


def short_needles(needles: Sequence[Needle]) -> dict[bytes, str]:
    """Secrets too short to search for, by their bytes: only a file that holds nothing else is a find."""
    values = {needle.value.reveal().strip().encode(): needle.name for needle in needles}
    return {value: name for value, name in values.items() if 0 < len(value) < SHORTEST}


def material(literal: Literal, data: bytes, at: int) -> bytes | None:
    """The secret's own material where `literal` stands at `at`, or None where it only looks like one."""
    if literal.follows is None:
        return literal.text
    if literal.before and not literal.before.search(data, max(0, at - BEHIND), at):
        return None
    start = at + len(literal.text)
    found = literal.follows.match(data, start, start + AHEAD)
    if found is None or (literal.example and literal.example in found[1]):
        return None
    return found[1]


def fingerprint(secret: bytes) -> bytes:
    """The same for the same material, however its lines are broken. (Every OpenSSH key begins with the same text.)"""
    plain = re.sub(rb"\\[rn]|\s", b"", secret)
    return hashlib.sha256(plain[:256]).digest()
