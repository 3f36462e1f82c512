"""User-data as cloud-init takes it: which kind it is, its parts, and what is wrong with each. Nothing is run or fetched."""

from __future__ import annotations

import email
import email.message
import re
from dataclasses import dataclass, field

from ingot.definition.cloud_config import HOLE, lint_cloud_config
from ingot.definition.nodes import problem
from ingot.definition.suggest import did_you_mean
from ingot.errors import Problem
from ingot.model.step import Place

_HEADERS = {
    "#cloud-config": "cloud-config",
    "#!": "script",
    "#cloud-boothook": "script",
    "#include": "include",
    "#include-once": "include",
    "#part-handler": "handler",
    "## template: jinja": "jinja",
}
"""How a part begins that says by itself what it is, and what that means."""
_TYPES = {
    "text/cloud-config": "cloud-config",
    "text/x-shellscript": "script",
    "text/x-shellscript-per-boot": "script",
    "text/x-shellscript-per-instance": "script",
    "text/x-shellscript-per-once": "script",
    "text/cloud-boothook": "script",
    "text/x-include-url": "include",
    "text/x-include-once-url": "include",
    "text/part-handler": "handler",
    "text/jinja2": "jinja",
    "text/plain": "",
}
"""Of a MIME part by its type; "" where its first line tells."""
_MIME = re.compile(r"(?im)\A(mime-version|content-type|from )")
_EXPRESSION = re.compile(r"\{\{.*?\}\}|\{#.*?#\}", re.DOTALL)
_MOST = 2**20


@dataclass(slots=True)
class Findings:
    """What is wrong with user-data, and what may not be meant."""

    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)


def lint_user_data(data: bytes, *, file: str) -> Findings:
    """Everything that can be told of user-data without a machine. Places are lines of `file`."""
    found = Findings()
    if data[:2] == b"\x1f\x8b":
        _tell(
            found,
            "the user-data is compressed",
            Place(file=file, line=1, column=1),
            "write it plain: nothing limits its size here",
        )
        return found
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start]
        place = Place(file=file, line=before.count(b"\n") + 1, column=error.start - before.rfind(b"\n"))
        _tell(found, "this is not UTF-8", place, "save it as UTF-8")
        return found
    if len(text) > _MOST:
        _tell(
            found,
            "the user-data is larger than 1 MiB",
            Place(file=file, line=1, column=1),
            "copy files with a `files` step",
        )
    elif _MIME.match(text):
        _lint_parts(text, file, found)
    else:
        _lint_part(text, file, 0, found)
    return found


def _tell(found: Findings, message: str, place: Place, hint: str) -> None:
    found.problems.append(problem(message, place, hint=hint))


def _lint_part(text: str, file: str, above: int, found: Findings, kind: str = "") -> None:
    """One part that begins below so many lines of its file."""
    first = Place(file=file, line=above + 1, column=1)
    line = text.partition("\n")[0].rstrip("\r").rstrip()
    kind = kind or _kind(line)
    if not kind:
        _tell(found, *_unknown_header(line, text, first))
        return
    if "\r\n" in text:
        hint = "save it with the line ends of Unix"
        _tell(
            found, "lines end with a carriage return, which a shell would take as part of a word", first, hint
        )
        return
    match kind:
        case "cloud-config":
            problems, warnings = lint_cloud_config(text, file=file, above=above)
            found.problems += problems
            found.warnings += warnings
        case "include":
            _lint_include(text, file, above, found)
        case "jinja":
            _lint_jinja(text, file, above, found)
        case "handler":
            _lint_handler(text, file, above, found)
        case _:
            pass  # a script is its interpreter's business


def _kind(line: str) -> str:
    lower = line.lower()
    if lower.startswith("#!"):
        return "script"
    word = lower if lower.startswith("## template:") else (lower.split() or [""])[0]
    return _HEADERS.get(" ".join(word.split()), "")


def _unknown_header(line: str, text: str, place: Place) -> tuple[str, Place, str]:
    if not text.strip():
        return "the user-data is empty", place, "begin with `#cloud-config`"
    if not line:
        return (
            "user-data begins with its kind in the first line, and this line is empty",
            place,
            "remove the empty lines above",
        )
    hint = did_you_mean("".join(line.lower().split()), _HEADERS)
    if not hint.startswith("did") and re.match(r"[A-Za-z_]+:|---", line):
        hint = "write `#cloud-config` above it"
    elif not hint.startswith("did"):
        hint = "one of " + ", ".join(f"`{header}`" for header in _HEADERS) + ", or a MIME multipart message"
    shown = line if len(line) <= 60 else line[:59] + "…"
    return f"cloud-init does not know user-data that begins with {shown!r}", place, hint


