"""The shape of `ingot.yaml`: pydantic models at the file's edge, and the JSON Schema made of them.

Everything a user can write is described here once; editors show these descriptions.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, RootModel, Tag, model_validator

from ingot.definition.fields import (
    CacheAddress,
    Checksum,
    Component,
    ContainerImage,
    Destination,
    Duration,
    EnvName,
    Freshness,
    Group,
    KeyPath,
    Mirror,
    Mode,
    Name,
    Owner,
    Package,
    ProjectPath,
    RoleName,
    Size,
    Suite,
    VariableName,
    Word,
    by_type,
    check_project_path,
    shape,
)
from ingot.definition.messages import Bad

KINDS = ("packages", "roles", "playbook", "script", "files", "cloud_init", "containers", "reboot")
"""What a step can do; the key that says it."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, defer_build=True)


class VariableModel(_Model):
    """A variable: what it is, what it may be, and where its value comes from."""

    type: Literal["string", "number", "boolean", "list", "map"] | None = Field(
        default=None, description="The value's type; the default's own where nothing is said, else `string`."
    )
    default: Any = Field(
        default=None, description="The value when nothing else gives one. Without it, a value is required."
    )
    description: str = Field(default="", description="What the variable is for, in a sentence.")
    choices: list[Any] = Field(default=[], description="The only values that are taken.")
    env: EnvName | None = Field(
        default=None, description="An environment variable that gives the value, beside `INGOT_VAR_<name>`."
    )
    sensitive: bool = Field(
        default=False, description="A secret: its value is shown nowhere and never counts in a layer's key."
    )
    rev: str = Field(
        default="", description="Of a secret: any text; change it to rebuild what uses the secret."
    )


class TargetModel(_Model):
    """One place to build for. Further keys are the backend's own options."""

    model_config = ConfigDict(extra="allow", strict=True, defer_build=True)
    backend: Name = Field(description="`local`, or a cloud: `aws`, `azure`, `gcp`, `openstack`.")
    arch: Literal["x86_64", "aarch64"] = Field(default="x86_64", description="The machine's architecture.")
    disk: Size = Field(default="8 GiB", description="The disk's size, such as `8 GiB`.")


class DebootstrapModel(_Model):
    """A base made from a Debian archive."""

    debootstrap: Suite = Field(description="The suite: `bookworm`, `trixie`.")
    components: Annotated[list[Component], Field(min_length=1)] = Field(
        default=["main"],
        description="The archive's components, such as `[main, contrib, non-free-firmware]`.",
    )
    mirror: Mirror = Field(default="http://deb.debian.org/debian", description="The archive's address.")
    security: Mirror | Literal[""] = Field(
        default="http://deb.debian.org/debian-security",
        description='The archive of security updates; "" for none.',
    )
    keyring: ProjectPath | None = Field(
        default=None, description="A file of the project with the archive's keys; Debian's own otherwise."
    )
    kernel: Package = Field(default="linux-image-amd64", description="The kernel's package.")
    include: list[Package] = Field(
        default=[], description="Further packages that every image on this base has."
    )


class DiskImageModel(_Model):
    """A base that is a cloud image, qcow2 or raw."""

    image: str = Field(description="A URL, or a path in the project.")
    sha256: Checksum = Field(default="", description="The file's SHA-256; required for a URL.")

    @model_validator(mode="after")
    def _known_bytes(self) -> DiskImageModel:
        if re.match(r"[a-z]+://", self.image):
            if not re.match(r"(https?|file)://", self.image):
                raise Bad(
                    f"{self.image[:80]!r} cannot be downloaded", hint="http, https and file addresses can"
                )
            if not self.sha256:
                raise Bad(
                    "an image by URL needs its `sha256`", hint="publishers print it in a SHA256SUMS file"
                )
        else:
            check_project_path(self.image)
        return self


def _base_kind(value: Any) -> str | None:
    if not isinstance(value, dict) or ("debootstrap" in value and "image" in value):
        return None
    return "<debootstrap>" if "debootstrap" in value else "<image>" if "image" in value else None


class LocalBaseModel(
    RootModel[
        Annotated[
            Annotated[DebootstrapModel, Tag("<debootstrap>")] | Annotated[DiskImageModel, Tag("<image>")],
            shape(_base_kind, "either `debootstrap` or `image`", "such as `{debootstrap: bookworm}`"),
        ]
    ]
):
    """What a base is on the local backend: `debootstrap: <suite>` or `image: <path or URL>`."""


_MACHINE = (
    "What it runs on: `chroot`, where no service starts; `booted`, the whole system with its services, on the "
    "builder's kernel; or `vm`, with a kernel of its own. What the image says, or `chroot`, where nothing is said."
)


