"""The kinds of single values that a definition has, each checked with a sentence and a hint."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Discriminator

from ingot.definition.messages import Bad
from ingot.model.reference import parse_reference
from ingot.model.units import parse_bytes, parse_seconds

_NAME = r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?"


def check_name(text: str) -> str:
    """A name as Ingot, file systems and clouds all take it."""
    if not re.fullmatch(_NAME, text) or len(text) > 63:
        hint = f"for example `{suggestion}`" if (suggestion := as_name(text)) else "such as `node`"
        raise Bad(
            f"{text[:60]!r} is not a name: lowercase letters, digits, `-` and `.`, at most 63", hint=hint
        )
    return text


def as_name(text: str) -> str:
    """The nearest name to a text, or ""."""
    return re.sub(r"[^a-z0-9.-]+", "-", text.lower()).strip("-.")[:63].strip("-.")


def _matches(pattern: str, what: str, hint: str = "") -> AfterValidator:
    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):  # compiled at first use: most patterns are never needed
            raise Bad(f"{text[:60]!r} is not {what}", hint=hint)
        return text

    return AfterValidator(check)


def _size(text: str) -> str:
    try:
        value = parse_bytes(text)
    except OverflowError:
        raise Bad(f"{text[:20]}… is too large for a disk", hint="at most `64 TiB`") from None
    if not 2**30 <= value <= 64 * 2**40:
        raise Bad(f"{text} is no size for a disk", hint="from `1 GiB` to `64 TiB`")
    if value % 2**20:
        raise Bad(f"{text} is not a whole number of MiB", hint="such as `8 GiB`")
    return text


def _duration(text: str) -> str:
    value = parse_seconds(text)
    if not 0 < value <= 366 * 86400:
        raise Bad(f"{text[:40]} is no time to wait for", hint="such as `10m`; at most `366d`")
    return text


def _freshness(text: str) -> str:
    if text != "never" and not 3600 <= parse_seconds(text) <= 366 * 86400:
        raise Bad(f"{text[:40]} is no freshness", hint="from `1h` to `366d`, or `never`")
    return text


def _cache_address(text: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9+]*://\S+", text):
        raise Bad(
            f"{text[:80]!r} is not the address of a cache",
            hint="such as `s3://bucket/ingot` or `file:///srv/ingot`",
        )
    if text.startswith("file://") and not text.startswith("file:///"):
        raise Bad(f"{text[:80]!r} is not an absolute path", hint="such as `file:///srv/ingot`")
    return text.rstrip("/")


def _key_path(text: str) -> str:
    if text and not text.startswith(("/", "~/")):
        raise Bad(
            f"{text[:60]!r} is not an absolute path",
            hint="a signing key lies outside the project: `~/.ssh/id_ed25519`",
        )
    return text


def check_project_path(text: str) -> str:
    if not text or text.startswith(("/", "~")):
        raise Bad(
            f"{text!r} is not a path in the project", hint="paths are relative to the folder of `ingot.yaml`"
        )
    return text


def _destination(text: str) -> str:
    if not text.startswith("/") or ".." in text.split("/") or text.strip("/") == "" or "\n" in text:
        raise Bad(f"{text[:60]!r} is not an absolute path", hint="such as `/etc/motd`")
    return text


def _checksum(text: str) -> str:
    plain = text.removeprefix("sha256:").lower()
    if not re.fullmatch("[0-9a-f]{64}", plain):
        raise Bad(
            f"{text[:70]!r} is not a SHA-256 checksum",
            hint="64 hexadecimal digits, as `sha256sum` prints them",
        )
    return plain


def _with_unit(example: str) -> BeforeValidator:
    def check(value: Any) -> Any:
        if isinstance(value, int | float) and not isinstance(value, bool):
            raise Bad(f"{value} needs a unit", hint=f"such as `{example}`")
        return value

    return BeforeValidator(check)


Name = Annotated[str, AfterValidator(check_name)]
Checksum = Annotated[str, AfterValidator(_checksum)]
Destination = Annotated[str, AfterValidator(_destination)]
Size = Annotated[str, _with_unit("8 GiB"), AfterValidator(_size)]
Duration = Annotated[str, _with_unit("10m"), AfterValidator(_duration)]
Freshness = Annotated[str, _with_unit("7d"), AfterValidator(_freshness)]
CacheAddress = Annotated[str, AfterValidator(_cache_address)]
KeyPath = Annotated[str, AfterValidator(_key_path)]
ProjectPath = Annotated[str, AfterValidator(check_project_path)]
Package = Annotated[
    str, _matches(r"@?[A-Za-z0-9][^\s=,;|&<>]*(=[^\s=]+)?", "a package", "`name` or `name=version`")
]
Component = Annotated[
    str, _matches(r"[a-z][a-z0-9/-]*", "a component", "such as `main` or `non-free-firmware`")
]
Suite = Annotated[str, _matches(r"[a-z][a-z0-9.-]*", "a suite", "such as `bookworm`")]
Mirror = Annotated[
    str,
    _matches(
        r"(https?|file)://[^\s]+", "the address of an archive", "such as `http://deb.debian.org/debian`"
    ),
]
RoleName = Annotated[
    str, _matches(r"[A-Za-z0-9_./-]+", "a role's name", "such as `common` or `ingot.cluster.slurm`")
]
Group = Annotated[str, _matches(r"[A-Za-z_][A-Za-z0-9_]*", "an inventory group", "letters, digits and `_`")]
Word = Annotated[str, _matches(r"[^\s,]+", "a tag", "without spaces and commas")]
Owner = Annotated[str, _matches(r"[a-z_][a-z0-9_-]*\$?|[0-9]+", "a user or a group", "such as `root`")]
Mode = Annotated[str, _matches(r"[0-7]{3,4}", "a mode", 'octal digits in quotes, such as "0644"')]
VariableName = Annotated[
    str, _matches(r"[A-Za-z_][A-Za-z0-9_]*", "a variable's name", "letters, digits and `_`")
]
EnvName = Annotated[
    str, _matches(r"[A-Za-z_][A-Za-z0-9_]*", "the name of an environment variable", "letters, digits and `_`")
]


def _container(text: str) -> str:
    if parse_reference(text) is None:
        raise Bad(f"{text[:60]!r} is not a container image", hint="such as `docker.io/library/alpine:3.20`")
    return text


ContainerImage = Annotated[str, AfterValidator(_container)]


def by_type(asked: str, hint: str, /, **tags: type) -> Discriminator:
    """Chooses a union's member by the YAML type alone, so that messages speak of one shape."""

    def choose(value: Any) -> str | None:
        return next((f"<{tag}>" for tag, kind in tags.items() if isinstance(value, kind)), None)

    return shape(choose, asked, hint)


def shape(choose: Callable[[Any], str | None], asked: str, hint: str) -> Discriminator:
    context: dict[str, str | int | float] = {"asked": asked, "hint": hint}
    return Discriminator(
        choose, custom_error_type="shape", custom_error_message="{asked}", custom_error_context=context
    )
