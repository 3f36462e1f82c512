"""What runs beside Slurm."""

from collections.abc import Callable

from testinfra.host import Host

# Neither curl nor wget is on the node.
READ = "from urllib.request import urlopen; print(urlopen('http://127.0.0.1:9100/metrics').read().decode())"


def test_munge_makes_and_reads_a_credential(eventually: Callable[..., str]) -> None:
    eventually("munge --no-input --output=/tmp/credential && unmunge --input=/tmp/credential")


def test_munge_key_is_of_this_machine(host: Host) -> None:
    key = host.file("/etc/munge/munge.key")
    assert (key.user, key.group, oct(key.mode)) == ("munge", "munge", "0o400")
    machine, _, origin = host.file("/var/lib/munge/ingot-key").content_string.split()
    assert (machine, origin) == (host.file("/etc/machine-id").content_string.strip(), "made")


def test_node_exporter_answers(eventually: Callable[..., str]) -> None:
    eventually(f'python3 -c "{READ}"', lambda metrics: "\nnode_cpu_seconds_total{" in metrics)


def test_chrony_runs(host: Host, eventually: Callable[..., str]) -> None:
    """Whether it has found a server depends on the network, and is no matter of the image."""
    eventually("chronyc -n tracking", lambda report: "Stratum" in report)
    assert host.service("chrony").is_enabled