class _Step(_Model):
    when: Annotated[
        Annotated[bool, Tag("<bool>")] | Annotated[str, Tag("<text>")],
        by_type("true, false or an expression", "such as `workload_manager == 'slurm'`", bool=bool, text=str),
    ] = Field(
        default=True,
        description="The step is left out unless this is true: a boolean, or a Jinja2 expression over variables and matrix values.",
    )
    timeout: Duration = Field(default="1h", description="How long the step may take, such as `10m`.")
    retries: Annotated[int, Field(ge=0, le=20)] = Field(
        default=0, description="How often the step is tried again when it fails."
    )
    layer: Name | None = Field(
        default=None, description="Neighbouring steps that name the same layer share it."
    )
    machine: Literal["chroot", "booted", "vm"] | None = Field(default=None, description=_MACHINE)


class _Ansible(_Step):
    vars: dict[str, Any] = Field(
        default={}, description="Variables for this step, as strong as `ansible-playbook -e`."
    )
    groups: list[Group] = Field(
        default=[], description="Inventory groups that the machine is in, so that their group_vars apply."
    )
    become: bool | None = Field(
        default=None, description="Whether to become another user; left to the play where nothing is said."
    )
    tags: list[Word] = Field(default=[], description="Only tasks with these tags.")
    skip_tags: list[Word] = Field(default=[], description="No tasks with these tags.")
    engine: Literal["auto", "mitogen", "ansible"] = Field(
        default="auto",
        description="How Ansible runs: through `mitogen`, plain `ansible`, or mitogen where it works (`auto`).",
    )


class PackagesBody(_Model):
    """Packages to install and to remove."""

    install: list[Package] = Field(default=[], description="`name` or `name=version`.")
    remove: list[Package] = Field(default=[], description="Packages that must not be there.")
    recommends: bool = Field(default=False, description="Also install what the packages recommend.")

    @model_validator(mode="after")
    def _something(self) -> PackagesBody:
        if not self.install and not self.remove:
            raise Bad(
                "nothing is installed and nothing removed", hint="name packages in `install` or `remove`"
            )
        return self


class PackagesModel(_Step):
    """Distribution packages."""

    packages: Annotated[
        Annotated[list[Package], Field(min_length=1), Tag("<list>")] | Annotated[PackagesBody, Tag("<map>")],
        by_type("a list or a map", "such as [htop, tmux]", list=list, map=dict),
    ] = Field(description="Packages to install, or `{install: […], remove: […], recommends: true}`.")


class RolesModel(_Ansible):
    """Ansible roles, applied in one play."""

    roles: Annotated[list[RoleName], Field(min_length=1)] = Field(
        description="Names: `common` of the project's `roles/`, or `ingot.cluster.slurm` of a collection."
    )


class PlaybookModel(_Ansible):
    """An Ansible playbook."""

    playbook: ProjectPath = Field(description="The playbook's path in the project.")


class ScriptBody(_Model):
    """A program for the machine: a file of the project, or text."""

    path: ProjectPath | None = Field(default=None, description="The file's path in the project.")
    inline: str | None = Field(
        default=None, description="The program's text; `#!/bin/sh -e` unless it begins with `#!`."
    )
    args: list[str] = Field(default=[], description="Arguments.")
    env: dict[EnvName, str] = Field(default={}, description="Environment variables.")

    @model_validator(mode="after")
    def _one(self) -> ScriptBody:
        if (self.path is None) == (self.inline is None):
            raise Bad("a script has either `path` or `inline`", hint="keep one of them")
        if self.inline is not None and not self.inline.strip():
            raise Bad("the script is empty", hint="write the program's text, or remove the step")
        return self


class ScriptModel(_Step):
    """A program run on the machine as root."""

    script: Annotated[
        Annotated[ProjectPath, Tag("<text>")] | Annotated[ScriptBody, Tag("<map>")],
        by_type("a path or a map", "such as `setup.sh` or {inline: …}", text=str, map=dict),
    ] = Field(description="A path in the project, or `{path: …}` or `{inline: …}` with `args` and `env`.")


class FileBody(_Model):
    """One file or folder copied to the machine."""

    src: ProjectPath | None = Field(default=None, description="A file or a folder of the project.")
    text: str | None = Field(default=None, description="The file's content, instead of `src`.")
    dest: Destination = Field(description="The absolute path on the machine.")
    mode: Mode | None = Field(
        default=None, description='Octal digits in quotes: "0644"; the source\'s own where nothing is said.'
    )
    owner: Owner = Field(default="root", description="The owner.")
    group: Owner = Field(default="root", description="The group.")

    @model_validator(mode="after")
    def _one(self) -> FileBody:
        if (self.src is None) == (self.text is None):
            raise Bad("a file has either `src` or `text`", hint="keep one of them")
        return self


