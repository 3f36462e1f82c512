"""References to container images, as Docker and its successors read them: `[registry/]repository[:tag][@digest]`."""

from __future__ import annotations

import re
from dataclasses import dataclass

_PATH = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    r"(?:(?P<registry>(?:localhost|[A-Za-z0-9.-]+\.[A-Za-z0-9.-]+|[A-Za-z0-9.-]+(?=:[0-9]))(?::[0-9]+)?)/)?"
    rf"(?P<repository>{_PATH}(?:/{_PATH})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_LOCAL = re.compile(r"localhost|127\.[0-9.]+|\[::1\]")
HUB = "docker.io"


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """One image: its tag ("" for none), its digest ("" where it is not said)."""

    registry: str
    repository: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """Registry and repository: `docker.io/library/alpine`."""
        return f"{self.registry}/{self.repository}"

    @property
    def tagged(self) -> str:
        """The name with its tag, if it has one."""
        return f"{self.name}:{self.tag}" if self.tag else self.name

    @property
    def is_local(self) -> bool:
        """Whether the registry is on the very computer that asks: such ones are spoken to without TLS."""
        return bool(_LOCAL.fullmatch(self.registry.rpartition(":")[0] or self.registry))

    def __str__(self) -> str:
        return f"{self.tagged}@{self.digest}" if self.digest else self.tagged


def parse_reference(text: str) -> Reference | None:
    """The reference with what it leaves out: `alpine` is `docker.io/library/alpine:latest`. None for what is none."""
    found = _REFERENCE.fullmatch(text)
    if not found or len(text) > 400:
        return None
    registry = found["registry"] or HUB
    repository = found["repository"]
    if registry == HUB and "/" not in repository:
        repository = f"library/{repository}"
    digest = found["digest"] or ""
    tag = found["tag"] or ("" if digest else "latest")
    return Reference(registry=registry, repository=repository, tag=tag, digest=digest)


def reference(text: str) -> Reference:
    """The reference of a text that was found to be one before."""
    found = parse_reference(text)
    assert found, f"{text!r} is no reference"
    return found
