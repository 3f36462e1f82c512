"""Foreign text made fit to be shown. Pure."""

from __future__ import annotations

import re

# CSI sequences (colours, cursor), OSC sequences (titles, links), and other two-character escapes: ECMA-48.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-_])")


def clean(text: str) -> str:
    """Foreign text made fit for a screen: nothing that would colour it or move the cursor; one line."""
    return "".join(
        sign if sign >= " " and sign != "\x7f" else " " for sign in _ESCAPES.sub("", text)
    ).rstrip()
