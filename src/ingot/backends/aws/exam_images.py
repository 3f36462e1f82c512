"""Looks at images: those that builds begin with, the names of those that they make, and whether they may be made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ingot.backends.aws import names, tags
from ingot.backends.aws import source as sources
from ingot.backends.aws.exam import Exam, found
from ingot.backends.aws.place import find_place
from ingot.backends.aws.trouble import DENIED, action
from ingot.errors import BackendError, IngotError, RefusedError
from ingot.model.definition import CloudBase
from ingot.model.diagnosis import Diagnosis
from ingot.model.units import format_bytes
from ingot.ports import Token, Wanted

_TOKEN = Token("ingot-doctor-0")
_ALLOWED = "DryRunOperation"
_UNIQUE = ("{created}", "{digest}")


def source(exam: Exam) -> Iterator[Diagnosis]:
    """The AMI of each base: pinned, or the one that fits now; who logs in, and whether its disk is large enough."""
    for one in {(each.base.name, each.arch): each for each in exam.wanted}.values():
        image = _source(exam, one)
        name, ami = one.base.name, image["ImageId"]
        if not (exam.settings.user or _user(one) or sources.guess_user(str(image.get("Name", "")))):
            who = f"it is not known who logs in to instances of {ami} ({image.get('Name', '')})"
            yield found("source", "bad", who, "set `user` on the target")
        size = _root_size(image)
        if size * tags.GIB > one.base.disk:
            large = f"{ami} has a disk of {size} GiB, and the target's is {format_bytes(one.base.disk)}"
            yield found("source", "bad", large, f"write `disk: {size} GiB` on the target, or more")
        pinned = "pinned" if one.base.pins.get(sources.IMAGE) else "not pinned yet"
        yield found("source", "ok", f"{name} is {ami} ({image.get('Name', '')}), {pinned}")


def _user(one: Wanted) -> str:
    return str(one.base.source.query.get("user", "")) if isinstance(one.base.source, CloudBase) else ""


def _source(exam: Exam, one: Wanted) -> Mapping[str, Any]:
    """The source as EC2 describes it. Raises NotFoundError, and BackendError for what is no AMI."""
    given = one.base.source
    if not isinstance(given, CloudBase) or given.backend != "aws":
        raise BackendError(
            f"the base {one.base.name} is not an AMI, and instances start from one",
            hint=f"give `bases.{one.base.name}` an entry `aws:`, such as `{{ami: ami-…}}`",
        )
    pin = one.base.pins.get(sources.IMAGE, "")
    query = {"ami": pin} if pin else given.query
    ami = sources.Finder(cloud=exam.cloud).find(query, arch=one.arch).pins[sources.IMAGE]
    described: Mapping[str, Any] = exam.cloud.ask("describe_images", ImageIds=[ami])["Images"][0]
    return described


def _root_size(image: Mapping[str, Any]) -> int:
    """GiB."""
    return next(
        (
            int(mapping.get("Ebs", {}).get("VolumeSize", 0))
            for mapping in image.get("BlockDeviceMappings", ())
            if mapping.get("DeviceName") == image.get("RootDeviceName")
        ),
        0,
    )


def name(exam: Exam) -> Iterator[Diagnosis]:
    """Whether the names that AMIs will get differ from each other, and are free in every region."""
    template = exam.settings.ami_name
    made: dict[str, str] = {}
    for one in exam.wanted:
        words = dict.fromkeys(names.WORDS, "0" * 12) | {
            "project": one.project,
            "image": one.image,
            "created": "20260101-000000",
            "arch": one.arch,
        }
        plain, fit = template.format_map(words), names.ami_name(template, words)
        if fit != plain:
            yield found(
                "name", "warn", f"{plain!r} becomes {fit!r}: EC2 takes 3 to 128 characters, and not all"
            )
        if fit in made:
            same = f"{made[fit]} and {one.image} would both be called {fit!r}"
            yield found("name", "bad", same, "put `{image}` and `{arch}` into `ami_name`")
        made[fit] = one.image
    if any(word in template for word in _UNIQUE):
        yield found("name", "ok", f"AMIs are called {template}, which is free each time")
    else:
        yield from _taken(exam, made)


def _taken(exam: Exam, made: Mapping[str, str]) -> Iterator[Diagnosis]:
    regions = dict.fromkeys([exam.region, *(one.region for one in exam.settings.copy_to)])
    hint = "put `{created}` or `{digest}` into `ami_name`, or deregister that one"
    for fit in made:
        for region in regions:
            wanted = tags.filters({"name": fit})
            known = exam.cloud.list(
                "describe_images", "Images", region=region, Owners=["self"], Filters=wanted
            )
            taken = next(known, None)
            if taken is not None:
                message = f"{fit!r} is the name of {taken['ImageId']} in {region}; the next one's gets its digest added"
                yield found("name", "warn", message, hint)
    if made:
        yield found("name", "ok", f"AMIs are called {', '.join(made)}")


def permissions(exam: Exam) -> Iterator[Diagnosis]:
    """Whether EC2 would let us launch, by the calls of a build with `DryRun`; what needs a thing of ours cannot be tried."""
    marks = {**exam.settings.tags, tags.TOKEN: _TOKEN}
    allowed: list[str] = []
    for operation, request in _requests(exam, marks):
        refusal = _refused(exam, operation, request)
        if refusal is None:
            allowed.append(action(operation))
            continue
        denied = refusal.facts.get("code") in DENIED
        hint = "`ingot doctor --policy` prints what to allow" if denied else refusal.hint
        yield found("permission", "bad", refusal.message, hint)
    if allowed:
        yield found("permission", "ok", f"allowed, as far as EC2 tells beforehand: {', '.join(allowed)}")


def _requests(exam: Exam, marks: Mapping[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
    settings = exam.settings
    where = find_place(exam.cloud, settings)
    public = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f doctor\n"
    yield (
        "import_key_pair",
        {
            "KeyName": _TOKEN,
            "PublicKeyMaterial": public.encode(),
            "TagSpecifications": tags.specification(["key-pair"], marks),
        },
    )
    if not settings.security_groups:
        group = {
            "GroupName": _TOKEN,
            "Description": "Ingot: never made",
            "TagSpecifications": tags.specification(["security-group"], marks),
        }
        yield "create_security_group", group | ({"VpcId": where.vpc} if where.vpc else {})
    if not exam.wanted:
        return
    one = exam.wanted[0]
    image = _source(exam, one)
    request: dict[str, Any] = {
        "ImageId": image["ImageId"],
        "InstanceType": exam.types(one.arch)[0],
        "MinCount": 1,
        "MaxCount": 1,
        "MetadataOptions": {"HttpTokens": "required", "HttpEndpoint": "enabled"},
        "TagSpecifications": tags.specification(["instance", "volume"], marks),
    }
    if where.subnet:
        request["SubnetId"] = where.subnet
    if settings.security_groups:
        request["SecurityGroupIds"] = list(settings.security_groups)
    if settings.instance_profile:
        by = "Arn" if settings.instance_profile.startswith("arn:") else "Name"
        request["IamInstanceProfile"] = {by: settings.instance_profile}
    yield "run_instances", request


def _refused(exam: Exam, operation: str, request: Mapping[str, Any]) -> IngotError | None:
    """Why EC2 would refuse a call; None where it would not."""
    try:
        exam.cloud.ask(operation, DryRun=True, **request)
    except (BackendError, RefusedError) as error:
        return None if error.facts.get("code") == _ALLOWED else error
    raise BackendError(
        f"what answers in AWS's place has done {operation} in spite of DryRun",
        hint="`ingot sweep --strays` finds what it made",
    )
