"""A stand-in for the part of AWS that makes and shares images: moto for what it knows, real machines behind EC2.

`server` takes each request: `wire` decodes it and checks it against botocore's own model of the service, `trouble` may
make it fail, and it is answered by moto or, where moto does not know or only pretends, by `instances`, `images`,
`new_images`, `snapshots`, `ebs`, `parameters` or `quotas`. An instance is a system
booted by systemd-nspawn on a raw disk (`machine`, `cell`), reached through its public address on 127.0.0.0/8 (`relay`).
A snapshot is a raw file (`disks`), whether it was taken from a volume or written block by block (`ebs`).

`make aws-bed` starts one by hand; tests use `tests.aws_bed.fixture`.
"""
