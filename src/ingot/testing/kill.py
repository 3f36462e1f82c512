"""Kills this very process at a chosen moment of a build, to prove that nothing stays behind that sweep cannot clear.

    INGOT_KILL_AT=7 python -c 'from ingot.testing import kill; armed = kill.arm(); from ingot.cli.main import main; main()'

is a build that SIGKILLs itself at the seventh moment (see `engine.trace`); past the last moment it ends well.
Armed lasts as long as what `arm` returns is kept.
"""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from itertools import count

from ingot.engine import trace

VARIABLE = "INGOT_KILL_AT"


def arm(at: int | None = None) -> ExitStack:
    """Arms this process to die at moment number `at` (1 is the first; None: as the environment says, else never)."""
    number = at if at is not None else int(os.environ.get(VARIABLE, "0"))
    passed = count(1)

    def die(name: str) -> None:
        if next(passed) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    stack = ExitStack()
    stack.enter_context(trace.hooked(die))
    return stack
