"""YAML as keys count it: what it says, not how it is laid out. Comments, white space and quotes do not count."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import yaml

from ingot.model.digest import Digest, digest_bytes

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_STANDARD = "tag:yaml.org,2002:"
_VAULT = b"$ANSIBLE_VAULT;"


@dataclass(frozen=True, kw_only=True, slots=True)
class Parsed:
    """A YAML file: the digest of what it says, and its documents as mappings, lists and text.

    Every scalar is text, whatever its type; what has a tag of its own (`!vault`) is "". The order of a mapping
    counts, for a template that loops over it shows it.
    """

    digest: Digest
    documents: tuple[Any, ...] = ()


def parse(data: bytes) -> Parsed:
    """The parsed file; one that is no YAML, or that is encrypted whole, counts by its bytes and says nothing."""
    if data.startswith(_VAULT):
        return Parsed(digest=digest_bytes(data))
    walk = _Walk()
    try:
        nodes = list(yaml.compose_all(data, Loader=_Loader))
        documents = tuple(walk.visit(node) for node in nodes)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError):
        return Parsed(digest=digest_bytes(data))
    text = json.dumps(walk.tokens, separators=(",", ":"), ensure_ascii=True)
    return Parsed(digest=digest_bytes(text.encode()), documents=documents)


class _Walk:
    """One pass over the nodes. What an alias repeats is named, not repeated, so the work stays in proportion."""

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self._seen: dict[int, tuple[int, Any]] = {}

    def visit(self, node: yaml.Node) -> Any:
        known = self._seen.get(id(node))
        if known is not None:
            self.tokens.append(f"*{known[0]}")
            return known[1]
        number = len(self._seen)
        tag = node.tag.removeprefix(_STANDARD)
        if isinstance(node, yaml.ScalarNode):
            value: Any = node.value if node.tag.startswith(_STANDARD) else ""
            self._seen[id(node)] = (number, value)
            self.tokens.append(f"{tag} {node.value}")
            return value
        self.tokens.append(f"{tag} {len(node.value)}")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, number)
        items: list[Any] = []
        self._seen[id(node)] = (number, items)
        items.extend(self.visit(item) for item in node.value)
        return items

    def _mapping(self, node: yaml.MappingNode, number: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        self._seen[id(node)] = (number, found)
        for key, item in node.value:
            name = self.visit(key)
            found[name if isinstance(name, str) else ""] = self.visit(item)
        return found