class FilesModel(_Step):
    """Files copied to the machine."""

    files: Annotated[
        Annotated[list[FileBody], Field(min_length=1), Tag("<list>")] | Annotated[FileBody, Tag("<map>")],
        by_type("a map or a list", "such as {src: motd, dest: /etc/motd}", list=list, map=dict),
    ] = Field(description="`{src: …, dest: …}` or `{text: …, dest: …}`, or a list of such.")


class RebootModel(_Step):
    """The machine's system, started anew. Later steps run on the kernel that it comes up with."""

    reboot: bool = Field(
        description="`true`. With `when: needs_reboot` only where the system asks for it, after an update say."
    )
    machine: Literal["vm"] | None = Field(
        default=None, description="A `vm`: nothing else has a kernel of its own."
    )

    @model_validator(mode="after")
    def _wanted(self) -> RebootModel:
        if not self.reboot:
            raise Bad("`reboot: false` does nothing", hint="remove the step, or give it a `when`")
        return self


class CloudInitBody(_Model):
    """User-data for cloud-init: a file of the project, or text."""

    path: ProjectPath | None = Field(default=None, description="The file's path in the project.")
    inline: str | None = Field(default=None, description="The user-data itself, with its first line.")

    @model_validator(mode="after")
    def _one(self) -> CloudInitBody:
        if (self.path is None) == (self.inline is None):
            raise Bad("user-data has either `path` or `inline`", hint="keep one of them")
        return self


class CloudInitModel(_Step):
    """User-data that cloud-init applies on a fresh machine, in a layer of its own."""

    cloud_init: Annotated[
        Annotated[ProjectPath, Tag("<text>")] | Annotated[CloudInitBody, Tag("<map>")],
        by_type("a path or a map", "such as `user-data.yaml` or {inline: …}", text=str, map=dict),
    ] = Field(description="A path in the project, or `{path: …}` or `{inline: …}`.")


class ContainersBody(_Model):
    """Container images to pull."""

    images: Annotated[list[ContainerImage], Field(min_length=1)] = Field(
        description="References: `docker.io/library/alpine:3.20`, or with `@sha256:…`."
    )
    tool: Literal["podman", "docker", "enroot", "apptainer"] | None = Field(
        default=None,
        alias="with",
        description="What pulls them: `podman`, `docker`, `enroot` or `apptainer`; the first that is installed, in this order, where nothing is said.",
    )
    dest: Destination | None = Field(
        default=None,
        description="The folder for the files that enroot and apptainer make; default `/srv/containers`.",
    )

    @model_validator(mode="after")
    def _own_place(self) -> ContainersBody:
        if self.dest and self.tool in ("podman", "docker"):
            raise Bad(f"{self.tool} has a place of its own for images", hint="leave `dest` out")
        return self


class ContainersModel(_Step):
    """Container images pulled into the image, so that nothing is downloaded when they are first used."""

    containers: Annotated[
        Annotated[list[ContainerImage], Field(min_length=1), Tag("<list>")]
        | Annotated[ContainersBody, Tag("<map>")],
        by_type("a list or a map", "such as [docker.io/library/alpine:3.20]", list=list, map=dict),
    ] = Field(description="References, or `{images: […], with: podman, dest: …}`.")


def _kind(value: Any) -> str | None:
    kinds = [kind for kind in KINDS if isinstance(value, dict) and kind in value]
    return f"<{kinds[0]}>" if len(kinds) == 1 else None


AnyStep = (
    PackagesModel
    | RolesModel
    | PlaybookModel
    | ScriptModel
    | FilesModel
    | CloudInitModel
    | ContainersModel
    | RebootModel
)


class StepModel(
    RootModel[
        Annotated[
            Annotated[PackagesModel, Tag("<packages>")]
            | Annotated[RolesModel, Tag("<roles>")]
            | Annotated[PlaybookModel, Tag("<playbook>")]
            | Annotated[ScriptModel, Tag("<script>")]
            | Annotated[FilesModel, Tag("<files>")]
            | Annotated[CloudInitModel, Tag("<cloud_init>")]
            | Annotated[ContainersModel, Tag("<containers>")]
            | Annotated[RebootModel, Tag("<reboot>")],
            Discriminator(_kind),
        ]
    ]
):
    """One step: the smallest change to a machine."""


