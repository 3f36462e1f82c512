"""`ingot export` of what is text and no disk, and `ingot init` from user-data."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from ingot.model.image import Image, Manifest
from ingot.model.plan import ContentId, LayerKey
from ingot.model.units import Bytes
from ingot.stores.catalog import Catalog
from ingot.stores.state import State

from .conftest import Ingot
from .world import DEFINITION, write_project

AWS = DEFINITION.replace(
    "bases:", "  cloud: {backend: aws, region: us-east-1, instance_type: c7i.large}\nbases:"
)
STEPS = [
    {"kind": "containers", "tool": "podman", "images": ["docker.io/library/alpine:3"]},
    {"kind": "containers", "tool": "docker", "images": ["docker.io/daskdev/dask:1"]},
]


@pytest.fixture
def ami(project: Path, state: Path) -> str:
    """An image in the catalog that was built on AWS and copied to another region."""
    write_project(project, AWS)
    manifest = Manifest(
        image="node", target="cloud", digest=ContentId("c"), project="acme", arch="x86_64", ingot="1", created="", run="r",
        layers=(), packages=(), plan={"layers": [{"steps": STEPS}]},
    )  # fmt: skip
    with Catalog(State(state).catalog) as catalog:
        for region, ref in (("us-east-1", "ami-1"), ("us-west-2", "ami-2")):
            image = Image(
                name="node", backend="aws", location=region, ref=ref, digest=ContentId("c"), key=LayerKey("k"),
                arch="x86_64", size=Bytes(1), created="",
            )  # fmt: skip
            catalog.record("acme", image, target="cloud", run="r", manifest=manifest)
    return "ami-1"


def test_dask_is_told_of_the_image_in_its_own_region(ingot: Ingot, ami: str) -> None:
    said = ingot("export", "node", "--format", "dask")
    assert said.code == 0, said.err
    call, _, fragment = said.out.partition(
        "\n\n# The same image in other regions:\n# us-west-2: ami-2\ncloudprovider:"
    )
    assert f'    ami="{ami}",\n    bootstrap=False,\n' in call
    told = yaml.safe_load(f"cloudprovider:{fragment}")["cloudprovider"]["ec2"]
    assert (told["ami"], told["region"], told["docker_image"]) == (
        ami,
        "us-east-1",
        "docker.io/daskdev/dask:1",
    )
    document = ingot("export", "node", "--format", "dask", "--json").document
    assert document["settings"] == {"cloudprovider": {"ec2": told}} and document["ref"] == ami


def test_a_file_gets_what_its_ending_asks_for(ingot: Ingot, ami: str, tmp_path: Path) -> None:
    file = tmp_path / "cloudprovider.yaml"
    words = ("export", "node", "--format", "dask", "-o", os.fspath(file))
    assert ingot(*words, "--dry-run").code == 0 and not file.exists()
    assert ingot(*words).code == 0
    assert yaml.safe_load(file.read_text())["cloudprovider"]["ec2"]["ami"] == ami
    refused = ingot(*words)
    assert refused.code == 9 and "is there already" in refused.err
    assert ingot(*words, "--force").code == 0


def test_an_image_that_is_not_on_aws_is_refused_with_the_target_that_is(ingot: Ingot, project: Path) -> None:
    ingot("build", "node")
    write_project(project, AWS)
    said = ingot("export", "node", "--format", "dask")
    assert said.code == 2
    assert "dask takes images of the backend 'aws', and node is one of 'memory'" in said.err
    assert "build and export it for `--target cloud`" in said.err


def test_init_from_user_data(ingot: Ingot, tmp_path: Path) -> None:
    file = tmp_path / "user-data.yaml"
    file.write_text(
        "#cloud-config\nruncmd: ['docker run --net=host daskdev/dask:1 dask-scheduler --version']\n"
    )
    folder = tmp_path / "dask"
    assert ingot("init", os.fspath(folder), "--from-cloud-init", os.fspath(file)).code == 0
    assert "daskdev/dask:1" in (folder / "ingot.yaml").read_text()
    file.write_text("")
    refused = ingot("init", os.fspath(tmp_path / "other"), "--from-cloud-init", os.fspath(file))
    assert refused.code == 2 and "#cloud-config" in refused.err
