"""The shape of steps in `ingot.yaml`: pydantic models at the file's edge. Editors show these descriptions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, RootModel, Tag, model_validator

from ingot.definition.fields import (
    ContainerImage,
    Destination,
    Duration,
    EnvName,
    Group,
    Mode,
    Name,
    Owner,
    Package,
    ProjectPath,
    RoleName,
    Word,
    by_type,
)
from ingot.definition.messages import Bad

KINDS = ("packages", "roles", "playbook", "script", "files", "cloud_init", "containers", "reboot")
"""What a step can do; the key that says it."""


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, defer_build=True)


_MACHINE = (
    "What it runs on: `chroot`, where no service starts; `booted`, the whole system with its services, on the "
    "builder's kernel; or `vm`, with a kernel of its own. What the image says, or `chroot`, where nothing is said."
)


class _Step(Model):
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


class PackagesBody(Model):
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


class ScriptBody(Model):
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


class FileBody(Model):
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


class CloudInitBody(Model):
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


class ContainersBody(Model):
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
