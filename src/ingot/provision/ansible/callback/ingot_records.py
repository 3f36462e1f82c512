"""An Ansible callback that tells Ingot of each task's result, as one marked JSON line. Loaded by `launch.py` alone."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
    name: ingot_records
    type: aggregate
    short_description: tells Ingot of each task's result
    description: Writes one JSON line for each result.
"""

_TAIL = 40
_SAID = ("stderr", "stdout", "module_stderr", "module_stdout")


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Beside whatever callbacks the user has: it is an aggregate one, and prints nothing for people."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "ingot_records"

    def __init__(self, display: Any = None) -> None:
        super().__init__(display=display)
        file, self._mark = os.environ["INGOT_RECORDS"].split(" ", 1)
        self._file = int(file)
        self._started: dict[tuple[str, str], float] = {}

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        self._started[host.get_name(), task._uuid] = time.monotonic()

    def v2_runner_on_ok(self, result: Any) -> None:
        self._tell(result, "changed" if result.result.get("changed") else "ok")

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._tell(result, "ignored" if ignore_errors else "failed")

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._tell(result, "skipped")

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._tell(result, "unreachable")

    def v2_runner_retry(self, result: Any) -> None:
        self._tell(result, "retried")

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self._write({"kind": "play"})

    def v2_playbook_on_no_hosts_matched(self) -> None:
        self._write({"kind": "no-hosts"})

    def _tell(self, result: Any, outcome: str) -> None:
        task = result.task
        host = result.host.get_name()
        started = self._started.get((host, task._uuid), time.monotonic())
        if outcome == "retried":
            self._started[host, task._uuid] = time.monotonic()
        file, _, line = (task.get_path() or "").rpartition(":")
        bad = outcome in ("failed", "ignored", "unreachable", "retried")
        details = result.result
        self._write(
            {
                "kind": "task",
                "outcome": outcome,
                "task": task.name or task.action,
                "role": task._role.get_name() if task._role else "",
                "file": file,
                "line": int(line) if line.isdigit() else 0,
                "seconds": round(time.monotonic() - started, 4),
                "message": _message(details, outcome) if bad or outcome == "skipped" else "",
                "tail": _tail(details) if bad else [],
            }
        )

    def _write(self, record: dict[str, Any]) -> None:
        data = f"{self._mark}{json.dumps(record)}\n".encode()
        while data:
            data = data[os.write(self._file, data) :]


def _message(result: dict[str, Any], outcome: str) -> str:
    """The first line of what went wrong, that of the first bad item of a loop; nothing where `no_log` is set."""
    if "censored" in result:
        return "the result is hidden by no_log"
    if outcome == "skipped":
        return _first(result.get("skip_reason") or result.get("msg"))
    for item in result.get("results") or ():
        if isinstance(item, dict) and (item.get("failed") or item.get("unreachable")):
            label = item.get("_ansible_item_label", item.get("item"))
            return f"({_first(label)}) {_message(item, outcome)}"
    said = next((text for name in _SAID if (text := _last(result.get(name)))), "")
    message = _first(result.get("msg"))
    if result.get("rc") and message in ("", "non-zero return code"):
        message = f"exited with {result['rc']}"
        return f"{message}: {said}" if said else message
    return message or said or "failed without a word"


def _first(text: object) -> str:
    return next((line.strip() for line in str(text or "").splitlines() if line.strip()), "")


def _last(text: object) -> str:
    return next((line.strip() for line in reversed(str(text or "").splitlines()) if line.strip()), "")


def _tail(result: dict[str, Any]) -> list[str]:
    if "censored" in result:
        return []
    items = [item for item in result.get("results") or () if isinstance(item, dict) and item.get("failed")]
    texts = [
        str(part.get(name) or "")
        for part in (items[:1] or [result])
        for name in ("stdout", "module_stdout", "msg", "stderr", "module_stderr", "exception")
    ]
    return [line for text in texts for line in text.splitlines()][-_TAIL:]
