"""Filters and pages of the Describe actions: "Filter your resources", "Pagination" in the Amazon EC2 API Reference."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tests.aws_bed.wire import ApiError

Value = Callable[[Mapping[str, Any]], object]


def matching(
    found: Iterable[dict[str, Any]], filters: Sequence[Mapping[str, Any]], known: Mapping[str, Value]
) -> list[dict[str, Any]]:
    """Those that every filter fits. Raises ApiError for a filter that the action does not have."""
    kept = list(found)
    for item in filters:
        name, wanted = str(item.get("Name", "")), item.get("Values", [])
        value = known.get(name) or _tag(name)
        if value is None:
            raise ApiError("InvalidParameterValue", f"The filter '{name}' is invalid")
        patterns = [_pattern(text) for text in wanted]
        kept = [about for about in kept if _fits(value(about), patterns)]
    return kept


def _tag(name: str) -> Value | None:
    if name.startswith("tag:"):
        return lambda about: [tag["Value"] for tag in about["Tags"] if tag["Key"] == name[4:]]
    if name == "tag-key":
        return lambda about: [tag["Key"] for tag in about["Tags"]]
    return None


def _pattern(text: str) -> re.Pattern[str]:
    """`*` is any text, `?` any character, a backslash takes what follows as it is."""
    parts = re.findall(r"\\.|.", text, re.DOTALL)
    kinds = {"*": ".*", "?": "."}
    return re.compile("".join(kinds.get(part) or re.escape(part[-1]) for part in parts), re.DOTALL)


def _fits(value: object, patterns: Sequence[re.Pattern[str]]) -> bool:
    values = value if isinstance(value, (list, tuple)) else [value]
    texts = [_text(one) for one in values if one not in (None, "")]
    return any(pattern.fullmatch(text) for pattern in patterns for text in texts)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def page(
    found: list[dict[str, Any]], params: Mapping[str, Any], *, least: int = 1
) -> tuple[list[Any], str | None]:
    """(the page asked for, the token of the next). Raises ApiError for a token that is none of ours."""
    size = params.get("MaxResults")
    if size is not None and not least <= int(size) <= 1000:
        raise ApiError("InvalidParameterValue", f"Value ( {size} ) for parameter maxResults is invalid.")
    start = 0
    if token := params.get("NextToken"):
        try:
            start = int(base64.b64decode(token, validate=True).decode().removeprefix("from "))
        except ValueError:
            raise ApiError("InvalidNextToken", "The specified token is not valid.") from None
    end = start + int(size or 1000)
    following = base64.b64encode(f"from {end}".encode()).decode() if end < len(found) else None
    return found[start:end], following