def _lint_include(text: str, file: str, above: int, found: Findings) -> None:
    for number, line in enumerate(text.splitlines(), above + 1):
        address = line.strip()
        place = Place(file=file, line=number, column=len(line) - len(line.lstrip()) + 1)
        if not address or address.startswith("#"):
            continue
        if not re.fullmatch(r"(https?|file|ftp)://\S+", address):
            _tell(found, f"{address[:60]!r} is not an address", place, "one URL a line")
        else:
            hint = "copy it into the project where a change of it should rebuild the image"
            found.warnings.append(
                problem(
                    f"what {address} holds is neither checked nor counted in the layer's key",
                    place,
                    hint=hint,
                )
            )


def _lint_handler(text: str, file: str, above: int, found: Findings) -> None:
    try:
        compile(text, file, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        line, column = getattr(error, "lineno", None) or 1, getattr(error, "offset", None) or 1
        place = Place(file=file, line=above + line, column=column)
        _tell(
            found,
            f"this is not Python: {getattr(error, 'msg', error)}",
            place,
            "a part handler is a Python module",
        )


def _lint_jinja(text: str, file: str, above: int, found: Findings) -> None:
    """The template's syntax; and as far as what it makes is the text around `{{ }}`, that text."""
    from jinja2 import Environment, TemplateSyntaxError

    try:
        Environment().parse(text)
    except TemplateSyntaxError as error:
        place = Place(file=file, line=above + error.lineno, column=1)
        _tell(
            found,
            f"this is not a Jinja2 template: {error.message}",
            place,
            "write `{% raw %}` around text with braces of its own",
        )
        return
    head, _, rest = text.partition("\n")
    first = rest.partition("\n")[0].rstrip()
    if "{%" in text:
        if not _kind(first):
            _tell(found, *_unknown_header(first, rest, Place(file=file, line=above + 2, column=1)))
        return
    filled = _EXPRESSION.sub(lambda match: re.sub(r"[^\n]", HOLE, match[0]), rest)
    if head.strip():
        _lint_part(filled, file, above + 1, found)


def _lint_parts(text: str, file: str, found: Findings) -> None:
    """A MIME multipart message: each part as what its type says."""
    message = email.message_from_string(text)
    first = Place(file=file, line=1, column=1)
    if "MIME-Version" not in message:
        _tell(found, "this MIME message does not say so", first, "begin with `MIME-Version: 1.0`")
        return
    for defect in message.defects:
        _tell(
            found,
            f"this is no sound MIME message: {type(defect).__name__}",
            first,
            "`cloud-init devel make-mime` makes one",
        )
    position = 0
    for part in message.walk():
        if part.is_multipart():
            continue
        body = str(part.get_payload())
        position = max(text.find(body, position), position)
        above = text[:position].count("\n")
        _lint_mime_part(part, body, file, above, found)
        position += len(body)


def _lint_mime_part(part: email.message.Message, body: str, file: str, above: int, found: Findings) -> None:
    place = Place(file=file, line=max(above, 1), column=1)
    kind = _TYPES.get(part.get_content_type())
    if kind is None:
        _tell(
            found,
            f"cloud-init does not know parts of the type {part.get_content_type()}",
            place,
            did_you_mean(part.get_content_type(), _TYPES),
        )
        return
    if str(part.get("Content-Transfer-Encoding", "7bit")).lower() in ("7bit", "8bit", "binary"):
        _lint_part(body, file, above, found, kind)
        return
    inner = Findings()
    decoded = part.get_payload(decode=True)
    _lint_part(decoded.decode(errors="replace") if isinstance(decoded, bytes) else "", "", 0, inner, kind)
    for one, kept in ((inner.problems, found.problems), (inner.warnings, found.warnings)):
        kept.extend(said_at(item, place) for item in one)


def said_at(found: Problem, place: Place, *, path: str = "") -> Problem:
    """A problem of a text without a file of its own, told where that text is written."""
    line = f"line {found.line}: " if found.line else ""
    where = f"{found.path}: " if found.path else ""
    return Problem(
        message=f"{line}{where}{found.message}",
        hint=found.hint,
        file=place.file,
        line=place.line,
        column=place.column,
        path=path,
    )
