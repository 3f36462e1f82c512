from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from ingot.api.outcomes import exit_code
from ingot.backends.memory.backend import MemoryBackend
from ingot.cli.render import errors
from ingot.cli.render.line import draw
from ingot.errors import BackendError, CancelledError, DeadlineError, IngotError, ProvisionError
from ingot.forensics.report import Examiner
from ingot.model.events import ignore
from ingot.model.forensics import Disk, Evidence, Port
from ingot.model.secret import Secret, scrubber
from ingot.model.units import Bytes, Seconds

MASKED = Evidence(
    kind="vm",
    console="Welcome to Debian\nnode login: ",
    idle=Seconds(100.0),
    port=Port(state="closed"),
    disk=Disk(size=Bytes(2**32), free=Bytes(2**31), files_free=-1, units={"ssh.service": "masked"}),
    journal="[ 1.0] node cloud-init[3]: hunter2-hunter2\n",
)


@dataclass(frozen=True, kw_only=True)
class Hosts(MemoryBackend):
    """A cloud of which something can be seen."""

    shown: Evidence | IngotError | None = None

    def examine(self, ref: str) -> Evidence | None:  # type: ignore[override]
        if isinstance(self.shown, IngotError):
            raise self.shown
        return self.shown


def examiner(tmp_path: Path, shown: Evidence | IngotError | None) -> Examiner:
    hosts = Hosts(root=tmp_path / "memory", shown=shown)
    scrub = scrubber({"password": Secret("hunter2-hunter2")})
    return Examiner(hosts=hosts, directory=tmp_path / "run", image="node", scrub=scrub, emit=ignore)


@pytest.mark.parametrize(
    "error", [BackendError("no"), DeadlineError("late"), ProvisionError("failed", task="Install")]
)
def test_the_cause_takes_the_words_and_leaves_the_exit_code(tmp_path: Path, error: IngotError) -> None:
    error.add_note("a note")
    error.facts["console"] = "/gone/console"
    told = examiner(tmp_path, MASKED).explain(error, "m-1")
    assert type(told) is type(error) and exit_code(told) == exit_code(error)
    assert (
        told.message == "the virtual machine did not come up: no SSH server runs on it: ssh.service is masked"
    )
    assert told.facts["bundle"] == str(tmp_path / "run/forensics/m-1") and told.facts["cause"] == "no-sshd"
    assert told.__notes__ == ["a note"] and "console" not in told.facts
    assert told.facts.get("task") == error.facts.get("task")
    assert "hunter2" not in (tmp_path / "run/forensics/m-1/journal.log").read_text()


def test_it_is_told_in_one_sentence_with_the_bundle_and_what_to_try(tmp_path: Path) -> None:
    told = examiner(tmp_path, MASKED).explain(BackendError("no"), "m-1")
    shown = draw(errors.lines(told, read=lambda file, line: None), colour=False)
    assert shown.splitlines() == [
        "error: the virtual machine did not come up: no SSH server runs on it: ssh.service is masked",
        f"  bundle   {tmp_path}/run/forensics/m-1",
        "hint: `systemctl unmask ssh.service` in a step brings it; "
        "`ingot shell node -- systemctl is-enabled ssh.service` shows how it is now",
    ]


@pytest.mark.parametrize("shown", [None, BackendError("cannot look")])
def test_of_which_nothing_is_seen_the_error_stays(tmp_path: Path, shown: IngotError | None) -> None:
    error = BackendError("no")
    assert examiner(tmp_path, shown).explain(error, "m-1") is error
    assert not (tmp_path / "run").exists()


def test_what_failed_on_a_machine_that_is_slow_failed_by_itself(tmp_path: Path) -> None:
    error = ProvisionError("the script failed")
    slow = Evidence(kind="vm", console="Welcome to Debian\n", port=Port(state="greeted", login="failed"))
    assert examiner(tmp_path, slow).explain(error, "m-1", lost=True) is error
    told = examiner(tmp_path, slow).explain(error, "m-1")
    assert told.facts["cause"] == "slow"


def test_an_interruption_is_not_explained(tmp_path: Path) -> None:
    error = CancelledError("stopped on request", signal=2)
    assert examiner(tmp_path, MASKED).explain(error, "m-1") is error


def test_a_disk_too_full_for_the_bundle_does_not_hide_the_error(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("no folder can be made here")
    told = examiner(tmp_path, MASKED).explain(BackendError("no"), "m-1")
    assert "ssh.service is masked" in told.message and "bundle" not in told.facts
