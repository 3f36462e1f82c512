"""packer-manifest.json, byte for byte as Packer would write it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ingot.errors import UsageError
from ingot.stores.packer_manifest import PackerBuild, run_uuid, write

BUILD = PackerBuild(
    name="node",
    builder_type="ingot.local",
    build_time=1795256645,
    artifact_id="node@1",
    files=(("node.qcow2", 123),),
    custom_data={"version": "1"},
)
PLAIN = PackerBuild(name="big", builder_type="ingot.local", build_time=1795256646, artifact_id="big@1")


def test_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "packer-manifest.json"
    write(path, [BUILD, PLAIN], run="r1")
    uuid = run_uuid("r1")
    assert (
        path.read_text()
        == f"""{{
  "builds": [
    {{
      "name": "node",
      "builder_type": "ingot.local",
      "build_time": 1795256645,
      "files": [
        {{
          "name": "node.qcow2",
          "size": 123
        }}
      ],
      "artifact_id": "node@1",
      "packer_run_uuid": "{uuid}",
      "custom_data": {{
        "version": "1"
      }}
    }},
    {{
      "name": "big",
      "builder_type": "ingot.local",
      "build_time": 1795256646,
      "files": null,
      "artifact_id": "big@1",
      "packer_run_uuid": "{uuid}",
      "custom_data": null
    }}
  ],
  "last_run_uuid": "{uuid}"
}}"""
    )


def test_builds_are_added_unless_forced(tmp_path: Path) -> None:
    path = tmp_path / "packer-manifest.json"
    write(path, [BUILD], run="r1")
    write(path, [PLAIN], run="r2")
    found = json.loads(path.read_text())
    assert [build["packer_run_uuid"] for build in found["builds"]] == [run_uuid("r1"), run_uuid("r2")]
    assert found["last_run_uuid"] == run_uuid("r2")
    write(path, [PLAIN], run="r3", force=True)
    assert len(json.loads(path.read_text())["builds"]) == 1


def test_what_packer_wrote_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "packer-manifest.json"
    theirs = {"name": "x", "builder_type": "amazon-ebs", "artifact_id": "eu-west-1:ami-1", "extra": 1}
    path.write_text(json.dumps({"builds": [theirs], "last_run_uuid": "old"}))
    write(path, [PLAIN], run="r1")
    assert json.loads(path.read_text())["builds"][0] == theirs


@pytest.mark.parametrize("text", ["", "[]", "{", '{"builds": 3}'])
def test_something_else_is_not_overwritten(tmp_path: Path, text: str) -> None:
    path = tmp_path / "packer-manifest.json"
    path.write_text(text)
    with pytest.raises(UsageError, match="not a Packer manifest"):
        write(path, [PLAIN], run="r1")
    assert path.read_text() == text
