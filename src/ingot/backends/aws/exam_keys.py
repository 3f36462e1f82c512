"""Looks at encryption: what the account encrypts by itself, and whether keys can be used by whom images are shared with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ingot.backends.aws import policy
from ingot.backends.aws.exam import Exam, found
from ingot.backends.aws.publish import GRANTS
from ingot.backends.aws.trouble import DENIED
from ingot.errors import BackendError
from ingot.model.diagnosis import Diagnosis

_TRIED = ("DryRunOperation", "DryRunOperationException")


def by_default(exam: Exam) -> Iterator[Diagnosis]:
    """Whether every new volume and copy is encrypted anyway: with a key that is not named, what is shared is of no use.

    EBS User Guide, "Enable Amazon EBS encryption by default"; "Share an Amazon EBS snapshot": the key of EBS itself cannot.
    """
    named = dict(policy.keys(exam.settings, exam.region))
    for region in dict.fromkeys([exam.region, *(one.region for one in exam.settings.copy_to)]):
        on = exam.cloud.ask("get_ebs_encryption_by_default", region=region)["EbsEncryptionByDefault"]
        if not on:
            continue
        if region in named:
            yield found("encryption", "ok", f"on by default in {region}; the target names the key")
            continue
        key = str(exam.cloud.ask("get_ebs_default_kms_key_id", region=region)["KmsKeyId"])
        if not exam.shared:
            yield found("encryption", "ok", f"on by default in {region}, with {key}")
            continue
        where = "`kms_key`" if region == exam.region else f"`copy_to: [{{region: {region}, kms_key: …}}]`"
        yield found(
            "encryption",
            "bad",
            f"on by default in {region} with {key}: nobody that the image is shared with could use it",
            f"name a key of your own in {where}",
        )


def keys(exam: Exam) -> Iterator[Diagnosis]:
    """Each key that the target names: there, enabled, and our own where the image is shared."""
    for region, key in policy.keys(exam.settings, exam.region):
        about = exam.cloud.ask("describe_key", service="kms", region=region, KeyId=key)["KeyMetadata"]
        wrong = _wrong(about, shared=exam.shared)
        if wrong:
            yield found("key", "bad", f"{key} in {region} {wrong[0]}", wrong[1])
            continue
        yield found("key", "ok", f"{key} in {region} is enabled")
        yield from _others(exam, region, key)


def _wrong(about: Mapping[str, Any], *, shared: bool) -> tuple[str, str] | None:
    """What is wrong with a key, and the remedy."""
    if about["KeyState"] != "Enabled":
        return f"is {about['KeyState']}", "`aws kms enable-key` enables it, or name another"
    if about.get("KeySpec", "SYMMETRIC_DEFAULT") != "SYMMETRIC_DEFAULT":
        return "is not symmetric, and EBS takes no other", "name a symmetric one"
    if shared and about.get("KeyManager") == "AWS":
        return (
            "is AWS's own, which no other account can use",
            "name a key of your own: `aws kms create-key` makes one",
        )
    return None


def _others(exam: Exam, region: str, key: str) -> Iterator[Diagnosis]:
    """Whether the grants of a build could be made; KMS tells by `DryRun` ("CreateGrant")."""
    share = exam.settings.share
    partition = policy.partition(region)
    for account in share.accounts:
        try:
            exam.cloud.ask(
                "create_grant",
                service="kms",
                region=region,
                KeyId=key,
                GranteePrincipal=f"arn:{partition}:iam::{account}:root",
                Operations=list(GRANTS),
                Name=f"ingot-{account}",
                DryRun=True,
            )
        except BackendError as error:
            code = error.facts.get("code")
            if code in _TRIED:
                yield found("key", "ok", f"{account} can be let use it")
                continue
            hint = "`ingot doctor --policy` prints what to allow" if code in DENIED else error.hint
            yield found("key", "bad", f"{account} cannot be let use {key}: {error.message}", hint)
    if share.organizations or share.units:
        yield found(
            "key",
            "warn",
            f"a grant on {key} names accounts, and the image is shared with an organisation too",
            "let the key's policy allow it, by `aws:PrincipalOrgID` (EC2 User Guide, “Allow organizations and OUs to "
            "use a KMS key”)",
        )
