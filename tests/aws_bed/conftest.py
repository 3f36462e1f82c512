"""The bed's own tests use the fixtures that it has for others."""

from __future__ import annotations

from tests.aws_bed.fixture import aws_bed, bed, key_pair

__all__ = ["aws_bed", "bed", "key_pair"]
