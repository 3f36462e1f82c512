"""The commands by which each tool pulls. podman and docker on real machines: `tests/test_container_builds.py`."""

from __future__ import annotations

import subprocess

import pytest

from ingot.model.reference import reference
from ingot.model.step import CONTAINER_TOOLS, ContainersStep
from ingot.provision.containers import pinned, script

DIGEST = "sha256:" + "a" * 64
HUB = reference(f"alpine:3.20@{DIGEST}")
LOCAL = reference(f"127.0.0.1:5000/acme/tools:1@{DIGEST}")


def test_each_image_has_the_digest_of_its_place() -> None:
    step = ContainersStep(images=("docker.io/library/alpine:3.20", str(LOCAL)), digests=(DIGEST, DIGEST))
    assert pinned(step) == (HUB, LOCAL)
    assert pinned(ContainersStep(images=("docker.io/library/alpine:3.20",))) == (reference("alpine:3.20"),)


@pytest.mark.parametrize("tool", CONTAINER_TOOLS)
def test_what_is_written_is_a_shell_script(tool: str) -> None:
    text = script(tool, [HUB, LOCAL], dest="/srv/it's here")
    subprocess.run(["sh", "-n"], input=text.encode(), check=True)
    assert text.count(DIGEST) >= 4


def test_podman_keeps_the_tag() -> None:
    name = f"docker.io/library/alpine@{DIGEST}"
    assert script("podman", [HUB], dest="").splitlines()[1:] == [
        f"podman pull {name}",
        f"podman tag {name} docker.io/library/alpine:3.20",
    ]


def test_registries_of_the_machine_itself_have_no_tls() -> None:
    assert "podman pull --tls-verify=false 127.0.0.1:5000/acme/tools@" in script("podman", [LOCAL], dest="")
    assert (
        " pull --force --disable-cache --no-https /srv/tools_1.sif docker://127.0.0.1:5000/acme/tools@"
        in (script("apptainer", [LOCAL], dest="/srv/"))
    )
    assert "ENROOT_ALLOW_HTTP=y " in script("enroot", [LOCAL], dest="/srv")


def test_enroot_is_told_registry_and_digest_in_its_own_way() -> None:
    *_, hub, _, _, local = script("enroot", [HUB, LOCAL], dest="/srv").splitlines()
    assert hub.endswith(
        f"enroot import --output /srv/library+alpine+3.20.sqsh docker://library/alpine:{DIGEST}"
    )
    assert local.endswith(f"--output /srv/acme+tools+1.sqsh 'docker://127.0.0.1:5000#acme/tools:{DIGEST}'")
