"""The catalog's tables, for SQLite and PostgreSQL alike.

A version is one state of an image's recipe, numbered from 1; it has an image for each target, at one location of one
backend or at several. Manifests and checks hang on an image's digest, so that every copy shares them. Outcomes are
what every build came to, failed ones too.

Channels (names such as `stable` that point at a version, with their history) will be two tables that refer to
`versions.id`; nothing here has to change for them.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)

SCHEMA = 1
"""Raised with every change of a table; `catalog.py` migrates older files and refuses newer ones."""

metadata = MetaData()

schema = Table("schema", metadata, Column("version", Integer, nullable=False))

versions = Table(
    "versions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("project", String, nullable=False),
    Column("image", String, nullable=False),
    Column("number", Integer, nullable=False),
    Column("recipe", String, nullable=False),  # the key of the plan that made it
    Column("run", String, nullable=False),
    Column("created", String, nullable=False),  # UTC, ISO 8601
    UniqueConstraint("project", "image", "number"),
)

images = Table(
    "images",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("version_id", ForeignKey("versions.id", ondelete="CASCADE"), nullable=False),
    Column("target", String, nullable=False),
    Column("backend", String, nullable=False),
    Column("location", String, nullable=False),
    Column("ref", String, nullable=False),
    Column("digest", String, nullable=False),
    Column("key", String, nullable=False),
    Column("arch", String, nullable=False),
    Column("size", BigInteger, nullable=False),  # the disk's virtual size in bytes
    Column("status", String, nullable=False),
    Column("created", String, nullable=False),
    UniqueConstraint("version_id", "target", "backend", "location"),
    Index("images_by_digest", "digest"),
)

manifests = Table(
    "manifests",
    metadata,
    Column("digest", String, primary_key=True),
    Column("created", String, nullable=False),
    Column("document", JSON, nullable=False),
)

checks = Table(
    "checks",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("digest", String, nullable=False),
    Column("run", String, nullable=False),
    Column("created", String, nullable=False),
    Column("passed", Integer, nullable=False),
    Column("document", JSON, nullable=False),
    Index("checks_by_digest", "digest"),
)

outcomes = Table(
    "outcomes",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("run", String, nullable=False),
    Column("project", String, nullable=False),
    Column("image", String, nullable=False),
    Column("target", String, nullable=False),
    Column("backend", String, nullable=False),
    Column("location", String, nullable=False),
    Column("status", String, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("version", Integer),
    Column("digest", String, nullable=False),
    Column("created", String, nullable=False),
    Column("document", JSON, nullable=False),
    Index("outcomes_by_image", "project", "image"),
)
