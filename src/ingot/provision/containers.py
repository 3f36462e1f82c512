"""Container images pulled into the image, by its own tools, each by the digest that the plan has for it.

Pulling unpacks layers with every right that the system's root has, and a login has fewer: so it is done by a unit of the
running system, which lies under /run. What podman and docker pull is also known by its tag afterwards.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from ingot.errors import ProvisionError
from ingot.model.reference import HUB, Reference, reference
from ingot.model.step import CONTAINER_TOOLS, ContainersStep
from ingot.model.units import Seconds
from ingot.ports import Cancel, Machine
from ingot.provision.log import StepLog
from ingot.system import process, ssh

DEST = "/srv/containers"
_PACKAGES = {
    "podman": "the package `podman`",
    "docker": "the package `docker.io` (Debian) or `docker-ce`",
    "enroot": "NVIDIA's package `enroot`; Debian has none",
    "apptainer": "the package `apptainer` of EPEL or of the project itself; Debian 12 has none",
}
_SHORT = Seconds(60.0)
_FIND = 'for name; do if command -v "$name" >/dev/null; then echo "$name"; fi; done'
# Proxies and certificates reach a login by sshd, and a unit by this file.
_RUN = r"""
umask 077
mkdir -p /run/ingot /run/systemd/system && cd /run/ingot || exit 1
cat >pull.sh
env | grep -E '^([A-Za-z]+_(proxy|PROXY)|SSL_CERT_FILE|CURL_CA_BUNDLE)=' >pull.env
: >pull.log
cat >/run/systemd/system/ingot-pull.service <<'END'
[Service]
Type=oneshot
TimeoutStartSec=infinity
Environment=HOME=/root LC_ALL=C.UTF-8
EnvironmentFile=/run/ingot/pull.env
ExecStart=/bin/sh -eu /run/ingot/pull.sh
StandardOutput=append:/run/ingot/pull.log
StandardError=append:/run/ingot/pull.log
END
systemctl daemon-reload || exit 1
systemctl start ingot-pull 2>/dev/null & started=$!
tail -n +1 -s 0.2 -f --pid="$started" pull.log
wait "$started"
"""
_SCRATCH = "scratch=$(mktemp -d /var/tmp/ingot.XXXXXX)\ntrap 'rm -rf \"$scratch\"' EXIT\n"
_PULLING = "pulling "


def apply(step: ContainersStep, machine: Machine, *, log: StepLog, cancel: Cancel) -> None:
    """Pulls every image. Raises ProvisionError naming the one that failed, or what should be installed."""
    tool = _find_tool(step, machine)
    wanted = pinned(step)
    now = [str(wanted[0])]

    def hear(stream: str, text: str) -> None:
        if text.startswith(_PULLING):
            now[0] = text.removeprefix(_PULLING)
        log.line(stream, text)

    done = process.run(
        ssh.argv(machine.ssh, "sh", "-c", _RUN),
        input=script(tool, wanted, dest=step.dest or DEST).encode(),
        timeout=step.timeout,
        cancel=cancel,
        on_line=hear,
        check=False,
    )
    if done.code:
        said = next((line.strip() for line in reversed(log.tail) if line.strip()), "it said nothing")
        raise ProvisionError(
            f"{tool} could not pull {now[0]}: {said}",
            hint=f"its whole output is in {log.path}",
            task=tool,
            file=step.place.file,
            line=step.place.line,
        )


def pinned(step: ContainersStep) -> tuple[Reference, ...]:
    """The step's images, each with the digest that the plan has for it."""
    digests = step.digests or ("",) * len(step.images)
    found = (reference(image) for image in step.images)
    return tuple(
        reference(f"{one.tagged}@{digest}") if digest else one
        for one, digest in zip(found, digests, strict=True)
    )


def _find_tool(step: ContainersStep, machine: Machine) -> str:
    """The program that pulls: the one asked for, or the first of those known that is there."""
    names = (step.tool,) if step.tool else CONTAINER_TOOLS
    found = ssh.run(machine.ssh, ["sh", "-c", _FIND, "sh", *names], timeout=_SHORT).stdout.split()
    if found:
        return found[0]
    missing = f"no {step.tool}" if step.tool else f"none of {', '.join(CONTAINER_TOOLS)}"
    hint = _PACKAGES[step.tool] if step.tool else _PACKAGES["podman"]
    raise ProvisionError(
        f"the machine has {missing}, which could pull container images",
        hint=f"install it in a step before: {hint}",
        file=step.place.file,
        line=step.place.line,
    )


def script(tool: str, images: Sequence[Reference], *, dest: str) -> str:
    """The shell script by which a tool pulls these images, for `sh -eu`."""
    commands = {"podman": _podman, "docker": _docker, "enroot": _enroot, "apptainer": _apptainer}[tool]
    head = {"podman": "", "docker": "systemctl start docker\n"}.get(tool, _SCRATCH + _folder(dest))
    pulls = (f"echo {shlex.quote(_PULLING + str(one))}\n" + "\n".join(commands(one, dest)) for one in images)
    return head + "\n".join(pulls) + "\n"


def _folder(dest: str) -> str:
    return f"umask 022\nmkdir -p {shlex.quote(dest)}\n"


def _by_digest(image: Reference) -> str:
    """What podman, docker and apptainer are asked for: never a tag beside a digest."""
    return f"{image.name}@{image.digest}" if image.digest else image.tagged


def _podman(image: Reference, dest: str) -> Iterator[str]:
    plain = "--tls-verify=false " if image.is_local else ""
    yield f"podman pull {plain}{_by_digest(image)}"
    if image.tag and image.digest:
        yield f"podman tag {_by_digest(image)} {image.tagged}"


def _docker(image: Reference, dest: str) -> Iterator[str]:
    yield f"docker pull {_by_digest(image)}"
    if image.tag and image.digest:
        yield f"docker tag {_by_digest(image)} {image.tagged}"


def _enroot(image: Reference, dest: str) -> Iterator[str]:
    """enroot takes a digest where it takes a tag, and names files so: `library+alpine+3.20.sqsh`."""
    name = image.repository.replace("/", "+") + (f"+{image.tag}" if image.tag else "")
    registry = "" if image.registry == HUB else f"{image.registry}#"
    path = shlex.quote(f"{dest.rstrip('/')}/{name}.sqsh")
    plain = "ENROOT_ALLOW_HTTP=y " if image.is_local else ""
    places = 'ENROOT_CACHE_PATH="$scratch/cache" ENROOT_DATA_PATH="$scratch/data" ENROOT_TEMP_PATH="$scratch"'
    yield f"rm -f {path}"
    yield f"{plain}{places} enroot import --output {path} {shlex.quote(f'docker://{registry}{image.repository}:{image.digest or image.tag}')}"


def _apptainer(image: Reference, dest: str) -> Iterator[str]:
    """Files are named as apptainer itself would: `alpine_3.20.sif`."""
    name = image.repository.rpartition("/")[2] + (f"_{image.tag}" if image.tag else "")
    path = shlex.quote(f"{dest.rstrip('/')}/{name}.sif")
    plain = "--no-https " if image.is_local else ""
    yield f'APPTAINER_TMPDIR="$scratch" apptainer pull --force --disable-cache {plain}{path} docker://{_by_digest(image)}'
