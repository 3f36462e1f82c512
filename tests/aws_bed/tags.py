"""Tags of images and snapshots, which moto does not know; those of other things are its own."""

from __future__ import annotations

from typing import Any

from tests.aws_bed import images, snapshots
from tests.aws_bed.bed import Answer, Bed
from tests.aws_bed.wire import ApiError, Call

_OURS = ("ami-", "snap-")


def _check(bed: Bed, call: Call) -> list[str]:
    """The resources that are ours, which are there. "Tag your Amazon EC2 resources: Tag restrictions"."""
    for tag in call.params.get("Tags", []):
        if tag["Key"].lower().startswith("aws:"):
            text = f"Tag keys starting with 'aws:' are reserved for internal use: {tag['Key']}"
            raise ApiError("InvalidParameterValue", text)
    ours = [name for name in call.params["Resources"] if name.startswith(_OURS)]
    for name in ours:
        if name.startswith("ami-"):
            images.find(bed, call, name)
        else:
            snapshots.find(bed, call, name)
    return ours


def _ask_moto_for_others(bed: Bed, call: Call, ours: list[str]) -> None:
    others = [name for name in call.params["Resources"] if name not in ours]
    if others:
        bed.ask_moto(call, {**call.params, "Resources": others})
    else:
        bed.dry_run(call)


def create_tags(bed: Bed, call: Call) -> Answer:
    """CreateTags, on all of the resources or none."""
    ours = _check(bed, call)
    _ask_moto_for_others(bed, call, ours)
    tags = {tag["Key"]: tag.get("Value", "") for tag in call.params["Tags"]}
    if ours:
        bed.moto(call).create_tags(ours, tags)
    return {}


def delete_tags(bed: Bed, call: Call) -> Answer:
    """DeleteTags: by key, or by key and value where one is given; without any, all of them."""
    ours = _check(bed, call)
    _ask_moto_for_others(bed, call, ours)
    for name in ours:
        own: list[Any] = bed.tags(call.account, call.region, name)
        tags = call.params.get("Tags") or [{"Key": tag["Key"]} for tag in own]
        bed.moto(call).delete_tags([name], {tag["Key"]: tag.get("Value") for tag in tags})
    return {}


ACTIONS = {"CreateTags": create_tags, "DeleteTags": delete_tags}
