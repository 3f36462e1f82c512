"""Looks at where instances are to run: the network, the way to them, their types and how many there may be."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ingot.backends.aws import place, tags
from ingot.backends.aws.exam import Exam, found
from ingot.backends.aws.place import find_place
from ingot.errors import BackendError
from ingot.model.diagnosis import Diagnosis, State
from ingot.system import process

_QUOTAS = {
    "f": ("L-74FC7D96", "L-88CF9481"),
    "g": ("L-DB2E81BA", "L-3819A6DF"),
    "vt": ("L-DB2E81BA", "L-3819A6DF"),
    "p": ("L-417A185B", "L-7212CCBC"),
    "x": ("L-7295265B", "L-E3A00192"),
    "inf": ("L-1945791B", "L-B5D1601B"),
    "dl": ("L-6E869C2A", "L-85EED4F7"),
}
_STANDARD = ("L-1216C47A", "L-34B43A08")
_STANDARD_FAMILIES = frozenset("acdhimrtz")
"""Quotas count virtual processors by kinds of types: on demand, spot. EC2 User Guide, "On-Demand Instance quotas"; the codes
are those that Service Quotas lists for `ec2`."""
_AT_ONCE = 100
"""Instance types that one DescribeInstanceTypes takes."""


def network(exam: Exam) -> Iterator[Diagnosis]:
    """The subnet, the way out of it, and for `access: public` the way in."""
    subnets = _subnets(exam)
    wrong: dict[tuple[State, str, str], list[str]] = {}
    for subnet in subnets:
        for trouble in _wrong(exam, subnet):
            wrong.setdefault(trouble, []).append(str(subnet["SubnetId"]))
    for (state, message, hint), names in wrong.items():
        yield found("network", state, f"{_several(names)}: {message}", hint)
    if not wrong:
        default = "" if exam.settings.subnet or exam.settings.subnet_filters else ", of the default VPC"
        names = [str(one["SubnetId"]) for one in subnets]
        yield found("network", "ok", f"{_several(names)}{default}: a way out is there")


def _several(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{len(names)} subnets ({names[0]}, …)"


def _subnets(exam: Exam) -> Sequence[Mapping[str, Any]]:
    """The one that a launch names, or those of the default VPC, one of which EC2 takes."""
    where = find_place(exam.cloud, exam.settings)
    if where.subnet:
        answer = exam.cloud.ask("describe_subnets", SubnetIds=[where.subnet])
        return tuple(answer["Subnets"])
    subnets = tuple(
        exam.cloud.list("describe_subnets", "Subnets", Filters=tags.filters({"default-for-az": "true"}))
    )
    if not subnets:
        raise BackendError(
            f"the default VPC in {exam.region} has no subnet",
            hint="`aws ec2 create-default-subnet --availability-zone …` makes one, or name a `subnet`",
        )
    return subnets


def _wrong(exam: Exam, subnet: Mapping[str, Any]) -> Iterator[tuple[State, str, str]]:
    """What is wrong with a subnet, for the way in which instances are reached: state, message, hint."""
    settings = exam.settings
    if not subnet["AvailableIpAddressCount"]:
        yield "bad", "no free address", "free some, or name another `subnet`"
    given = settings.public_ip
    public = bool(subnet.get("MapPublicIpOnLaunch") if given is None else given)
    way = _default_route(exam, subnet)
    gateway = way.startswith("igw-")
    if settings.access == "public" and not gateway:
        yield (
            "bad",
            "no route to an internet gateway, and `access: public` needs one",
            "name another `subnet`, or reach instances by `access: private` or `access: ssm`",
        )
    elif settings.access == "public" and not public:
        yield (
            "bad",
            "instances get no public address, and `access: public` needs one",
            "write `public_ip: true` on the target",
        )
    elif not way or (gateway and not public):
        why = "an internet gateway, but no public address for instances" if way else "no default route"
        ssm = (
            ", and Session Manager needs one or its endpoints in the VPC" if settings.access == "ssm" else ""
        )
        yield (
            "warn",
            f"{why}: steps fetch nothing from outside{ssm}",
            "route it through a NAT gateway, or write `public_ip: true`",
        )


def _default_route(exam: Exam, subnet: Mapping[str, Any]) -> str:
    """Where a subnet sends what is for the internet, "" for nowhere: by its own route table, or its VPC's main one."""
    of_vpc = tags.filters({"vpc-id": subnet["VpcId"]})
    main = ""
    for table in exam.cloud.list("describe_route_tables", "RouteTables", Filters=of_vpc):
        routes = [one for one in table["Routes"] if one.get("DestinationCidrBlock") == "0.0.0.0/0"]
        way = next((_target(one) for one in routes if one.get("State") != "blackhole"), "")
        for association in table.get("Associations", ()):
            if association.get("SubnetId") == subnet["SubnetId"]:
                return way
            if association.get("Main"):
                main = way
    return main


