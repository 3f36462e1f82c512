"""The user's own checks: pytest-testinfra files, run unchanged by pytest in a process of its own, over SSH."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ingot.errors import DeadlineError
from ingot.lifecycle import testinfra_plugin
from ingot.model.image import CheckResult
from ingot.model.units import Seconds, format_seconds
from ingot.ports import Cancel, Machine
from ingot.system import process

_SECTIONS = {
    "pytest.ini": "",
    ".pytest.ini": "",
    "pyproject.toml": "[tool.pytest",
    "tox.ini": "[pytest]",
    "setup.cfg": "[tool:pytest]",
}


def run(
    paths: Sequence[Path],
    machine: Machine,
    *,
    root: Path,
    directory: Path,
    timeout: Seconds,
    cancel: Cancel,
) -> Iterator[CheckResult]:
    """A result for each test, as pytest names it; a failed one for each path without tests. Nothing is left in `root`.

    pytest runs in `root`, with the configuration that lies there, if one does; its output goes to `pytest.log`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    report, log = directory / "pytest.jsonl", directory / "pytest.log"
    report.unlink(missing_ok=True)
    missing = [path for path in paths if not path.exists()]
    present = [path for path in paths if path.exists()]
    yield from (_failed(_relative(path, root), "there is no such file or folder") for path in missing)
    if not present:
        return
    try:
        done = process.run(
            pytest_argv(present, machine, root=root, directory=directory),
            timeout=timeout,
            cancel=cancel,
            cwd=root,
            env=_environment(report),
            log=log,
            check=False,
        )
        ended, tail = done.code, done.tail
    except DeadlineError:
        ended, tail = -1, (f"it was ended after {format_seconds(timeout)}",)
    entries = read_report(report)
    yield from results(entries, present, root=root, code=ended, tail=tail, log=log)


def pytest_argv(paths: Sequence[Path], machine: Machine, *, root: Path, directory: Path) -> list[str]:
    """The command line of pytest. Settings of a folder above the project are none of these tests' business."""
    return [
        sys.executable,
        "-m",
        "pytest",
        f"--rootdir={root}",
        f"--config-file={_config(root, directory)}",
        f"--hosts=ssh://{machine.ssh.host}",
        f"--ssh-config={machine.ssh.config}",
        "-p",
        "no:cacheprovider",
        "-p",
        testinfra_plugin.__name__,
        "-v",
        *(str(path) for path in paths),
    ]


def _config(root: Path, directory: Path) -> Path:
    for name, section in _SECTIONS.items():
        path = root / name
        if path.is_file() and section in path.read_text(errors="replace"):
            return path
    empty = directory / "pytest.ini"
    empty.write_text("[pytest]\n")
    return empty


def _environment(report: Path) -> dict[str, str]:
    """The caller's own environment: tests may read it, as they do when their author runs them."""
    own = {testinfra_plugin.REPORT: str(report), "PYTHONDONTWRITEBYTECODE": "1"}
    return process.environment({**os.environ, **own})


def read_report(path: Path) -> tuple[Mapping[str, Any], ...]:
    """What the plugin wrote; () where pytest did not come so far."""
    if not path.exists():
        return ()
    return tuple(json.loads(line) for line in path.read_text().splitlines())


def results(
    entries: Sequence[Mapping[str, Any]],
    paths: Sequence[Path],
    *,
    root: Path,
    code: int,
    tail: Sequence[str],
    log: Path,
) -> Iterator[CheckResult]:
    """What pytest's run amounts to. It passes only where every path had a test and pytest came to its end."""
    for entry in entries:
        yield CheckResult(
            name=entry["name"],
            outcome=entry["outcome"],
            seconds=Seconds(entry["seconds"]),
            message=entry["message"],
        )
    files = {Path(entry["file"]) for entry in entries}
    for path in paths:
        if not any(file == path.resolve() or path.resolve() in file.parents for file in files):
            yield _failed(_relative(path, root), f"no test was found in it; pytest's output is in {log}")
    told = any(entry["outcome"] == "failed" for entry in entries)
    # 0: all passed; 1: some failed; 5: no tests, which was told above.
    if code not in (0, 5) and not (code == 1 and told):
        said = next((line.strip() for line in reversed(tail) if line.strip()), "it said nothing")
        yield _failed("pytest", f"pytest did not come to its end: {said}; its output is in {log}")


def _failed(name: str, message: str) -> CheckResult:
    return CheckResult(name=name, outcome="failed", seconds=Seconds(0.0), message=message)


def _relative(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
