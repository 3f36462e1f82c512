"""A real dask-cloudprovider starts its cluster from an AMI that was built here, by the call that `export` prints."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ingot.api import Workspace, begin
from ingot.model.step import ContainersStep
from ingot.model.units import Seconds
from ingot.system import process
from ingot.system.waits import Flag, poll
from tests.aws_bed.fixture import AwsBed
from tests.local_fixtures import cached_base
from tests.registry import make_image, serving

__all__ = ["cached_base"]
pytestmark = [pytest.mark.local, pytest.mark.network, pytest.mark.slow]

DATA = Path(__file__).parent / "data" / "dask"
UV = Path(sys.executable).parent / "uv"
REQUIRED = DATA / "requirements.txt"
_PATIENCE = Seconds(600.0)
DEFINITION = """\
name: acme
targets:
  aws:
    backend: aws
    region: us-east-1
    instance_type: c7i.large
    user: admin
    security_groups: [{group}]

bases:
  debian-12:
    aws: {{owners: ["136693071363"], name: "debian-12-amd64-*"}}
images:
  dask:
    base: debian-12
    steps:
      - files:
          - {{src: site, dest: /opt/dask/site}}
          - {{src: docker, dest: /usr/bin/docker, mode: "0755"}}
          - dest: /etc/systemd/system/docker.service
            text: |
              [Service]
              Type=oneshot
              ExecStart=/bin/true
      - script: {{inline: "mkdir -p /opt/dask/bin && ln -s /usr/bin/python3 /opt/dask/bin/python"}}
      - containers: {{images: ["{container}"], with: docker}}
"""


def environment() -> dict[str, str]:
    """That of this process; uv trusts whom the system trusts, as in the Makefile."""
    return {**os.environ, "UV_SYSTEM_CERTS": "1"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a scheduler needs, for the Python 3.11 of Debian 12."""
    folder = tmp_path_factory.mktemp("dask") / "site"
    words = [
        "--python-version",
        "3.11",
        "--python-platform",
        "x86_64-manylinux_2_28",
        "--only-binary",
        ":all:",
    ]
    argv = [
        str(UV),
        "pip",
        "install",
        "--quiet",
        "--target",
        str(folder),
        *words,
        "-c",
        str(REQUIRED),
        "distributed",
    ]
    process.run(argv, env=environment(), timeout=_PATIENCE)
    shutil.rmtree(folder / "tornado" / "test")  # it has a private key, with which nothing becomes an image
    return folder


@pytest.fixture
def workspace(
    tmp_path: Path, site: Path, bed: AwsBed, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Workspace]:
    for name, value in bed.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_POLL_DELAY_SECONDS", "0.2")
    folder = tmp_path / "project"
    shutil.copytree(site, folder / "site")
    shutil.copyfile(DATA / "docker", folder / "docker")
    make_image(tmp_path / "registry", "daskdev/dask", "2026.8.0", files={"hello": "hi\n"})
    group = bed.client("ec2").create_security_group(GroupName="dask", Description="of a dask cluster")[
        "GroupId"
    ]
    with serving(tmp_path / "registry") as (host, _):
        text = DEFINITION.format(group=group, container=f"{host}/daskdev/dask:2026.8.0")
        (folder / "ingot.yaml").write_text(text)
        yield Workspace.open(folder, state=tmp_path / "state")
    bed.client("ec2").delete_security_group(GroupId=group)
    left = bed.left()
    assert not {*left} - {"images", "snapshots"}, left


def python(*words: str) -> list[str]:
    """The command that runs one of the programs in DATA where dask-cloudprovider is installed."""
    argv = [str(UV), "run", "--quiet", "--no-project", "--python", sys.executable]
    return [*argv, "--with-requirements", str(REQUIRED), "python", str(DATA / words[0]), *words[1:]]


