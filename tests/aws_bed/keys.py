"""The part of KMS that moto ignores: AWS KMS API Reference."""

from __future__ import annotations

from tests.aws_bed.bed import Answer, Bed
from tests.aws_bed.wire import ApiError, Call


def create_grant(bed: Bed, call: Call) -> Answer:
    """CreateGrant: with `DryRun` nothing is granted."""
    if call.dry:
        _, why = bed.find_key(call, call.params["KeyId"])
        if why:
            raise ApiError("NotFoundException", f"Key '{call.params['KeyId']}' does not exist")
        raise ApiError(
            "DryRunOperationException",
            "The request would have succeeded, but the DryRun option is set.",
            status=412,
        )
    return bed.ask_moto(call)


def describe_key(bed: Bed, call: Call) -> Answer:
    """DescribeKey: of `alias/aws/ebs` AWS is the manager ("AWS managed keys")."""
    answer = bed.ask_moto(call)
    ours, why = bed.find_key(call, "alias/aws/ebs")
    if not why and answer["KeyMetadata"]["Arn"] == ours:
        answer["KeyMetadata"]["KeyManager"] = "AWS"
    return answer


ACTIONS = {"CreateGrant": create_grant, "DescribeKey": describe_key}


def get_ebs_default_kms_key_id(bed: Bed, call: Call) -> Answer:
    """GetEbsDefaultKmsKeyId, of EC2: the key of EBS itself unless the account says another."""
    return {"KmsKeyId": bed.default_key(call)}


EC2_ACTIONS = {"GetEbsDefaultKmsKeyId": get_ebs_default_kms_key_id}
