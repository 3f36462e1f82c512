"""The shape of `ingot.yaml`: pydantic models at the file's edge, and the JSON Schema made of them.

Everything a user can write is described here once; editors show these descriptions.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, RootModel, Tag, model_validator

from ingot.definition.fields import (
    CacheAddress,
    Checksum,
    Component,
    Duration,
    EnvName,
    Freshness,
    KeyPath,
    Mirror,
    Name,
    Package,
    ProjectPath,
    Size,
    Suite,
    VariableName,
    by_type,
    check_project_path,
    shape,
)
from ingot.definition.messages import Bad
from ingot.definition.step_schema import Model, StepModel


class VariableModel(Model):
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


class TargetModel(Model):
    """One place to build for. Further keys are the backend's own options."""

    model_config = ConfigDict(extra="allow", strict=True, defer_build=True)
    backend: Name = Field(description="`local`, or a cloud: `aws`, `azure`, `gcp`, `openstack`.")
    arch: Literal["x86_64", "aarch64"] = Field(default="x86_64", description="The machine's architecture.")
    disk: Size = Field(default="8 GiB", description="The disk's size, such as `8 GiB`.")
    build: Literal["native", "local"] = Field(
        default="native",
        description="Where disks are made: on the backend's own machines (`native`), or on this computer, to be "
        "imported there (`local`).",
    )


class DebootstrapModel(Model):
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


class DiskImageModel(Model):
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


class ImageModel(Model):
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


class CacheModel(Model):
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


class SettingsModel(Model):
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
