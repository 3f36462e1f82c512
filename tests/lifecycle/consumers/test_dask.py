"""What dask-cloudprovider is told of an AMI. That it works with it is shown by `tests/test_dask_builds.py`."""

from __future__ import annotations

import ast
from dataclasses import replace
from typing import Any

import pytest
import yaml

from ingot.errors import PlanError, UsageError
from ingot.lifecycle.consumers import Consumed, choose_text, tell
from ingot.model.image import Image
from ingot.model.plan import ContentId, LayerKey
from ingot.model.units import Bytes

IMAGE = Image(
    name="worker", backend="aws", location="us-west-2", ref="ami-0123456789abcdef0", digest=ContentId("c"),
    key=LayerKey("k"), arch="x86_64", size=Bytes(1), created="",
)  # fmt: skip
FULL: dict[str, Any] = {
    "region": "us-west-2",
    "instance_type": ["c7i.large", "c6i.large"],
    "user": "admin",
    "subnet": "subnet-0123456789abcdef0",
    "security_groups": ["sg-0123456789abcdef0"],
    "instance_profile": "dask",
    "access": "private",
}


def arguments(text: str) -> dict[str, Any]:
    """The keyword arguments of the call in a text."""
    (call,) = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    assert isinstance(call.func, ast.Name) and call.func.id == "EC2Cluster"
    return {str(one.arg): ast.literal_eval(one.value) for one in call.keywords}


def test_the_call_and_the_fragment_say_the_same() -> None:
    told = tell("dask", Consumed(image=IMAGE, options=FULL, containers=("docker.io/daskdev/dask:2025.9.0",)))
    wanted = {
        "region": "us-west-2",
        "ami": IMAGE.ref,
        "bootstrap": False,
        "instance_type": "c7i.large",
        "docker_image": "docker.io/daskdev/dask:2025.9.0",
        "subnet_id": "subnet-0123456789abcdef0",
        "security_groups": ["sg-0123456789abcdef0"],
        "iam_instance_profile": {"Name": "dask"},
        "use_private_ip": True,
    }
    assert arguments(told.texts[".py"]) == wanted
    fragment = yaml.safe_load(told.texts[".yaml"])
    assert fragment == told.settings
    # One argument stands for three keys of the file, each of which has a default of its own there.
    types = {"scheduler_instance_type": "c7i.large", "worker_instance_type": "c7i.large"}
    assert fragment == {"cloudprovider": {"ec2": {**wanted, **types}}}


def test_what_the_target_leaves_open_is_left_out() -> None:
    told = tell("dask", Consumed(image=IMAGE, copies={"us-east-1": "ami-0fedcba9876543210"}))
    assert arguments(told.texts[".py"]) == {"region": "us-west-2", "ami": IMAGE.ref, "bootstrap": False}
    for text in told.texts.values():
        assert "# security_groups" in text and "# us-east-1: ami-0fedcba9876543210\n" in text
    assert yaml.safe_load(told.texts[".yaml"]) == told.settings


def test_one_type_is_a_text_too() -> None:
    told = tell("dask", Consumed(image=IMAGE, options={"instance_type": "c7i.large"}))
    assert arguments(told.texts[".py"])["instance_type"] == "c7i.large"


@pytest.mark.parametrize(
    ("suited", "remedy"), [(("aws",), "`--target aws`"), ((), "a target with `backend: aws`")]
)
def test_an_image_that_is_not_on_aws(suited: tuple[str, ...], remedy: str) -> None:
    image = replace(IMAGE, backend="local")
    with pytest.raises(PlanError, match="dask takes images of the backend 'aws', and worker is") as error:
        tell("dask", Consumed(image=image), suited=suited)
    assert error.value.hint == f"build and export it for {remedy}"


def test_the_ending_chooses_the_text() -> None:
    told = tell("dask", Consumed(image=IMAGE))
    assert choose_text(told, "cloudprovider.yaml") == told.texts[".yaml"]
    assert choose_text(told, "cluster.py") == told.texts[".py"]
    with pytest.raises(UsageError, match=r"'cluster\.txt'") as error:
        choose_text(told, "cluster.txt")
    assert ".py or .yaml" in error.value.hint
