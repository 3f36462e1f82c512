"""Breaks each service of the node in turn, and sees that the example's own check fails, and passes once mended.

It is put beside the example's checks as `test_zz_broken.py`, so it runs after them, on the same machine.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from testinfra.host import Host

LEAST, MOST = 5.0, 90.0
"""Seconds that a check is given."""
KEY = "/etc/munge/munge.key"

CASES = {
    "test_slurm.test_node_is_idle": ("systemctl stop slurmctld", "systemctl start slurmctld"),
    "test_slurm.test_two_tasks_run": ("systemctl stop slurmd", "systemctl start slurmd"),
    "test_slurm.test_tasks_are_held_to_their_cores": (
        "sed -i.whole /^TaskPlugin/d /run/ingot/slurm-node.conf && systemctl restart slurmctld slurmd",
        "mv /run/ingot/slurm-node.conf.whole /run/ingot/slurm-node.conf && systemctl restart slurmctld slurmd",
    ),
    "test_services.test_munge_makes_and_reads_a_credential": (
        f"mv {KEY} {KEY}.whole && (systemctl restart munge.service; systemctl stop munge.service)",
        f"mv {KEY}.whole {KEY} && systemctl reset-failed && systemctl start munge.service",
    ),
    "test_services.test_munge_key_is_of_this_machine": (
        "sed -i.whole s/made/given/ /var/lib/munge/ingot-key",
        "mv /var/lib/munge/ingot-key.whole /var/lib/munge/ingot-key",
    ),
    "test_services.test_node_exporter_answers": (
        "systemctl stop prometheus-node-exporter",
        "systemctl start prometheus-node-exporter",
    ),
    "test_services.test_chrony_runs": ("systemctl stop chrony", "systemctl start chrony"),
}


def load(name: str) -> ModuleType:
    path = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"example_{name}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def looker(host: Host, patience: float) -> Callable[..., str]:
    """The example's `eventually`, with a deadline of our own."""

    def run(command: str, accept: Callable[[str], bool] = lambda _: True) -> str:
        end = time.monotonic() + patience
        while True:
            result = host.run(f"timeout {patience:.0f} sh -c %s", command)
            if result.succeeded and accept(result.stdout):
                return str(result.stdout)
            assert time.monotonic() < end, f"{command}: {result.stdout}{result.stderr}"
            time.sleep(0.5)

    return run


def apply(host: Host, check: str, patience: float) -> None:
    module, name = check.split(".")
    function = getattr(load(module), name)
    given = {"host": host, "eventually": looker(host, patience)}
    wanted = function.__code__.co_varnames[: function.__code__.co_argcount]
    function(**{argument: given[argument] for argument in wanted})


@pytest.mark.parametrize("check", CASES)
def test_check_fails_when_its_service_is_broken(host: Host, check: str) -> None:
    """It passes, fails within a multiple of the time that passing took, and passes again."""
    spoil, mend = CASES[check]
    start = time.monotonic()
    apply(host, check, MOST)
    patience = max(LEAST, 3 * (time.monotonic() - start))
    host.run(spoil)
    try:
        with pytest.raises(AssertionError):
            apply(host, check, patience)
    finally:
        host.check_output(mend)
    apply(host, check, MOST)


def test_every_check_has_its_case() -> None:
    """But those of MPI, whose broken compiler is the case below."""
    there = {
        f"{path.stem}.{name}"
        for path in Path(__file__).parent.glob("test_*.py")
        if path != Path(__file__)
        for name in vars(load(path.stem))
        if name.startswith("test_")
    }
    assert there - {"test_mpi.test_program_runs_over_two_ranks"} == set(CASES)


def test_mpi_program_fails_without_its_library(host: Host) -> None:
    """The program that the check compiled no longer runs when Open MPI's runtime is away."""
    library = host.check_output("ldconfig -p | sed -n 's/.*libmpi\\.so\\.[0-9]* .*=> //p' | head -n 1")
    program = "/home/checker/ranks"
    run = f"cd /home/checker && runuser -u checker -- timeout 60 srun --ntasks=2 {program}"
    assert host.run(run).succeeded
    host.check_output(f"chmod 0 {library}")
    assert not host.run(run).succeeded
    host.check_output(f"chmod 644 {library}")


def test_munge_key_of_another_machine_is_replaced_and_a_given_one_kept(host: Host) -> None:
    note, see_to_it = "/var/lib/munge/ingot-key", "/usr/local/sbin/ingot-munge-key"
    read = f"sha256sum {KEY}"
    made = host.check_output(read)
    host.check_output(see_to_it)
    assert host.check_output(read) == made
    # The note says `other machine, this key, made`: the disk is a copy.
    host.check_output(f"sed -i 's/^[0-9a-f]* /0 /' {note} && {see_to_it}")
    assert host.check_output(read) != made
    # A key that somebody else wrote.
    host.check_output(f"head -c 1024 /dev/urandom >{KEY} && chmod 644 {KEY}")
    given = host.check_output(read)
    host.check_output(f"sed -i 's/^[0-9a-f]* /0 /' {note} && {see_to_it} && {see_to_it}")
    assert host.check_output(read) == given
    assert host.file(KEY).user == "munge" and host.file(KEY).mode == 0o400
    host.check_output("systemctl restart munge.service")