def _target(route: Mapping[str, Any]) -> str:
    kinds = ("GatewayId", "NatGatewayId", "TransitGatewayId", "NetworkInterfaceId", "VpcPeeringConnectionId")
    return next((str(route[kind]) for kind in kinds if route.get(kind)), "elsewhere")


def access(exam: Exam) -> Iterator[Diagnosis]:
    """How instances are reached from here."""
    settings = exam.settings
    if settings.security_groups:
        groups = exam.cloud.ask("describe_security_groups", GroupIds=list(settings.security_groups))
        named = ", ".join(str(one["GroupId"]) for one in groups["SecurityGroups"])
        yield found("access", "ok", f"the security groups are there: {named}")
    if settings.access == "ssm":
        yield from _session_manager(exam)
    elif settings.allow_from:
        yield found("access", "ok", f"SSH is let in from {', '.join(settings.allow_from)} alone")
    elif not settings.security_groups and os.environ.get("AWS_ENDPOINT_URL"):
        stand_in = "this computer's own address is not asked for where something stands in for AWS"
        yield found("access", "skipped", stand_in, "`allow_from` on the target says it")
    elif not settings.security_groups:
        networks = ", ".join(place.own_networks(settings))
        yield found("access", "ok", f"SSH is let in from this computer alone ({networks})")


def _session_manager(exam: Exam) -> Iterator[Diagnosis]:
    missing = [name for name in ("aws", "session-manager-plugin") if not process.have(name)]
    if missing:
        yield found(
            "access",
            "bad",
            f"`access: ssm` needs programs that are not installed: {', '.join(missing)}",
            "install the AWS command line and its Session Manager plugin",
        )
    else:
        yield found("access", "ok", "Session Manager's programs are installed")
    if not exam.settings.instance_profile:
        yield found(
            "access",
            "warn",
            "no `instance_profile` is named, and an instance joins Session Manager with a role only",
            "name one whose role has `AmazonSSMManagedInstanceCore`, unless the account manages hosts by default",
        )


def types(exam: Exam) -> Iterator[Diagnosis]:
    """Whether the instance types are offered here, and fit the architecture."""
    for arch in exam.arches:
        wanted = list(exam.types(arch))
        offered = _offered(exam, wanted)
        known = _about(exam, offered)
        theirs = "arm64" if arch == "aarch64" else arch
        fit = [
            name
            for name in wanted
            if name in known and theirs in known[name]["ProcessorInfo"]["SupportedArchitectures"]
        ]
        for name in wanted:
            if name in offered and name not in fit:
                yield found(
                    "instance type", "bad", f"{name} is not of {arch}", "name types of the target's `arch`"
                )
        missing = [name for name in wanted if name not in offered]
        if missing:
            state: State = "warn" if fit else "bad"
            where = f"{'the zone of the subnet' if exam.settings.subnet else exam.region}"
            elsewhere = "name others in `instance_type`, or a `subnet` in another zone"
            yield found("instance type", state, f"{', '.join(missing)}: not offered in {where}", elsewhere)
        if fit:
            yield found("instance type", "ok", f"offered for {arch}, in this order: {', '.join(fit)}")


