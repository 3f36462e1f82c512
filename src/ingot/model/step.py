"""Steps: the smallest changes to a machine. Values of a closed union; a provisioner applies them.

One type serves definition and plan: what a step reads from disk stands in a definition as `NO_DIGEST`, and the
planner fills it in (`content`). Every field counts in a layer's key but those marked `HOW`: they tell how a
step is run, not what it leaves behind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, Literal

from ingot.model.digest import NO_DIGEST, Digest, plain
from ingot.model.units import Seconds

HOW: dict[str, Any] = {"key": False}
"""Field metadata: this field does not decide what the step leaves behind."""

IF_SET: dict[str, Any] = {"key": "if set"}
"""Field metadata: this field counts where it is not its default; so that one added later moves no key."""

MachineKind = Literal["chroot", "booted", "vm"]
"""What a step may run on: the disk alone, the system on it booted on the builder's kernel, or a virtual machine."""

Json = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where something was written: file (relative to the project where it lies in it), 1-based line and column."""

    file: str = ""
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.file else ""


NOWHERE = Place()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Common:
    """What every step of a definition may say."""

    place: Place = field(default=NOWHERE, metadata=HOW)
    layer: str = field(default="", metadata=HOW)
    """Neighbouring steps that name the same layer share it."""
    timeout: Seconds = field(default=Seconds(3600.0), metadata=HOW)
    retries: int = field(default=0, metadata=HOW)
    machine: MachineKind = field(default="chroot", metadata=IF_SET)


@dataclass(frozen=True, kw_only=True, slots=True)
class PackagesStep(_Common):
    """Distribution packages to install (`name`, `name=version`) and to remove."""

    kind: Literal["packages"] = "packages"
    install: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    recommends: bool = False
    epoch: str = ""
    """The freshness epoch of the lock; a new one applies the step anew."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Ansible(_Common):
    """What steps that Ansible applies have in common."""

    vars: Json = field(default_factory=dict)
    groups: tuple[str, ...] = ()
    """Inventory groups that the machine is in for this step, so that their group_vars apply."""
    become: bool | None = None
    """None leaves it to the play; the machine is reached as root."""
    tags: tuple[str, ...] = ()
    skip_tags: tuple[str, ...] = ()
    engine: str = field(default="auto", metadata=HOW)
    """`mitogen`, `ansible` (plain), or `auto`: mitogen where it works."""
    ansible: str = ""
    """ansible-core's minor version (`2.19`), filled in by the planner."""
    content: Digest = NO_DIGEST
    """Everything on disk that Ansible will read for this step, as the design's rules of keys count it."""
    reads: tuple[tuple[str, str], ...] = field(default=(), metadata=HOW)
    """What `content` was made of, (path, short digest) each, so that `plan` can name the file that changed."""
    epoch: str = field(default="", metadata=IF_SET)
    """As of packages: what a role installs or downloads comes from outside too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RolesStep(_Ansible):
    """Ansible roles, by name (`ingot.cluster.slurm`, `common`), applied in one play."""

    kind: Literal["roles"] = "roles"
    roles: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class PlaybookStep(_Ansible):
    """A playbook as users already have them; `path` is relative to the project."""

    kind: Literal["playbook"] = "playbook"
    path: str = field(default="", metadata=HOW)


@dataclass(frozen=True, kw_only=True, slots=True)
class ScriptStep(_Common):
    """A program run on the machine as root: a file of the project, or text."""

    kind: Literal["script"] = "script"
    path: str = field(default="", metadata=HOW)
    inline: str = ""
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    content: Digest = NO_DIGEST
    epoch: str = field(default="", metadata=IF_SET)
    """As of packages: a script may upgrade the system, or download."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FilesStep(_Common):
    """A file or a folder of the project copied to an absolute path. Modes: octal text; "" keeps the source's."""

    kind: Literal["files"] = "files"
    src: str = field(default="", metadata=HOW)
    text: str | None = None
    """The file's content, instead of `src`."""
    dest: str = ""
    mode: str = ""
    owner: str = "root"
    group: str = "root"
    content: Digest = NO_DIGEST


@dataclass(frozen=True, kw_only=True, slots=True)
class CloudInitStep(_Common):
    """User-data for cloud-init, given to a fresh machine from its first boot on: a file of the project, or text.

    Always alone in its layer, and never on a machine whose system does not run.
    """

    kind: Literal["cloud_init"] = "cloud_init"
    machine: MachineKind = field(default="booted", metadata=IF_SET)
    path: str = field(default="", metadata=HOW)
    inline: str = ""
    content: Digest = NO_DIGEST


ContainerTool = Literal["podman", "docker", "enroot", "apptainer"]
CONTAINER_TOOLS: tuple[ContainerTool, ...] = ("podman", "docker", "enroot", "apptainer")
"""What can pull container images, in the order in which a step that names none looks for them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ContainersStep(_Common):
    """Container images pulled into the image, by what is installed there. Never on a machine without a running system."""

    kind: Literal["containers"] = "containers"
    machine: MachineKind = field(default="booted", metadata=IF_SET)
    images: tuple[str, ...] = ()
    """Whole references: `docker.io/library/alpine:3.20`."""
    tool: ContainerTool | Literal[""] = ""
    """"" takes the first that is there."""
    dest: str = ""
    """Where enroot and apptainer put the files that they make; podman and docker have a place of their own."""
    digests: tuple[str, ...] = ()
    """The digest of each image, in the same order: its own, or the lock's, filled in by the planner."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RebootStep(_Common):
    """Starts the machine's system anew, its kernel too; with `if_needed` only where the system asks for it."""

    kind: Literal["reboot"] = "reboot"
    if_needed: bool = False
    machine: MachineKind = field(default="vm", metadata=IF_SET)


@dataclass(frozen=True, kw_only=True, slots=True)
class SealStep(_Common):
    """Makes a finished image of what was built: always the last layer, and alone in it."""

    kind: Literal["seal"] = "seal"
    version: int = 1
    """Raised whenever what sealing leaves behind changes."""


Step = (
    PackagesStep
    | RolesStep
    | PlaybookStep
    | ScriptStep
    | FilesStep
    | CloudInitStep
    | ContainersStep
    | RebootStep
    | SealStep
)
"""Closed: every `match` over it ends in `assert_never`."""


def step_key(step: Step) -> dict[str, Any]:
    """What of a step decides what it leaves behind: every field but those marked `HOW`, and `IF_SET` where it is set."""
    return {f.name: plain(getattr(step, f.name)) for f in fields(step) if _counts(f, getattr(step, f.name))}


def _counts(field: Field[Any], value: object) -> bool:
    match field.metadata.get("key", True):
        case False:
            return False
        case "if set":
            return bool(value != field.default)
        case _:
            return True


def describe(step: Step) -> str:
    """The step in a few words, for plans and progress: `packages htop tmux`."""
    match step:
        case PackagesStep():
            words = [*step.install, *(f"-{name}" for name in step.remove)]
        case RolesStep():
            words = list(step.roles)
        case PlaybookStep():
            words = [step.path]
        case ScriptStep():
            words = [step.path or (step.inline.strip().splitlines() or [""])[0]]
        case FilesStep():
            words = [step.dest]
        case RebootStep():
            words = ["if needed"] if step.if_needed else []
        case CloudInitStep():
            words = [step.path or "inline"]
        case ContainersStep():
            words = list(step.images)
        case SealStep():
            words = []
    text = " ".join([step.kind, *words])
    return text if len(text) <= 72 else text[:71] + "…"