class ImageModel(_Model):
    """An image, or one for each combination of its matrix."""

    base: Name | None = Field(default=None, description="The name of a base. Either this or `from`.")
    parent: Name | None = Field(
        default=None, alias="from", description="An image of this definition that this one continues."
    )
    targets: list[Name] | None = Field(
        default=None, description="The targets to build for; the parent's, or all, where nothing is said."
    )
    steps: list[Any] = Field(default=[], description="What is done to the machine, in this order.")
    checks: list[ProjectPath] = Field(
        default=[], description="Testinfra files or folders of the project, run after a real boot."
    )
    matrix: dict[VariableName, Annotated[list[Any], Field(min_length=1)]] = Field(
        default={},
        description="Variables with several values: one image is made for each combination, named `<image>-<value>…`.",
    )
    disk: Size | None = Field(
        default=None, description="The disk's size; the target's or the parent's where nothing is said."
    )
    check_timeout: Duration = Field(default="15m", description="How long booting and checking may take.")
    check_machine: Literal["vm", "booted"] = Field(
        default="vm",
        description="What it is booted on to be checked: a `vm`, or `booted`, its system alone, in seconds.",
    )
    machine: Literal["chroot", "booted", "vm"] = Field(
        default="chroot",
        description="What its steps run on, where they say nothing else: `chroot`, `booted` or `vm`.",
    )


SIGNERS = "ingot.signers"


class CacheModel(_Model):
    """Where layers are shared with other computers, and whose are taken."""

    url: CacheAddress = Field(description="Any address that fsspec knows: `s3://bucket/ingot`.")
    signers: ProjectPath = Field(
        default=SIGNERS,
        description="The project's file of allowed signers, as `ssh-keygen` reads it: whose layers are taken.",
    )
    key: KeyPath = Field(
        default="",
        description="The file of the SSH key that signs the layers given, absolute or `~/…`; without one none is.",
    )


class SettingsModel(_Model):
    """What the first file says of the whole project."""

    freshness: Freshness = Field(
        default="never",
        description="How long what comes from outside is good for, such as `7d`: then pins move and steps that "
        "install are applied anew. `never` leaves it to `ingot lock --update`.",
    )
    cache: Annotated[
        Annotated[CacheAddress, Tag("<text>")] | Annotated[CacheModel, Tag("<map>")],
        by_type("an address or a map", "such as `s3://bucket/ingot`", text=str, map=dict),
    ] = Field(
        default="",
        description="Where layers are shared with other computers: an address, or `{url: …, signers: …, key: …}`.",
    )


class DefinitionModel(SettingsModel):
    """A definition of machine images for compute clusters."""

    name: Name = Field(description="The project's name.")
    include: list[str] = Field(
        default=[],
        description="Further files whose variables, targets, bases and images belong here; globs allowed.",
    )
    variables: dict[str, Any] = Field(default={}, description="Values that `${name}` refers to.")
    targets: dict[str, Any] = Field(default={}, description="Where images are built, by name.")
    bases: dict[str, Any] = Field(default={}, description="What images begin with, by name.")
    images: dict[str, Any] = Field(default={}, description="The images, by name.")


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of `ingot.yaml`, for editors: with every description."""

    class Image(ImageModel):
        __doc__ = ImageModel.__doc__
        steps: list[StepModel] = Field(default=[], description="What is done to the machine, in this order.")

    class Definition(DefinitionModel):
        __doc__ = DefinitionModel.__doc__
        variables: dict[str, VariableModel | str | int | float | bool | list[Any]] = Field(
            default={},
            description="Values that `${name}` refers to: a description of each, or just its default.",
        )
        targets: dict[str, TargetModel] = Field(default={}, description="Where images are built, by name.")
        bases: dict[str, dict[str, LocalBaseModel | dict[str, Any]]] = Field(
            default={}, description="What images begin with, by name; then by target or backend."
        )
        images: dict[str, Image] = Field(default={}, description="The images, by name.")

    made = Definition.model_json_schema(by_alias=True)
    definitions = made.pop("$defs")
    definitions["Reference"] = {
        "type": "string",
        "pattern": r"^\$\{[A-Za-z_][A-Za-z0-9_]*\}$",
        "description": "A variable that holds the value.",
    }
    for entry in definitions.values():
        _accept_references(entry)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made, "$defs": definitions}


def _accept_references(entry: dict[str, Any]) -> None:
    """Lets `"${name}"` stand where an object's property is a number, a boolean or one of some words."""
    for key, given in entry.get("properties", {}).items():
        if given.get("type") in ("integer", "number", "boolean") or "enum" in given:
            outer = {word: given.pop(word) for word in ("description", "default", "title") if word in given}
            entry["properties"][key] = {**outer, "anyOf": [given, {"$ref": "#/$defs/Reference"}]}