def _offered(exam: Exam, wanted: Sequence[str]) -> frozenset[str]:
    request: dict[str, Any] = {"LocationType": "region"}
    filters: dict[str, Any] = {"instance-type": list(wanted)}
    if exam.settings.subnet or exam.settings.subnet_filters:
        filters["location"] = _subnets(exam)[0]["AvailabilityZone"]
        request["LocationType"] = "availability-zone"
    listed = exam.cloud.list(
        "describe_instance_type_offerings",
        "InstanceTypeOfferings",
        Filters=tags.filters(filters),
        **request,
    )
    return frozenset(one["InstanceType"] for one in listed)


def _about(exam: Exam, names: Iterable[str]) -> dict[str, Mapping[str, Any]]:
    """Instance types as EC2 describes them."""
    ordered = sorted(set(names))
    seen: dict[str, Mapping[str, Any]] = {}
    for start in range(0, len(ordered), _AT_ONCE):
        part = ordered[start : start + _AT_ONCE]
        for one in exam.cloud.list("describe_instance_types", "InstanceTypes", InstanceTypes=part):
            seen[one["InstanceType"]] = one
    return seen


def quota(exam: Exam) -> Iterator[Diagnosis]:
    """Whether one more instance fits beside those that run now, by the quota of its type."""
    wanted = [name for arch in exam.arches for name in exam.types(arch)]
    running = _running(exam)
    about = _about(exam, [*_offered(exam, wanted), *(kind for kind, _ in running)])
    for spot in (True, False) if exam.settings.spot else (False,):
        first: dict[str, str] = {}
        for name in wanted:
            code = _code(name, spot=spot)
            if code and name in about:
                first.setdefault(code, name)
        for code, name in first.items():
            used = sum(
                _cpus(about, kind)
                for kind, market in running
                if (market == "spot") == spot and _code(kind, spot=spot) == code
            )
            yield _quota(exam, code, name, used=used, need=_cpus(about, name))


def _running(exam: Exam) -> list[tuple[str, str]]:
    """(type, `spot` or "") of the instances that count."""
    live = tags.filters({"instance-state-name": ["pending", "running"]})
    return [
        (str(one["InstanceType"]), str(one.get("InstanceLifecycle", "")))
        for reservation in exam.cloud.list("describe_instances", "Reservations", Filters=live)
        for one in reservation["Instances"]
    ]


def _quota(exam: Exam, code: str, name: str, *, used: int, need: int) -> Diagnosis:
    answer = exam.cloud.ask("get_service_quota", service="service-quotas", ServiceCode="ec2", QuotaCode=code)[
        "Quota"
    ]
    limit = int(answer["Value"])
    told = f"{answer['QuotaName']}: {used} of {limit} vCPUs in use"
    if used + need <= limit:
        return found("quota", "ok", f"{told}, {name} takes {need}")
    ask = f"aws service-quotas request-service-quota-increase --service-code ec2 --quota-code {code}"
    hint = f"`{ask} --desired-value {used + need}` asks for more, or name smaller types"
    return found("quota", "bad", f"{told}, and {name} takes {need}", hint)


def _cpus(about: Mapping[str, Mapping[str, Any]], name: str) -> int:
    return int(about[name]["VCpuInfo"]["DefaultVCpus"]) if name in about else 0


def _code(name: str, *, spot: bool) -> str:
    """The code of the quota that a type counts against; "" for one that is not known here."""
    letters = re.match("[a-z]*", name)
    family = letters.group() if letters else ""
    codes = _QUOTAS.get(family) or (_STANDARD if family[:1] in _STANDARD_FAMILIES else None)
    if family in ("trn", "hpc", "mac"):
        codes = None
    return codes[1 if spot else 0] if codes else ""


def profile(exam: Exam) -> Iterator[Diagnosis]:
    """Whether the instance profile is there, with a role."""
    named = exam.settings.instance_profile
    if not named:
        return
    name = named.rpartition("/")[2]
    about = exam.cloud.ask("get_instance_profile", service="iam", InstanceProfileName=name)["InstanceProfile"]
    roles = ", ".join(str(role["RoleName"]) for role in about["Roles"])
    if roles:
        yield found("instance profile", "ok", f"{name} stands for the role {roles}")
    else:
        hint = "`aws iam add-role-to-instance-profile` gives it one"
        yield found("instance profile", "bad", f"{name} has no role", hint)
