"""A pytest plugin: writes one JSON line for each test's outcome to the file that REPORT names. Standard library only."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

REPORT = "INGOT_CHECK_REPORT"
"""The environment variable that names the file."""


class Reporter:
    """Gathers what the phases of a test (setup, call, teardown) said, and writes it when the test is over."""

    def __init__(self, report: Path, *, root: Path, host: str) -> None:
        self._report, self._root, self._host = report, root, host
        self._seconds: dict[str, float] = {}
        self._told: dict[str, dict[str, Any]] = {}
        self._files: dict[str, str] = {}

    def pytest_itemcollected(self, item: Any) -> None:
        # A report names its file by the folder that pytest found it in, which is not always the root.
        self._files[item.nodeid] = str(item.path.resolve())

    def pytest_runtest_logreport(self, report: Any) -> None:
        name = report.nodeid
        self._seconds[name] = self._seconds.get(name, 0.0) + report.duration
        worse = report.failed and self._told.get(name, {}).get("outcome") != "failed"
        if report.when == "call" or worse or report.skipped:
            self._told[name] = {"outcome": report.outcome, "message": _message(report)}
        if report.when == "teardown" and name in self._told:
            self._write(report, seconds=self._seconds.pop(name), **self._told.pop(name))

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self._write(report, seconds=0.0, outcome="failed", message=_message(report))

    def _write(self, report: Any, *, seconds: float, outcome: str, message: str) -> None:
        file = self._files.get(report.nodeid) or str((self._root / report.fspath).resolve())
        entry = {
            "name": short_name(report.nodeid, self._host),
            "file": file,
            "outcome": outcome,
            "seconds": round(seconds, 3),
            "message": message,
        }
        with self._report.open("a") as lines:
            lines.write(json.dumps(entry) + "\n")


def short_name(nodeid: str, host: str) -> str:
    """The test's name without the host that testinfra adds to its parameters: there is but one."""
    test, bracket, parameters = nodeid.partition("[")
    own = parameters.removesuffix("]").replace(host, "").strip("-")
    return f"{test}[{own}]" if bracket and own else test


def _message(report: Any) -> str:
    """Why a test failed, as pytest tells it: the assertion with its values; or why it was skipped."""
    if report.passed:
        return ""
    if report.skipped and isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    crash = getattr(getattr(report.longrepr, "reprcrash", None), "message", "")
    return str(crash or report.longreprtext)[:4000]


def pytest_configure(config: Any) -> None:
    """Registers the reporter where Ingot asks for it."""
    report = os.environ.get(REPORT)
    if report:
        root = Path(config.rootpath).resolve()
        reporter = Reporter(Path(report), root=root, host=config.getoption("hosts") or "")
        config.pluginmanager.register(reporter, "ingot-reporter")
