"""Draws what a terminal shows after a command as an SVG: `picture.py OUT.svg COMMAND…`. Needs tmux.

The picture in the README is made so: it shows a real run, not a drawing of one.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import time

from rich.console import Console
from rich.text import Text

COLUMNS, ROWS = 100, 40
SESSION = f"picture-{time.monotonic_ns()}"
DONE = "picture-is-done"


def tmux(*words: str) -> str:
    """What tmux prints."""
    return subprocess.run(["tmux", *words], check=True, stdout=subprocess.PIPE, text=True).stdout


def screen(command: str) -> str:
    """The screen, with its colours, once the command has ended."""
    shown = f"clear; printf '$ %s\\n' {shlex.quote(command)}; {command}; printf '\\n{DONE}'; sleep 30"
    tmux("new-session", "-d", "-s", SESSION, "-x", str(COLUMNS), "-y", str(ROWS), "sh", "-c", shown)
    try:
        while DONE not in (text := tmux("capture-pane", "-p", "-e", "-t", SESSION)):
            time.sleep(0.5)
    finally:
        tmux("kill-session", "-t", SESSION)
    return text.split(DONE)[0].rstrip()


def main() -> None:
    """Writes the picture."""
    target, command = sys.argv[1], shlex.join(sys.argv[2:])
    console = Console(record=True, width=COLUMNS, file=sys.stderr, force_terminal=True)
    console.print(Text.from_ansi(screen(command)))
    console.save_svg(target, title="ingot")


if __name__ == "__main__":
    main()
