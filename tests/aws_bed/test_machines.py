"""The machines are real: what is written there is there later, and an instance's state is its machine's."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from ingot.model.units import Seconds
from ingot.system import process
from ingot.system.waits import Flag, poll
from tests.aws_bed import state
from tests.aws_bed.fixture import (
    ROOT,
    AwsBed,
    KeyPair,
    log_in,
    running,
)

pytestmark = pytest.mark.local


@contextmanager
def launched(bed: AwsBed, key_pair: KeyPair, image: str = "", **more: Any) -> Iterator[str]:
    """A running instance, terminated at the end."""
    ec2 = bed.client("ec2")
    about = ec2.run_instances(
        ImageId=image or bed.source(),
        InstanceType="t3.micro",
        MinCount=1,
        MaxCount=1,
        KeyName=key_pair.name,
        **more,
    )
    name = about["Instances"][0]["InstanceId"]
    assert about["Instances"][0]["State"]["Name"] == "pending"
    try:
        bed.await_state(name, "running")
        yield name
    finally:
        ec2.terminate_instances(InstanceIds=[name])
        bed.await_state(name, "terminated")


def do(bed: AwsBed, name: str, key_pair: KeyPair, script: str) -> str:
    return log_in(bed.instance(name)["PublicIpAddress"], key_pair.file, script)


def root_volume(bed: AwsBed, name: str) -> str:
    return str(bed.instance(name)["BlockDeviceMappings"][0]["Ebs"]["VolumeId"])


def register(bed: AwsBed, snapshot: str, name: str, **more: Any) -> str:
    about = bed.client("ec2").register_image(
        Name=name,
        Architecture="x86_64",
        VirtualizationType="hvm",
        RootDeviceName="/dev/xvda",
        EnaSupport=True,
        BlockDeviceMappings=[
            {"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": snapshot, "VolumeType": "gp3"}}
        ],
        **more,
    )
    bed.await_image(about["ImageId"])
    return str(about["ImageId"])


def test_what_is_written_is_in_the_image(bed: AwsBed, key_pair: KeyPair) -> None:
    ec2 = bed.client("ec2")
    with launched(bed, key_pair) as name:
        said = do(
            bed,
            name,
            key_pair,
            "sudo sh -c 'echo first > /made'; id -un; sudo id -un; cat /proc/1/comm; getent hosts $(uname -n)",
        )
        assert said.split()[:3] == ["admin", "root", "systemd"]
        private = bed.instance(name)["PrivateDnsName"].partition(".")[0]
        assert said.split()[3:] == ["127.0.1.1", private]
        running_one = ec2.create_snapshot(VolumeId=root_volume(bed, name))
        assert running_one["State"] == "pending"
        do(bed, name, key_pair, "sudo sh -c 'echo second > /made'")
        ec2.stop_instances(InstanceIds=[name])
        assert "PublicIpAddress" not in bed.await_state(name, "stopped")
        stopped_one = ec2.create_snapshot(VolumeId=root_volume(bed, name))
    for snapshot, text in ((running_one, "first"), (stopped_one, "second")):
        bed.await_snapshot(snapshot["SnapshotId"])
        image = register(bed, snapshot["SnapshotId"], f"made-{text}")
        with launched(bed, key_pair, image) as name:
            assert do(bed, name, key_pair, "cat /made").split() == [text]
        ec2.deregister_image(ImageId=image, DeleteAssociatedSnapshots=True)
    assert bed.left() == {"key_pairs": [key_pair.name]}


def test_the_source_has_nothing_of_what_was_written(bed: AwsBed, key_pair: KeyPair) -> None:
    with launched(bed, key_pair) as name:
        do(bed, name, key_pair, "sudo touch /made")
    with launched(bed, key_pair) as name:
        assert do(bed, name, key_pair, "test -e /made || echo nothing").split() == ["nothing"]


def test_create_image_takes_the_disk_around_a_reboot(bed: AwsBed, key_pair: KeyPair) -> None:
    ec2 = bed.client("ec2")
    with launched(bed, key_pair) as name:
        before = do(
            bed,
            name,
            key_pair,
            "sudo sh -c 'echo made > /made'; cat /proc/sys/kernel/random/boot_id; stat -c %Y /proc/1",
        )
        tags = [{"ResourceType": "snapshot", "Tags": [{"Key": "of", "Value": "test"}]}]
        image = ec2.create_image(InstanceId=name, Name="created", TagSpecifications=tags)["ImageId"]
        after = do(bed, name, key_pair, "cat /proc/sys/kernel/random/boot_id; stat -c %Y /proc/1")
        assert before.split()[-1] != after.split()[-1]
    about = bed.await_image(image)
    snapshot = about["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    assert ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0]["Tags"] == [
        {"Key": "of", "Value": "test"}
    ]
    with launched(bed, key_pair, image) as name:
        assert do(bed, name, key_pair, "cat /made").split() == ["made"]
    ec2.deregister_image(ImageId=image, DeleteAssociatedSnapshots=True)


@pytest.mark.parametrize("inside", [False, True], ids=["by-the-api", "inside"])
def test_a_reboot_keeps_disk_and_address(bed: AwsBed, key_pair: KeyPair, inside: bool) -> None:
    with launched(bed, key_pair) as name:
        address = bed.instance(name)["PublicIpAddress"]
        do(bed, name, key_pair, "sudo touch /made /run/volatile")
        if inside:
            do(bed, name, key_pair, "sudo systemd-run --quiet --on-active=0 systemctl reboot")
        else:
            bed.client("ec2").reboot_instances(InstanceIds=[name])

        def rebooted() -> bool | None:
            return log_in(address, key_pair.file, "test -e /run/volatile || echo gone") == "gone\n" or None

        poll(rebooted, what="the reboot", every=Seconds(0.1), deadline=Seconds(60.0), cancel=Flag())
        assert log_in(address, key_pair.file, "ls /made").split() == ["/made"]
        assert bed.instance(name)["State"]["Name"] == "running"


@pytest.mark.parametrize(("behaviour", "wanted"), [("stop", "stopped"), ("terminate", "terminated")])
def test_a_power_off_does_what_the_launch_said(
    bed: AwsBed,
    key_pair: KeyPair,
    behaviour: str,
    wanted: str,
) -> None:
    with launched(bed, key_pair, InstanceInitiatedShutdownBehavior=behaviour) as name:
        do(bed, name, key_pair, "sudo systemd-run --quiet --on-active=0 systemctl poweroff")
        about = bed.await_state(name, wanted)
        assert about["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"


def test_a_stopped_one_starts_again(bed: AwsBed, key_pair: KeyPair) -> None:
    ec2 = bed.client("ec2")
    with launched(bed, key_pair) as name:
        do(bed, name, key_pair, "sudo touch /made")
        ec2.stop_instances(InstanceIds=[name])
        bed.await_state(name, "stopped")
        ec2.start_instances(InstanceIds=[name])
        bed.await_state(name, "running")
        assert do(bed, name, key_pair, "ls /made").split() == ["/made"]


def test_a_larger_root_volume_is_used_whole(bed: AwsBed, key_pair: KeyPair) -> None:
    devices = [{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 5, "VolumeType": "gp3"}}]
    with launched(bed, key_pair, BlockDeviceMappings=devices) as name:
        gigabytes = do(bed, name, key_pair, "df --output=size -BM / | tail -n 1").strip().removesuffix("M")
        assert int(gigabytes) > 4600


def test_many_bytes_pass_the_relay_unharmed(bed: AwsBed, key_pair: KeyPair) -> None:
    script = "head -c 6000000 /dev/urandom | base64 --wrap 0 | tee /tmp/bytes; echo; sha256sum < /tmp/bytes"
    with launched(bed, key_pair) as name:
        said, told = do(bed, name, key_pair, script).splitlines()
    assert len(said) == 8_000_000
    assert hashlib.sha256(said.encode()).hexdigest() == told.split()[0]


def test_user_data_and_host_key(bed: AwsBed, key_pair: KeyPair, tmp_path: Path) -> None:
    text = "#cloud-config\nwrite_files: [{path: /told, content: told}]\nruncmd:\n  - [cp, /told, /ran]\n"
    with launched(bed, key_pair, UserData=text) as name:
        script = "until test -e /ran; do sleep 0.05; done; cat /ran; cat /etc/ssh/ssh_host_ed25519_key.pub"
        said = do(bed, name, key_pair, script).split()
        assert said[0] == "toldssh-ed25519"
        console = bed.client("ec2").get_console_output(InstanceId=name)["Output"]
        assert said[1] in console
        assert "Welcome to" in console


def test_nobody_else_logs_in(bed: AwsBed, key_pair: KeyPair, tmp_path: Path) -> None:
    """An instance has the keys of its own launch, not those that the image was made with."""
    ec2 = bed.client("ec2")
    with launched(bed, key_pair) as name:
        address = bed.instance(name)["PublicIpAddress"]
        log_in(address, key_pair.file, "true")
        sockets = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
        listeners = [line.split()[1] for line in sockets.splitlines() if " 0A " in line]
        on_22 = [place.partition(":")[0] for place in listeners if place.endswith(":0016")]
        assert on_22
        assert not {"00000000", "0" * 32} & set(on_22)
        assert ec2.describe_instances(InstanceIds=[name])["Reservations"][0]["OwnerId"] == state.HOME


def test_nothing_is_left_after_sigkill(tmp_path: Path) -> None:
    with running(tmp_path) as own:
        ec2 = own.client("ec2")
        key = tmp_path / "key"
        key.touch(mode=0o600)
        key.write_text(ec2.create_key_pair(KeyName="key", KeyType="ed25519")["KeyMaterial"])
        name = ec2.run_instances(
            ImageId=own.source(), InstanceType="t3.micro", MinCount=1, MaxCount=1, KeyName="key"
        )
        address = own.await_state(name["Instances"][0]["InstanceId"], "running")["PublicIpAddress"]
        log_in(address, key, "true")
        assert _traces(tmp_path)
        os.kill(own.process.pid, signal.SIGKILL)
        own.process.wait()
    _await_no_traces(tmp_path)


def test_a_bed_ends_with_whoever_started_it(tmp_path: Path) -> None:
    lines = ["import sys, pathlib", "from tests.aws_bed.fixture import running"]
    lines += [
        "with running(pathlib.Path(sys.argv[1])) as bed:",
        "    print(bed.url, flush=True); sys.stdin.read()",
    ]
    argv = [sys.executable, "-c", "\n".join(lines), str(tmp_path)]
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    starter = process.spawn(argv, env=env, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert starter.stdout
        assert starter.stdout.readline().startswith(b"http://127.0.0.1:")
    finally:
        starter.kill()
        process.end(starter)
    _await_no_traces(tmp_path)


def _await_no_traces(folder: Path) -> None:
    poll(
        lambda: None if _traces(folder) else True,
        what="the end of all that the bed has started",
        every=Seconds(0.05),
        deadline=Seconds(60.0),
        cancel=Flag(),
    )


def _traces(folder: Path) -> list[str]:
    """Processes, mounts and loop devices that have to do with the folder."""
    found = []
    for about in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = about.read_bytes()
        except OSError:
            continue
        if str(folder).encode() in words and about.parent.name != str(os.getpid()):
            found.append(words.replace(b"\0", b" ").decode(errors="replace"))
    found += [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(folder) in line]
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            text = backing.read_text()
        except OSError:
            continue
        if str(folder) in text:
            found.append(text)
    return found


def test_a_group_is_kept_until_its_instance_is_gone(bed: AwsBed, key_pair: KeyPair) -> None:
    ec2 = bed.client("ec2")
    group = ec2.create_security_group(GroupName="kept", Description="kept")["GroupId"]
    with launched(bed, key_pair, SecurityGroupIds=[group]) as name:
        with pytest.raises(ClientError) as caught:
            ec2.delete_security_group(GroupId=group)
        assert caught.value.response["Error"]["Code"] == "DependencyViolation"
        ec2.stop_instances(InstanceIds=[name])
        with pytest.raises(ClientError) as caught:
            ec2.start_instances(InstanceIds=[name])
        assert caught.value.response["Error"]["Code"] == "IncorrectInstanceState"
    ec2.delete_security_group(GroupId=group)
    assert bed.left() == {"key_pairs": [key_pair.name]}


def test_an_image_of_an_instance_whose_source_is_gone(bed: AwsBed, key_pair: KeyPair) -> None:
    ec2 = bed.client("ec2")
    copy = {"SourceImageId": bed.source(), "SourceRegion": state.REGION, "Name": "to-be-gone"}
    source = ec2.copy_image(**copy)["ImageId"]
    bed.await_image(source)
    with launched(bed, key_pair, source) as name:
        ec2.deregister_image(ImageId=source, DeleteAssociatedSnapshots=True)
        image = ec2.create_image(InstanceId=name, Name="of-the-gone", NoReboot=True)["ImageId"]
    assert bed.await_image(image)["SourceImageId"] == source
    ec2.deregister_image(ImageId=image, DeleteAssociatedSnapshots=True)
    assert bed.left() == {"key_pairs": [key_pair.name]}


def test_nothing_is_left_when_it_is_told_twice_to_end(tmp_path: Path) -> None:
    """As `timeout` does, which tells the program and then its whole group."""
    with running(tmp_path) as own:
        ec2 = own.client("ec2")
        copy = {"SourceImageId": own.source(), "SourceRegion": state.REGION}
        ec2.copy_image(Name="one", **copy)
        ec2.run_instances(ImageId=own.source(), InstanceType="t3.micro", MinCount=1, MaxCount=1)
        while own.process.poll() is None:
            os.kill(own.process.pid, signal.SIGTERM)
        assert own.process.returncode == 0
    assert list(tmp_path.glob("aws-bed-*")) == []
    _await_no_traces(tmp_path)


def test_instances_of_a_vpc_reach_each_other(bed: AwsBed, key_pair: KeyPair) -> None:
    with launched(bed, key_pair) as one, launched(bed, key_pair) as other:
        about = bed.instance(other)
        mine = bed.instance(one)["PrivateIpAddress"]
        public, private = about["PublicIpAddress"], about["PrivateIpAddress"]
        do(bed, other, key_pair, "true")  # its sshd is there
        shown = do(
            bed,
            one,
            key_pair,
            f"for a in {public} {private} 127.0.0.1; do ssh-keyscan -t ed25519 $a 2>/dev/null | cut -d' ' -f2-; done\n"
            f"for a in {public} {private}; do ip -4 route get $a; done\n",
        )
        theirs, again, own, *routes = [line for line in shown.splitlines() if "cache" not in line]
        assert theirs == again != own
        assert all(f"dev ens5 src {mine}" in route for route in routes) and len(routes) == 2
        assert public not in do(bed, other, key_pair, "ip -4 address")
