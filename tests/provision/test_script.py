"""Scripts, run on a real machine."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import psutil
import pytest

from ingot.errors import DeadlineError, ProvisionError
from ingot.model.events import Event, Output
from ingot.model.secret import Secret, placeholder
from ingot.model.step import ScriptStep
from ingot.model.units import Seconds
from ingot.ports import Machine
from ingot.provision import Provisioners
from ingot.system.waits import Flag
from tests.local_fixtures import Site
from tests.provision.conftest import read, read_folder, worker_of

SECRET = "s3cr3t-of-the-test"


def apply(step: ScriptStep, machine: Machine, root: Path) -> list[str]:
    """The lines that were heard."""
    events: list[Event] = []
    run = root / "run"
    run.mkdir(exist_ok=True)
    Provisioners(root=root, directory=run, secrets={"token": Secret(SECRET)}).apply(
        step, machine, subject="image/local/script", emit=events.append, cancel=Flag()
    )
    assert SECRET not in (run / "image-local-script.log").read_text()
    return [event.text for event in events if isinstance(event, Output)]


@pytest.mark.local
def test_a_file_runs_with_its_own_interpreter_arguments_and_environment(
    machine: Machine, tmp_path: Path
) -> None:
    (tmp_path / "tell.py").write_text(
        "#!/usr/bin/env python3\n"
        "import os, sys\n"
        "print(sys.argv[1:], os.environ['QUOTED'], os.getuid())\n"
        "open('/etc/token', 'w').write(os.environ['TOKEN'])\n"
        "print('the token is', os.environ['TOKEN'], file=sys.stderr)\n"
    )
    step = ScriptStep(
        path="tell.py",
        args=("two words", "$HOME"),
        env={"TOKEN": placeholder("token"), "QUOTED": 'it\'s `a` "test"\nof two lines'},
    )
    lines = apply(step, machine, tmp_path)
    assert sorted(lines) == [
        "['two words', '$HOME'] it's `a` \"test\"",
        "of two lines 0",
        "the token is ***",
    ]
    assert read(machine, "/etc/token") == SECRET
    for folder in ("/run", "/tmp", "/var/tmp"):
        assert "ingot." not in read_folder(machine, folder)


@pytest.mark.local
def test_text_without_an_interpreter_stops_at_the_first_error(machine: Machine, tmp_path: Path) -> None:
    with pytest.raises(ProvisionError) as caught:
        apply(ScriptStep(inline="echo first\nfalse\necho second\n"), machine, tmp_path)
    assert caught.value.message == "the inline script exited with 1: first"
    assert caught.value.facts["tail"] == ("first",)
    assert caught.value.facts["code"] == 1


@pytest.mark.local
def test_a_program_that_is_no_text_runs(machine: Machine, tmp_path: Path) -> None:
    shutil.copy("/bin/echo", tmp_path / "program")
    assert apply(ScriptStep(path="program", args=("hello",)), machine, tmp_path) == ["hello"]


@pytest.mark.local
def test_a_script_runs_where_run_and_tmp_are_noexec(machine: Machine, own_site: Site, tmp_path: Path) -> None:
    # The machine itself may not mount anything.
    inside = next(
        process.pid
        for process in psutil.Process(worker_of(machine, own_site)).children(recursive=True)
        if Path(f"/proc/{process.pid}/root/var/lib/apt/lists/none_Packages").exists()
    )
    for folder in ("/run", "/tmp"):
        remount = ["mount", "-o", "remount,noexec", folder]
        subprocess.run(["nsenter", "-t", str(inside), "-m", "-r", "-w", *remount], check=True)
    step = ScriptStep(inline="#!/bin/sh\necho from ${0%.*/*}\n")
    assert apply(step, machine, tmp_path) == ["from /var/tmp/ingot"]
    assert read_folder(machine, "/var/tmp") == ""


@pytest.mark.local
def test_a_script_that_does_not_end_is_ended(machine: Machine, tmp_path: Path) -> None:
    with pytest.raises(DeadlineError):
        apply(ScriptStep(inline="sleep 600", timeout=Seconds(0.5)), machine, tmp_path)


@pytest.mark.local
def test_a_script_that_is_not_there_is_named(machine: Machine, tmp_path: Path) -> None:
    with pytest.raises(ProvisionError, match=r"the script 'no\.sh' cannot be read: No such file"):
        apply(ScriptStep(path="no.sh"), machine, tmp_path)


@pytest.mark.local
def test_a_secret_is_not_taken_as_an_argument(machine: Machine, tmp_path: Path) -> None:
    with pytest.raises(ProvisionError, match="would get the secret 'token' as an argument"):
        apply(ScriptStep(inline="true", args=(placeholder("token"),)), machine, tmp_path)
