"""A bed for tests: `aws_bed` is one bed for the whole session; `bed` is the same one, with nothing left from other tests."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from ingot.model.units import Seconds
from ingot.system import process
from ingot.system.waits import Flag, poll
from tests.aws_bed import state

ROOT = Path(__file__).parent.parent.parent
_PATIENCE = Seconds(120.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class AwsBed:
    """A running bed."""

    url: str
    process: subprocess.Popen[bytes]

    def client(
        self, service: Any, *, region: str = state.REGION, other: bool = False, retries: int = 0
    ) -> Any:
        """A client of boto3's for the first account, or the other one. `retries`: what boto3 itself tries again."""
        key = list(state.KEYS)[1 if other else 0]
        config = Config(
            retries={"total_max_attempts": retries + 1, "mode": "standard"}, max_pool_connections=64
        )
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name=region,
            aws_access_key_id=key,
            aws_secret_access_key="bed",
            config=config,
        )

    def environment(self, *, other: bool = False) -> dict[str, str]:
        """The variables with which any AWS tool uses the bed."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": list(state.KEYS)[1 if other else 0],
            "AWS_SECRET_ACCESS_KEY": "bed",
            "AWS_DEFAULT_REGION": state.REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @contextmanager
    def trouble(self, **wish: Any) -> Iterator[None]:
        """Trouble while it lasts: see `trouble.Wish`."""
        self._post("trouble", wish)
        try:
            yield
        finally:
            self._post("trouble", {})

    def calls(self, *, reset: bool = False) -> list[dict[str, Any]]:
        """The calls made since the last reset."""
        found: list[dict[str, Any]] = self._get("calls?reset=1" if reset else "calls")
        return found

    def left(self) -> dict[str, list[str]]:
        """What exists, by kind; kinds of which there is nothing are left out."""
        return {kind: names for kind, names in self._get("left").items() if names}

    def clear(self) -> None:
        """Removes the first account's images and snapshots, in both regions that tests use."""
        for region in (state.REGION, "us-west-2"):
            ec2 = self.client("ec2", region=region)
            for image in ec2.describe_images(Owners=["self"])["Images"]:
                with contextlib.suppress(ClientError):
                    ec2.disable_image_deregistration_protection(ImageId=image["ImageId"])
                with contextlib.suppress(ClientError):
                    ec2.deregister_image(ImageId=image["ImageId"])
            for snapshot in ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]:
                with contextlib.suppress(ClientError):
                    ec2.delete_snapshot(SnapshotId=snapshot["SnapshotId"])

    def _get(self, name: str) -> Any:
        with urllib.request.urlopen(f"{self.url}/bed/{name}", timeout=30) as answer:
            return json.load(answer)

    def _post(self, name: str, about: Mapping[str, Any]) -> None:
        request = urllib.request.Request(f"{self.url}/bed/{name}", data=json.dumps(about).encode())
        urllib.request.urlopen(request, timeout=30).close()

    def source(self, *, architecture: str = "x86_64", region: str = state.REGION) -> str:
        """The id of the newest stand-in image of Debian 12."""
        found = self.client("ec2", region=region).describe_images(
            Owners=[state.DEBIAN],
            Filters=[
                {"Name": "name", "Values": ["debian-12-*"]},
                {"Name": "architecture", "Values": [architecture]},
            ],
        )["Images"]
        return str(max(found, key=lambda image: image["CreationDate"])["ImageId"])

    def instance(self, name: str) -> dict[str, Any]:
        """An instance as DescribeInstances tells of it."""
        about = self.client("ec2").describe_instances(InstanceIds=[name])
        found: dict[str, Any] = about["Reservations"][0]["Instances"][0]
        return found

    def await_state(self, name: str, wanted: str) -> dict[str, Any]:
        """The instance, once it is in the state."""

        def probe() -> dict[str, Any] | None:
            about = self.instance(name)
            return about if about["State"]["Name"] == wanted else None

        return poll(probe, what=f"{name} {wanted}", every=Seconds(0.05), deadline=_PATIENCE, cancel=Flag())

    def await_snapshot(self, name: str, wanted: Literal["completed", "error"] = "completed") -> None:
        """Returns once the snapshot is in the state."""
        ec2 = self.client("ec2")

        def probe() -> bool | None:
            found = ec2.describe_snapshots(SnapshotIds=[name])["Snapshots"][0]
            return found["State"] == wanted or None

        poll(probe, what=f"{name} {wanted}", every=Seconds(0.05), deadline=_PATIENCE, cancel=Flag())

    def await_image(self, name: str, wanted: str = "available", region: str = state.REGION) -> dict[str, Any]:
        """The image, once it is in the state."""
        ec2 = self.client("ec2", region=region)

        def probe() -> dict[str, Any] | None:
            found: dict[str, Any] = ec2.describe_images(ImageIds=[name])["Images"][0]
            return found if found["State"] == wanted else None

        return poll(probe, what=f"{name} {wanted}", every=Seconds(0.05), deadline=_PATIENCE, cancel=Flag())


