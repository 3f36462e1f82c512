"""Slurm is up, and runs jobs on its one node."""

from collections.abc import Callable

from testinfra.host import Host


def test_node_is_idle(eventually: Callable[..., str]) -> None:
    eventually("timeout 20 sinfo --noheader --format=%T", lambda states: states.split() == ["idle"])


def test_two_tasks_run(host: Host, eventually: Callable[..., str]) -> None:
    name = host.check_output("hostname")
    assert eventually("timeout 60 srun --ntasks=2 hostname").split() == [name, name]


def test_tasks_are_held_to_their_cores(host: Host, eventually: Callable[..., str]) -> None:
    """A task that asked for one core sees one, whatever the machine has."""
    eventually("timeout 60 srun --ntasks=1 --hint=nomultithread nproc", lambda cores: cores.split() == ["1"])
