"""The actions on tags and key pairs. Each cites its page in the Amazon EC2 API Reference by its own name."""

from __future__ import annotations

from tests.aws_bed.bed import Answer, Bed
from tests.aws_bed.wire import ApiError, Call


def describe_tags(bed: Bed, call: Call) -> Answer:
    """DescribeTags: what was deleted has none (moto's does), and what is too new to be found is not listed."""
    answer = bed.ask_moto(call)
    there = _there(bed, call)
    kept = [
        tag
        for tag in answer.get("Tags", [])
        if tag["ResourceId"] in there and not bed.trouble.hidden(tag["ResourceId"])
    ]
    return {**answer, "Tags": kept}


def _there(bed: Bed, call: Call) -> set[str]:
    """The ids of what can bear tags; a terminated instance still does, for about an hour ("Terminate your instance")."""
    ec2 = bed.moto(call)
    groups = (group for of_vpc in ec2.groups.values() for group in of_vpc.values())
    return {
        *bed.world.images,
        *bed.world.snapshots,
        *(instance.id for instance in ec2.all_instances()),
        *ec2.volumes,
        *(pair.id for pair in ec2.key_pairs.values()),
        *(group.id for group in groups),
    }


def delete_key_pair(bed: Bed, call: Call) -> Answer:
    """DeleteKeyPair: by its name or by its id (of which moto knows the name alone); one that is gone is fine."""
    if call.params.get("KeyName"):
        return bed.ask_moto(call)
    wanted = call.params.get("KeyPairId")
    if not wanted:
        raise ApiError("MissingParameter", "The request must contain the parameter KeyName or KeyPairId")
    pairs = bed.moto(call).key_pairs
    for name in [name for name, pair in pairs.items() if pair.id == wanted]:
        del pairs[name]
    return {"Return": True}


ACTIONS = {"DeleteKeyPair": delete_key_pair, "DescribeTags": describe_tags}
