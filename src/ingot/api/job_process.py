"""The process of one job: a pickled `Job` on stdin, its pickled `JobResult` on stdout as base64."""

from __future__ import annotations

import base64
import os
import pickle
import sys


def main() -> None:
    """Performs the job. Nothing else gets at stdout: what libraries print goes to stderr."""
    answer = os.dup(1)
    os.dup2(2, 1)
    from ingot.api.jobs import perform
    from ingot.system.signals import cancellable

    job = pickle.load(sys.stdin.buffer)
    with cancellable() as flag:
        result = perform(job, cancel=flag)
        with os.fdopen(answer, "wb") as stdout:
            stdout.write(base64.b64encode(pickle.dumps(result)))


if __name__ == "__main__":
    main()