def log_in(address: str, key: Path, script: str, *, user: str = "admin") -> str:
    """What a shell script prints on a machine, once somebody can log in there."""
    options = {"StrictHostKeyChecking": "no", "UserKnownHostsFile": "/dev/null", "ConnectTimeout": "5"}
    words = ["ssh", "-F", "none", "-q", "-i", str(key), "-o", "BatchMode=yes"]
    words += [word for name, value in options.items() for word in ("-o", f"{name}={value}")]

    def probe() -> str | None:
        done = process.run(
            [*words, f"{user}@{address}", "sh", "-s"], timeout=_PATIENCE, input=script.encode(), check=False
        )
        if done.code not in (0, 255):
            raise AssertionError("\n".join(done.tail))
        return done.stdout if done.code == 0 else None

    return poll(probe, what=f"a login at {address}", every=Seconds(0.05), deadline=_PATIENCE, cancel=Flag())


@contextmanager
def running(folder: Path, *words: str) -> Iterator[AwsBed]:
    """A bed with its disks in a folder, ended with all that it has started; also if this process is killed."""
    argv = [sys.executable, "-m", "tests.aws_bed", "--state", str(folder), *words]
    path = f"{ROOT / 'src'}:{ROOT}"
    env = {**os.environ, "PYTHONPATH": path}
    with (folder / "bed.log").open("wb") as log:
        bed = process.spawn(argv, env=env, cwd=ROOT, stdout=subprocess.PIPE, stderr=log)
    assert bed.stdout
    try:
        first = bed.stdout.readline().decode()
        assert first.startswith("export AWS_ENDPOINT_URL="), (folder / "bed.log").read_text()
        yield AwsBed(url=first.strip().partition("=")[2], process=bed)
    finally:
        process.end(bed)


@pytest.fixture(scope="session")
def aws_bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AwsBed]:
    """The session's bed, on the fast profile."""
    with running(tmp_path_factory.mktemp("aws-bed")) as bed:
        yield bed


@pytest.fixture
def bed(aws_bed: AwsBed) -> Iterator[AwsBed]:
    """The session's bed, with no calls noted and no trouble. Images and snapshots go after each test: they are disks."""
    aws_bed._post("trouble", {})
    aws_bed.calls(reset=True)
    yield aws_bed
    aws_bed._post("trouble", {})
    aws_bed.clear()


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyPair:
    """A key pair of the account's, and the private key's file."""

    name: str
    file: Path


@pytest.fixture
def key_pair(aws_bed: AwsBed, tmp_path: Path) -> Iterator[KeyPair]:
    """A key pair for the machines of one test."""
    ec2 = aws_bed.client("ec2")
    name = f"test-{time.monotonic_ns()}"
    file = tmp_path / "key"
    file.touch(mode=0o600)
    file.write_text(ec2.create_key_pair(KeyName=name, KeyType="ed25519")["KeyMaterial"])
    try:
        yield KeyPair(name=name, file=file)
    finally:
        with contextlib.suppress(Exception):
            ec2.delete_key_pair(KeyName=name)
