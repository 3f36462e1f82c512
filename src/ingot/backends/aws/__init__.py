"""Amazon Web Services: EC2 instances, EBS snapshots as layers, AMIs as images."""
