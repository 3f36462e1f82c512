"""The program as a process: signals, pipes, what goes to which stream."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ingot.model.units import Seconds
from ingot.system.waits import Flag, poll

from .world import DEFINITION, write_project

ROOT = Path(__file__).parent.parent.parent
ENDLESS = DEFINITION.replace("hwloc", "endless")


def argv(*words: str) -> list[str]:
    return [sys.executable, "-m", "tests.cli.world", *words]


def environment(state: Path, **more: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {
        **kept,
        "INGOT_STATE": str(state),
        "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}",
        "LC_ALL": "C.UTF-8",
        **more,
    }


def called(project: Path, state: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv(*words),
        cwd=project,
        env=environment(state),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@contextmanager
def building(project: Path, state: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A build that has come to its endless step."""
    write_project(project, ENDLESS)
    process = subprocess.Popen(
        argv("build", *words),
        cwd=project,
        env=environment(state),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    def arrived() -> bool | None:
        assert process.poll() is None, process.communicate()
        logs = state.glob("runs/*/events.jsonl")
        return True if any("doing packages endless" in log.read_text() for log in logs) else None

    try:
        poll(arrived, what="the endless step", every=Seconds(0.05), deadline=Seconds(60.0), cancel=Flag())
        yield process
    finally:
        process.kill()
        process.communicate()


def machines(state: Path) -> list[str]:
    return [path.name for path in (state / "memory" / "machines").glob("*.json")]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_the_build_after_cleanup(
    project: Path, state: Path, number: signal.Signals, code: int
) -> None:
    with building(project, state, "--json") as process:
        assert machines(state)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert machines(state) == []
    assert json.loads(out)["error"]["code"] == code
    assert "cleaning up" in err
    assert "Traceback" not in err


def test_a_run_is_listed_and_ended_from_elsewhere(project: Path, state: Path) -> None:
    with building(project, state, "--json") as process:
        (seen,) = json.loads(called(project, state, "ps", "--json").stdout)["runs"]
        assert seen["state"] == "running" and seen["plans"] == ["node/local", "big-node/local"]
        assert seen["held"] == [f"memory.machine {Path(name).stem}" for name in machines(state)]
        assert seen["id"] in called(project, state, "ps").stdout
        ended = called(project, state, "cancel", seen["id"][:-1], "--json")
        assert ended.returncode == 0 and json.loads(ended.stdout)["exit_code"] == 143
        out, _ = process.communicate(timeout=60)
    assert process.returncode == json.loads(out)["error"]["code"] == 143
    assert machines(state) == []
    assert json.loads(called(project, state, "ps", "--json").stdout) == {"runs": []}
    again = called(project, state, "cancel", seen["id"], "--json")
    assert again.returncode == 9 and "has ended already" in json.loads(again.stdout)["error"]["message"]


def test_an_interrupted_run_is_listed_with_what_it_left(project: Path, state: Path) -> None:
    with building(project, state) as process:
        process.kill()
        process.wait()
    said = called(project, state, "ps")
    assert "interrupted" in said.stdout and "memory.machine" in said.stdout and "ingot sweep" in said.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_build_is_resumed_and_repeats_the_unfinished_layer_alone(
    project: Path, state: Path, number: signal.Signals
) -> None:
    with building(project, state) as process:
        process.send_signal(number)
        process.wait(timeout=60)
    (run,) = (path.name for path in (state / "runs").iterdir())
    write_project(project, DEFINITION)
    resumed = called(project, state, "resume", run, "--json")
    assert resumed.returncode == 0, resumed.stderr
    node, big = json.loads(resumed.stdout)["outcomes"]
    assert [layer["status"] for layer in node["layers"]] == ["reused"] * 4
    assert [layer["status"] for layer in big["layers"]] == ["reused"] * 3 + ["built"] * 2
    assert machines(state) == []


def test_strays_are_found_without_any_record_of_their_run(project: Path, state: Path) -> None:
    with building(project, state) as process:
        (lost,) = machines(state)
        process.kill()
        process.wait()
    shutil.rmtree(state / "runs")
    assert json.loads(called(project, state, "sweep", "--json").stdout) == {"removed": [], "left": []}
    strays = ("sweep", "--strays", "--older-than", "0s", "--json")
    with building(project, state):
        listed = json.loads(called(project, state, *strays, "--dry-run").stdout)
        assert listed == {"removed": [], "left": [f"memory here: memory.machine {Path(lost).stem}"]}
        asked = called(project, state, *strays)
        assert asked.returncode == 9 and "--yes" in json.loads(asked.stdout)["error"]["hint"]
        assert len(machines(state)) == 2
        done = called(project, state, *strays, "--yes")
        assert done.returncode == 0 and len(json.loads(done.stdout)["removed"]) == 1
        assert lost not in machines(state) and len(machines(state)) == 1
    assert called(project, state, "sweep", "some-run", "--strays").returncode == 2


def test_a_killed_build_is_swept_by_the_next_one(project: Path, state: Path) -> None:
    with building(project, state) as process:
        process.kill()
        process.wait()
    assert machines(state)
    looked = json.loads(called(project, state, "sweep", "--dry-run", "--json").stdout)
    assert len(looked["left"]) == 1
    assert machines(state)
    write_project(project)
    done = called(project, state, "build", "--json")
    assert done.returncode == 0, done.stderr
    assert machines(state) == []
    states = json.loads(called(project, state, "logs", "--list", "--json").stdout)["runs"]
    assert [run["state"] for run in states] == ["done", "interrupted"]


def test_json_is_all_that_stdout_gets(project: Path, state: Path) -> None:
    done = called(project, state, "build", "-vv", "--json")
    assert json.loads(done.stdout)["outcomes"]
    assert "doing packages" in done.stderr
    plain = called(project, state, "build")
    assert "✓ node/local" in plain.stdout
    assert "==> node/local" in plain.stderr
    assert "\x1b" not in plain.stdout + plain.stderr


def test_nobody_to_ask_means_no(project: Path, state: Path) -> None:
    called(project, state, "build", "--var", "greeting=old")
    called(project, state, "build")
    for layer in (state / "memory" / "layers").iterdir():
        os.utime(layer, (0, 0))
    asked = called(project, state, "gc", "--older-than", "1d")
    assert asked.returncode == 9
    assert "would remove" in asked.stderr


def test_a_reader_who_goes_away_is_no_error(project: Path, state: Path) -> None:
    process = subprocess.Popen(
        argv("schema"),
        cwd=project,
        env=environment(state),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    said = process.stderr.read()
    assert process.wait(timeout=60) == 141
    assert said == ""
    process.stderr.close()


def test_a_shell_completes_verbs_and_images(project: Path, state: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ingot"],
        cwd=project,
        env=environment(state, _INGOT_COMPLETE="bash_complete", COMP_WORDS="ingot build n", COMP_CWORD="2"),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.splitlines() == ["plain,node"]


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; from ingot.cli.main import run; run(['--help']); "
        "heavy = {'pydantic', 'sqlalchemy', 'yaml', 'rich', 'ansible', 'jinja2', 'asyncio'} & sys.modules.keys(); "
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_build_with_nothing_to_do_imports_little(project: Path, state: Path) -> None:
    called(project, state, "build")
    program = (
        "import sys; from pathlib import Path; from ingot.cli.main import run; from tests.cli.world import world\n"
        f"with world(Path({str(state)!r})): code = run(['build'])\n"
        "heavy = {'rich.live', 'ansible.plugins', 'jinja2', 'mitogen', 'multiprocessing'} & sys.modules.keys()\n"
        "sys.exit(f'imported: {heavy}' if heavy else code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=project,
        env=environment(state),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
