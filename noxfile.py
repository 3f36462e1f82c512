"""The one entry to every check. `nox` alone runs what CI runs: lint, types, tests, docs.

Everything runs in the locked environment of `.venv` (`make setup`), so that what is checked is what was locked.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nox

nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "types", "docs", "tests"]
nox.options.error_on_external_run = False

HERE = Path(__file__).parent
PYTHON = sys.executable
BIN = Path(PYTHON).parent
ROLES = "collections/ansible_collections/ingot/cluster"


# Tests make disks of gigabytes; Debian 13 has /tmp in memory.
ROOMY = {"PYTEST_DEBUG_TEMPROOT": "/var/tmp"}


def tool(session: nox.Session, name: str, *arguments: str) -> None:
    """Runs a program of the environment that nox itself runs in."""
    session.run(str(BIN / name), *arguments, *session.posargs, external=True)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, import directions, spelling, YAML and Ansible."""
    tool(session, "ruff", "check", ".")
    tool(session, "ruff", "format", "--check", ".")
    tool(session, "lint-imports")
    tool(session, "codespell", "src", "tests", "docs", "bench", "README.md", "CONTRIBUTING.md")
    with session.chdir(ROLES):
        tool(session, "yamllint", "--strict", ".")
        tool(session, "yamllint", str(HERE / "examples"))
        paths = {"ANSIBLE_COLLECTIONS_PATH": str(HERE / "collections")}
        session.run(PYTHON, "-m", "ansiblelint", "--offline", "--strict", env=paths, external=True)


@nox.session
def types(session: nox.Session) -> None:
    """mypy in strict mode over source, tests and this file."""
    tool(session, "mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """What the documentation says is true: links resolve, commands exist, generated pages are current."""
    session.run(PYTHON, "-m", "pytest", "-q", "tests/docs", external=True)


@nox.session
def tests(session: nox.Session) -> None:
    """All tests that fit into CI."""
    arguments = session.posargs or ["-m", "not slow and not live"]
    session.run(PYTHON, "-m", "pytest", *arguments, env=ROOMY, external=True)


@nox.session
def slow(session: nox.Session) -> None:
    """The tests that take too long for CI."""
    session.run(PYTHON, "-m", "pytest", "-m", "slow", *session.posargs, env=ROOMY, external=True)


@nox.session
def live(session: nox.Session) -> None:
    """What only a real account can show, in yours: it costs money. See docs/aws-live.md."""
    session.run(
        PYTHON,
        "-m",
        "pytest",
        "-m",
        "live",
        "tests/live",
        *session.posargs,
        env={**ROOMY, "INGOT_LIVE": "1"},
        external=True,
    )


@nox.session
def bench(session: nox.Session) -> None:
    """Ingot beside its peers, as a table; exits non-zero when a figure is missed. `-- --list` names the parts."""
    session.run(PYTHON, "-m", "bench", *session.posargs, external=True)


@nox.session
def fresh(session: nox.Session) -> None:
    """The README's two commands in clean Debian 12 and 13 roots. `-- bookworm demo` for a part."""
    session.run("sh", "scripts/fresh.sh", *session.posargs, external=True)
