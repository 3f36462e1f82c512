"""An MPI program is compiled on the node and runs over two ranks, by srun and by mpirun."""

from collections.abc import Callable

import pytest
from testinfra.host import Host

PROGRAM = r"""
#include <mpi.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    int rank, size, sum;

    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    rank += 1;
    MPI_Allreduce(&rank, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    printf("rank %d of %d: sum %d\n", rank, size, sum);
    MPI_Finalize();
    return 0;
}
"""
RANKS = ["rank 1 of 2: sum 3", "rank 2 of 2: sum 3"]


@pytest.fixture(scope="module")
def program(host: Host, user: str) -> str:
    """The path of the compiled program."""
    path = f"/home/{user}/ranks"
    host.check_output(f"printf %s %s >{path}.c", "%s", PROGRAM)
    host.check_output("runuser -u %s -- mpicc -o %s %s.c", user, path, path)
    return path


@pytest.mark.parametrize("launcher", ["srun --ntasks=2", "salloc --quiet --ntasks=2 mpirun"])
def test_program_runs_over_two_ranks(
    eventually: Callable[..., str], user: str, program: str, launcher: str
) -> None:
    output = eventually(f"cd /home/{user} && runuser -u {user} -- timeout 80 {launcher} {program}")
    assert sorted(output.splitlines()) == RANKS