def instances(bed: AwsBed, image: str) -> list[dict[str, Any]]:
    """Those launched of an AMI, those that have ended too."""
    found = bed.client("ec2").describe_instances(Filters=[{"Name": "image-id", "Values": [image]}])
    return [one for reservation in found["Reservations"] for one in reservation["Instances"]]


def test_a_cluster_starts_from_the_image(workspace: Workspace, bed: AwsBed, tmp_path: Path) -> None:
    (outcome,) = workspace.build().outcomes
    assert outcome.error is None, json.dumps(outcome.error)
    call = tmp_path / "cluster.py"
    usage = workspace.usage("dask", form="dask", output=call)
    assert f'ami="{outcome.ref}"' in call.read_text() and usage.path == call
    log = tmp_path / "client.log"
    done = process.run(
        python("use.py", str(call)), env=environment(), timeout=_PATIENCE, log=log, check=False
    )
    assert done.code == 0, log.read_text()
    told = json.loads(done.stdout.splitlines()[-1])  # above it the cluster tells what it does
    assert told["sum"] == sum(range(1000))
    assert len({told["scheduler"], told["worker"], told["here"]}) == 3, "each is a machine of its own"
    assert len(told["workers"]) == 1
    used = instances(bed, outcome.ref)
    assert len(used) == 2
    for one in used:
        bed.await_state(one["InstanceId"], "terminated")


def test_without_the_image_there_is_no_docker(workspace: Workspace, bed: AwsBed, tmp_path: Path) -> None:
    """The control: the same call with the source AMI."""
    source = bed.source()
    before = {one["InstanceId"] for one in instances(bed, source)}  # Ingot builds on such ones
    call = tmp_path / "cluster.py"
    text = f'cluster = EC2Cluster(region="us-east-1", ami="{source}", bootstrap=False, security_groups=["{_group(bed)}"])\n'
    call.write_text(f"from dask_cloudprovider.aws import EC2Cluster\n{text}")
    client = process.spawn(
        python("use.py", str(call)), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )

    def ended() -> dict[str, Any] | None:
        assert client.poll() is None, "it waits for a scheduler that never comes"
        fresh = [one for one in instances(bed, source) if one["InstanceId"] not in before]
        return next((one for one in fresh if one["State"]["Name"] == "terminated"), None)

    try:
        gone = poll(ended, what="the instance to end", every=Seconds(0.2), deadline=_PATIENCE, cancel=Flag())
    finally:
        process.end(client)
    console = bed.client("ec2").get_console_output(InstanceId=gone["InstanceId"])["Output"]
    assert "docker: not found" in console, console


def _group(bed: AwsBed) -> str:
    found = bed.client("ec2").describe_security_groups(GroupNames=["dask"])["SecurityGroups"]
    return str(found[0]["GroupId"])


@pytest.mark.parametrize(
    ("arguments", "kinds"),
    [
        ({"docker_image": "daskdev/dask:2026.8.0"}, ["packages", "files", "containers"]),
        ({"bootstrap": False}, ["packages", "containers"]),
        (
            {"instance_type": "p3.2xlarge", "extra_bootstrap": ["echo more"], "env_vars": {"A": "b c"}},
            ["packages", "files", "script", "containers"],
        ),
    ],
)
def test_its_user_data_becomes_a_definition(
    tmp_path: Path, arguments: dict[str, Any], kinds: list[str]
) -> None:
    done = process.run(python("cloud_init.py", json.dumps(arguments)), env=environment(), timeout=_PATIENCE)
    begin(tmp_path, name="dask", cloud_init=done.stdout)
    workspace = Workspace.open(tmp_path, state=tmp_path / "state")
    assert workspace.validate()
    steps = workspace.definition.images["dask"].steps
    assert [step.kind for step in steps] == kinds
    containers = steps[-1]
    assert isinstance(containers, ContainersStep)
    wanted = arguments.get("docker_image", "daskdev/dask:latest")
    assert (containers.images, containers.tool) == ((f"docker.io/{wanted}",), "docker")
