"""dask-cloudprovider's `EC2Cluster` on an AMI: the call, and the part of `cloudprovider.yaml` that says the same.

The keys are those of dask-cloudprovider 2025.9.0 (`dask_cloudprovider/cloudprovider.yaml`, section `ec2`).
"""

from __future__ import annotations

import json
from typing import Any

from ingot.lifecycle.consumers import Consumed, Told

_GROUPS = "dask-cloudprovider 2025.9.0 cannot make one: it lets in 8786 and 8787, and its own members"
"""A remark where the target names no security group: the cluster's own attempt ends in a TypeError."""
_TYPES = ("instance_type", "scheduler_instance_type", "worker_instance_type")


def tell(consumed: Consumed) -> Told:
    """`.py` is the call, `.yaml` the fragment."""
    settings = _settings(consumed)
    remarks = [] if "security_groups" in settings else [("security_groups", ["sg-…"], _GROUPS)]
    elsewhere = "".join(f"# {region}: {ami}\n" for region, ami in sorted(consumed.copies.items()))
    head = f"# The same image in other regions:\n{elsewhere}" if elsewhere else ""
    return Told(
        settings={"cloudprovider": {"ec2": _as_configured(settings)}},
        texts={".py": head + _call(settings, remarks), ".yaml": head + _fragment(settings, remarks)},
    )


def _settings(consumed: Consumed) -> dict[str, Any]:
    """The call's arguments. `bootstrap=False`: docker is in the image."""
    options = consumed.options
    types = options.get("instance_type") or []
    profile = str(options.get("instance_profile", ""))
    settings = {
        "region": consumed.image.location,
        "ami": consumed.image.ref,
        "bootstrap": False,
        "instance_type": types if isinstance(types, str) else next(iter(types), ""),
        "docker_image": next(iter(consumed.containers), ""),
        "subnet_id": options.get("subnet", ""),
        "security_groups": list(options.get("security_groups") or ()),
        "iam_instance_profile": {"Arn" if profile.startswith("arn:") else "Name": profile} if profile else {},
        "use_private_ip": options.get("access") == "private" or None,
    }
    return {name: value for name, value in settings.items() if value is False or value}


def _as_configured(settings: dict[str, Any]) -> dict[str, Any]:
    """In the file each of the three types has a default of its own; in the call one stands for all."""
    made = dict(settings)
    if "instance_type" in made:
        made |= dict.fromkeys(_TYPES, made["instance_type"])
    return made


def _call(settings: dict[str, Any], remarks: list[tuple[str, Any, str]]) -> str:
    lines = [f"    {name}={_literal(value)},\n" for name, value in settings.items()]
    lines += [f"    # {name}={_literal(value)},  # {why}\n" for name, value, why in remarks]
    return f"from dask_cloudprovider.aws import EC2Cluster\n\ncluster = EC2Cluster(\n{''.join(lines)})\n"


def _fragment(settings: dict[str, Any], remarks: list[tuple[str, Any, str]]) -> str:
    """JSON's literals are YAML's too, and quote what YAML would take for something else."""
    lines = [f"    {name}: {json.dumps(value)}\n" for name, value in _as_configured(settings).items()]
    lines += [
        f"    # {name}: {json.dumps(value, ensure_ascii=False)}  # {why}\n" for name, value, why in remarks
    ]
    return f"cloudprovider:\n  ec2:\n{''.join(lines)}"


def _literal(value: object) -> str:
    return str(value) if isinstance(value, bool) else json.dumps(value, ensure_ascii=False)
