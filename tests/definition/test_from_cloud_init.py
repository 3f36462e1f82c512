"""User-data that starts a container becomes a definition without mistakes, whose image has the container's image."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ingot.backends import find_shape
from ingot.definition.from_cloud_init import definition_from_cloud_init
from ingot.definition.load import Loaded, load
from ingot.errors import UsageError
from ingot.model.step import CloudInitStep, ContainersStep, FilesStep, PackagesStep, ScriptStep

INSTALLING = """\
#cloud-config
packages: [apt-transport-https, curl, gnupg-agent, [htop, 3.2.1]]
write_files:
  - path: /etc/sysctl.d/forwarding.conf
    content: |
      net.ipv4.conf.all.forwarding=1
  - {path: /etc/motd, content: "JHtIT01FfQo=", encoding: b64, permissions: "0600", owner: "root:adm"}
groups: [docker]
system_info:
  default_user:
    groups: [docker]
runcmd:
  - curl -fsSL https://download.docker.com/linux/ubuntu/gpg | apt-key add -
  - apt-get update -y
  - apt-get install -y docker-ce docker-ce-cli containerd.io
  - systemctl start docker
  - systemctl enable docker
  - apt-get update -y
  - [mkdir, -p, /data/two words]
  - docker login -u me -p secret
  - 'docker run --net=host --gpus=all -e A="b c" -v /data:/data acme/dask:2025.9.0 dask-scheduler --version'
  - shutdown -h now
"""
BARE = "#cloud-config\nruncmd:\n  - 'docker run --net=host   daskdev/dask:latest dask-scheduler --version'\n"


def made(folder: Path, text: str) -> Loaded:
    """The definition that the user-data becomes, as it is read back."""
    for name, content in definition_from_cloud_init(text, name="dask").items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return load(folder, shape_of=find_shape)


def test_what_is_installed_and_run_becomes_steps(tmp_path: Path) -> None:
    loaded = made(tmp_path, INSTALLING)
    assert loaded.warnings == ()
    packages, first, second, script, containers = loaded.definition.images["dask"].steps
    assert isinstance(packages, PackagesStep)
    assert packages.install == ("docker.io", "iptables", "curl", "gnupg", "htop=3.2.1")
    assert isinstance(first, FilesStep) and isinstance(second, FilesStep)
    assert (first.dest, first.text) == ("/etc/sysctl.d/forwarding.conf", "net.ipv4.conf.all.forwarding=1\n")
    assert (second.text, second.mode, second.owner, second.group) == ("${HOME}\n", "0600", "root", "adm")
    assert isinstance(script, ScriptStep)
    assert (tmp_path / "bootstrap.sh").read_text() == (
        "#!/bin/sh\nset -e\napt-get update -y\nmkdir -p '/data/two words'\n"
    )
    assert isinstance(containers, ContainersStep)
    assert (containers.images, containers.tool) == (("docker.io/acme/dask:2025.9.0",), "docker")
    text = (tmp_path / "ingot.yaml").read_text()
    assert "# Left out: `docker login`" in text and "secret" not in text


def test_user_data_without_bootstrap_has_docker_all_the_same(tmp_path: Path) -> None:
    packages, containers = made(tmp_path, BARE).definition.images["dask"].steps
    assert isinstance(packages, PackagesStep) and "docker.io" in packages.install
    assert isinstance(containers, ContainersStep) and containers.images == ("docker.io/daskdev/dask:latest",)
    file = tmp_path / "checks" / "test_image.py"
    compile(file.read_text(), str(file), "exec")


def test_what_no_step_stands_for_is_left_to_cloud_init(tmp_path: Path) -> None:
    steps = (
        made(tmp_path, BARE.replace("runcmd", "timezone: Europe/Berlin\nruncmd"))
        .definition.images["dask"]
        .steps
    )
    assert any(isinstance(step, CloudInitStep) and step.path == "user-data.yaml" for step in steps)
    assert yaml.safe_load((tmp_path / "user-data.yaml").read_text()) == {"timezone": "Europe/Berlin"}


@pytest.mark.parametrize(
    ("command", "image"),
    [
        ("docker run a/b c", "a/b"),
        ("sudo docker run -d --rm -p 8786:8786 a/b:1 c", "a/b:1"),
        ("docker run --env-file /x --net=host a/b", "a/b"),
        ("docker pull a/b:2", "a/b:2"),
    ],
)
def test_the_image_is_the_first_word_that_is_no_option(command: str, image: str) -> None:
    files = definition_from_cloud_init(f"#cloud-config\nruncmd: ['{command}']\n", name="x")
    (step,) = [
        one for one in yaml.safe_load(files["ingot.yaml"])["images"]["x"]["steps"] if "containers" in one
    ]
    assert step["containers"]["images"] == [image]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("#!/bin/sh\ndocker run a/b\n", "does not begin with `#cloud-config`"),
        ("#cloud-config\npackages: [curl]\n", "starts no container"),
        ("#cloud-config\nruncmd: [docker run\n", "is not YAML"),
        ("#cloud-config\nruncmd: docker run a/b\n", "`runcmd` of the user-data is no list"),
        ("#cloud-config\n- runcmd\n", "no map of modules"),
        ('#cloud-config\nruncmd: ["docker run \'a"]\n', "cannot be read: No closing quotation"),
        (
            f"{BARE}write_files: [{{path: /a, content: x, encoding: gz+b64}}]\n",
            "the file /a of the user-data cannot be a `files` step",
        ),
    ],
)
def test_what_it_cannot_be_made_of(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as error:
        definition_from_cloud_init(text, name="x")
    assert error.value.hint
