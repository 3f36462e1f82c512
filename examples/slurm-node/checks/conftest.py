"""What the checks share. They are plain pytest-testinfra: `host` is the machine that booted from the image."""

import os
import time
from collections.abc import Callable

import pytest
from testinfra.host import Host

DEADLINE = float(os.environ.get("CHECK_DEADLINE", "90"))
"""Seconds that a service may take after boot. An emulated machine is slow."""

Eventually = Callable[..., str]


@pytest.fixture(scope="module")
def eventually(host: Host) -> Eventually:
    """Runs a command again until it succeeds and `accept` likes its output, which it returns."""

    def run(command: str, accept: Callable[[str], bool] = lambda _: True) -> str:
        end = time.monotonic() + DEADLINE
        while True:
            result = host.run(command)
            if result.succeeded and accept(result.stdout):
                return str(result.stdout)
            if time.monotonic() > end:
                pytest.fail(
                    f"`{command}` did not come right in {DEADLINE:.0f} s; it ended with {result.rc} and said:\n"
                    f"{result.stdout}{result.stderr}"
                )
            time.sleep(1)

    return run


@pytest.fixture(scope="module")
def user(host: Host) -> str:
    """An ordinary user with a home, because MPI programs are not run as root. The disk of a check is thrown away."""
    name = "checker"
    if not host.user(name).exists:
        host.check_output("useradd --create-home %s", name)
    return name
