"""Looks at an account, in seconds, whether builds for a target can succeed; nothing is made.

Who may do what is found out by `DryRun`, which EC2 answers with `DryRunOperation` where it would have done it, and with
`UnauthorizedOperation` otherwise ("Common query parameters").
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ingot.backends.aws import exam_images, exam_keys, exam_place
from ingot.backends.aws.cloud import Cloud
from ingot.backends.aws.exam import Exam, Look, found
from ingot.backends.aws.policy import Asked, policy
from ingot.backends.aws.shape import BaseShape, TargetShape
from ingot.backends.aws.trouble import DENIED
from ingot.errors import IngotError
from ingot.model.definition import CloudBase
from ingot.model.diagnosis import Diagnosis
from ingot.ports import Wanted


def identity(exam: Exam) -> Iterator[Diagnosis]:
    """Who we are to AWS."""
    who = exam.cloud.ask("get_caller_identity", service="sts")
    yield found("credentials", "ok", f"account {who['Account']}, as {who['Arn']}")


def region(exam: Exam) -> Iterator[Diagnosis]:
    """Whether the account has the region, and those that images are copied to."""
    listed = exam.cloud.ask("describe_regions", AllRegions=True)["Regions"]
    states = {one["RegionName"]: one.get("OptInStatus", "") for one in listed}
    for name in dict.fromkeys([exam.region, *(one.region for one in exam.settings.copy_to)]):
        if name not in states:
            yield found("region", "bad", f"AWS has no region {name}", "`aws ec2 describe-regions` lists them")
        elif states[name] == "not-opted-in":
            enable = f"`aws account enable-region --region-name {name}` does that, which takes some minutes"
            yield found("region", "bad", f"{name} is not enabled for this account", enable)
        else:
            what = "enabled" if name == exam.region else "enabled, for copies"
            yield found("region", "ok", f"{name} is {what}")


_FIRST: tuple[tuple[str, Look], ...] = (("credentials", identity), ("region", region))
"""Without these no other question has an answer."""
_REST: tuple[tuple[str, Look, bool], ...] = (
    ("network", exam_place.network, True),
    ("access", exam_place.access, True),
    ("instance type", exam_place.types, False),
    ("quota", exam_place.quota, False),
    ("source", exam_images.source, True),
    ("name", exam_images.name, True),
    ("encryption", exam_keys.by_default, False),
    ("key", exam_keys.keys, True),
    ("instance profile", exam_place.profile, False),
    ("permission", exam_images.permissions, True),
)
"""What is looked at, and whether a build makes the same calls: one that is denied them fails too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AwsDoctor:
    """Implements `ports.Doctor`. The cloud should have little patience."""

    cloud: Cloud
    settings: TargetShape

    def examine(self, wanted: Sequence[Wanted]) -> Iterator[Diagnosis]:
        """The account first; then, at once, all that it takes part in."""
        exam = Exam(cloud=self.cloud, settings=self.settings, wanted=wanted)
        for what, look in _FIRST:
            seen = _told(what, look, exam, needed=what == "credentials")
            yield from seen
            if any(one.state == "bad" for one in seen):
                yield found("everything else", "skipped", f"not looked at before the {what} is well")
                return
        with ThreadPoolExecutor(len(_REST), thread_name_prefix="doctor") as pool:
            looks = [pool.submit(_told, what, look, exam, needed=needed) for what, look, needed in _REST]
            yield from _causes_once(one for each in looks for one in each.result())

    def policy(self, wanted: Sequence[Wanted]) -> Mapping[str, object]:
        """An IAM policy. No call is made."""
        exam = Exam(cloud=self.cloud, settings=self.settings, wanted=wanted)
        bases = {one.base.name: one.base.source for one in wanted}
        return policy(
            Asked(
                settings=self.settings,
                region=exam.region,
                arches=exam.arches,
                bases=tuple(
                    BaseShape.model_validate(one.query)
                    for one in bases.values()
                    if isinstance(one, CloudBase) and one.backend == "aws"
                ),
            )
        )


def _causes_once(findings: Iterable[Diagnosis]) -> Iterator[Diagnosis]:
    """The findings; what stands in the way of several looks is told by the first of them."""
    causes: dict[str, str] = {}
    for one in findings:
        if one.state == "bad" and causes.setdefault(one.message, one.what) != one.what:
            yield found(one.what, "skipped", f"not looked at before the {causes[one.message]} is well")
        else:
            yield one


def _told(what: str, look: Look, exam: Exam, *, needed: bool) -> tuple[Diagnosis, ...]:
    """All findings of one look, a failure as one more."""
    seen: list[Diagnosis] = []
    try:
        seen.extend(look(exam))
    except IngotError as error:
        denied = error.facts.get("code") in DENIED and not needed
        seen.append(found(what, "warn" if denied else "bad", error.message, error.hint))
    return tuple(seen)
