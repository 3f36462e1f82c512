"""What no journal tells of any more, found in the account by its tags alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingot.backends.aws import tags
from ingot.backends.aws.backend import AwsBackend
from ingot.backends.aws.cloud import Cloud
from ingot.backends.aws.shape import TargetShape
from ingot.model.units import Seconds
from tests.aws_bed import state
from tests.aws_bed.fixture import AwsBed
from tests.local_fixtures import cached_base

__all__ = ["cached_base"]
pytestmark = pytest.mark.local


def test_an_upload_that_nobody_completed(
    bed: AwsBed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in bed.environment().items():
        monkeypatch.setenv(name, value)
    cloud = Cloud(state.REGION, pause=Seconds(0.1), settles=Seconds(1.0))
    backend = AwsBackend(cloud=cloud, settings=TargetShape(), directory=tmp_path, state=tmp_path)
    told = {tags.TOKEN: "ingot-1", tags.MADE: tags.when(0.0), tags.KEY: "k", tags.CONTENT: "c"}
    ebs = bed.client("ebs")
    open_one = ebs.start_snapshot(VolumeSize=1, Tags=tags.tags(told))["SnapshotId"]
    done = ebs.start_snapshot(VolumeSize=1, Tags=tags.tags({**told, tags.TOKEN: "ingot-2"}))["SnapshotId"]
    ebs.complete_snapshot(SnapshotId=done, ChangedBlocksCount=0)
    bed.await_snapshot(done)
    found = list(backend.strays(older_than=Seconds(60.0)))
    assert found == [("aws.snapshot", open_one)]
    backend.resource("aws.snapshot").delete(open_one)
    assert list(backend.strays(older_than=Seconds(60.0))) == []
    backend.resource("aws.snapshot").delete(done)
    assert done in bed.left()["snapshots"], "a complete one is an image's"
    bed.client("ec2").delete_snapshot(SnapshotId=done)
