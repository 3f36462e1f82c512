"""What every default VPC has and moto's lack: "Default VPC components", Amazon VPC User Guide."""

from __future__ import annotations

from tests.aws_bed.bed import Answer, Bed
from tests.aws_bed.wire import Call


def describe_route_tables(bed: Bed, call: Call) -> Answer:
    """DescribeRouteTables. A default VPC is born with an internet gateway, to which its main route table leads."""
    ec2 = bed.moto(call)
    for vpc in [one for one in ec2.vpcs.values() if one.is_default]:
        if not ec2.describe_internet_gateways(filters={"attachment.vpc-id": [vpc.id]}):
            gateway = ec2.create_internet_gateway()
            ec2.attach_internet_gateway(gateway.id, vpc.id)
            (table,) = ec2.describe_route_tables(filters={"vpc-id": [vpc.id], "association.main": ["true"]})
            ec2.create_route(table.id, "0.0.0.0/0", gateway_id=gateway.id)
    return bed.ask_moto(call)


ACTIONS = {"DescribeRouteTables": describe_route_tables}
