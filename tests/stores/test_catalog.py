"""The catalog over real SQLite files: versions, places, manifests, checks, and writers at the same time."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest

from ingot.errors import BackendError, NotFoundError
from ingot.model.image import CheckResult, CheckRun, Image, LayerRecord, Manifest, Outcome, Package
from ingot.model.plan import ContentId, LayerKey
from ingot.model.units import Bytes, Seconds
from ingot.stores.catalog import Catalog

CREATED = "2026-11-21T10:00:00+00:00"


def image(digest: str, *, name: str = "node", location: str = "here") -> Image:
    return Image(
        name=name,
        backend="local",
        location=location,
        ref=f"{name}-{digest}",
        digest=ContentId(f"sha256:{digest}"),
        key=LayerKey("sha256:k"),
        arch="x86_64",
        size=Bytes(8 * 2**30),
        created=CREATED,
        labels={},
    )


def manifest(digest: str) -> Manifest:
    return Manifest(
        image="node",
        target="local",
        digest=ContentId(f"sha256:{digest}"),
        project="acme",
        arch="x86_64",
        ingot="0.1",
        created=CREATED,
        run="r1",
        layers=(
            LayerRecord(
                name="packages",
                key=LayerKey("sha256:k"),
                status="built",
                seconds=Seconds(2.5),
                bytes=Bytes(100),
                content=ContentId("sha256:c"),
                steps=("packages htop",),
            ),
        ),
        packages=(Package(name="htop", version="3.2", arch="amd64"),),
        os_release={"ID": "debian"},
        kernel="6.1.0-1-amd64",
        plan={"image": "node", "layers": []},
    )


def check_run(digest: str, *, passed: bool) -> CheckRun:
    result = CheckResult(name="boots", outcome="passed" if passed else "failed", seconds=Seconds(1.0))
    return CheckRun(
        digest=ContentId(f"sha256:{digest}"),
        run="r1",
        created=CREATED,
        machine="qemu tcg",
        boot_seconds=Seconds(20.0),
        results=(result,),
    )


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog(tmp_path / "state" / "catalog.db") as opened:
        yield opened


def test_versions_count_up_and_the_same_content_is_the_same_version(catalog: Catalog) -> None:
    numbers = [
        catalog.record("acme", image(digest), target="local", run=run)
        for digest, run in (("a", "r1"), ("a", "r2"), ("b", "r3"), ("a", "r4"), ("c", "r5"))
    ]
    assert numbers == [1, 1, 2, 1, 3]


def test_projects_and_images_count_for_themselves(catalog: Catalog) -> None:
    assert catalog.record("acme", image("a"), target="local", run="r1") == 1
    assert catalog.record("other", image("b"), target="local", run="r1") == 1
    assert catalog.record("acme", image("c", name="big"), target="local", run="r1") == 1
    assert [entry.image for entry in catalog.images("acme")] == ["big", "node"]


def test_targets_of_one_run_are_one_version(catalog: Catalog) -> None:
    assert catalog.record("acme", image("a"), target="local", run="r1") == 1
    assert catalog.record("acme", image("b"), target="cloud", run="r1") == 1
    assert catalog.record("acme", image("c"), target="local", run="r2") == 2
    assert [(entry.version, entry.target) for entry in catalog.images("acme", "node")] == [
        (2, "local"),
        (1, "local"),
        (1, "cloud"),
    ]


def test_a_copy_elsewhere_is_one_more_place_of_the_version(catalog: Catalog) -> None:
    catalog.record("acme", image("a"), target="local", run="r1")
    assert catalog.record("acme", image("a", location="there"), target="local", run="r2") == 1
    assert [entry.location for entry in catalog.images("acme")] == ["here", "there"]


def test_finding_the_newest_or_a_version(catalog: Catalog) -> None:
    catalog.record("acme", image("a"), target="local", run="r1")
    catalog.record("acme", image("b"), target="local", run="r2")
    assert catalog.find("acme", "node").version == 2
    assert catalog.find("acme", "node@1").digest == "sha256:a"
    assert catalog.find("acme", "node", target="local").ref == "node-b"
    for name, target in (("node@3", ""), ("nod", ""), ("node", "cloud")):
        with pytest.raises(NotFoundError) as caught:
            catalog.find("acme", name, target=target)
        assert "node" in caught.value.hint


def test_globs_match_whole_names(catalog: Catalog) -> None:
    for name in ("node-slurm", "node-pbs", "login"):
        catalog.record("acme", image(name, name=name), target="local", run="r1")
    assert [entry.image for entry in catalog.images("acme", "node-*")] == ["node-pbs", "node-slurm"]
    assert [entry.image for entry in catalog.images("acme", "login")] == ["login"]
    assert catalog.images("acme", "log") == ()


def test_manifests_come_back_as_they_went_in(catalog: Catalog) -> None:
    catalog.record("acme", image("a"), target="local", run="r1", manifest=manifest("a"))
    assert catalog.manifest("sha256:a") == manifest("a")
    assert catalog.manifest("sha256:b") is None


def test_checks_come_back_newest_first(catalog: Catalog) -> None:
    catalog.record_checks(check_run("a", passed=False))
    catalog.record_checks(check_run("a", passed=True))
    assert [run.passed for run in catalog.checks("sha256:a")] == [True, False]
    assert catalog.checks("sha256:a")[0] == check_run("a", passed=True)


def test_outcomes_are_kept_failed_ones_too(catalog: Catalog) -> None:
    outcome = Outcome(
        image="node",
        target="local",
        backend="local",
        location="local",
        status="failed",
        seconds=Seconds(1.5),
        error={"message": "no", "code": 5},
    )
    catalog.record_outcome(outcome, project="acme", run="r1", created=CREATED)
    (kept,) = catalog.outcomes("acme")
    assert (kept["run"], kept["status"], kept["error"]["code"]) == ("r1", "failed", 5)


def test_forgetting_takes_only_what_nothing_else_needs(catalog: Catalog) -> None:
    catalog.record("acme", image("a"), target="local", run="r1", manifest=manifest("a"))
    catalog.record("acme", image("a", location="there"), target="local", run="r2")
    here, there = catalog.images("acme")
    catalog.forget(here)
    assert catalog.images("acme") == (there,)
    assert catalog.manifest("sha256:a") is not None
    catalog.forget(there)
    assert catalog.images("acme") == ()
    assert catalog.manifest("sha256:a") is None
    catalog.forget(there)
    assert catalog.record("acme", image("b"), target="local", run="r3") == 1


def test_a_file_of_a_newer_ingot_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "catalog.db"
    Catalog(path).close()
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE schema SET version = 99")
    with pytest.raises(BackendError, match="newer Ingot") as caught:
        Catalog(path)
    assert "INGOT_STATE" in caught.value.hint


def test_a_file_that_is_no_catalog_is_told(tmp_path: Path) -> None:
    path = tmp_path / "catalog.db"
    path.write_bytes(b"this is no database at all, but long enough" * 40)
    with pytest.raises(BackendError, match=r"catalog\.db"):
        Catalog(path)


def _record_many(path: Path, worker: int) -> list[int]:
    with Catalog(path) as catalog:
        return [
            catalog.record("acme", image(f"{worker}-{n}"), target="local", run=f"r{worker}-{n}")
            for n in range(10)
        ]


def test_several_processes_write_at_once(tmp_path: Path) -> None:
    """They begin together, with no file there yet."""
    path = tmp_path / "catalog.db"
    with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as pool:
        numbers = [number for found in pool.map(_record_many, [path] * 4, range(4)) for number in found]
    assert sorted(numbers) == list(range(1, 41))


def test_the_latest_ref_of_an_image_registered_anew_is_kept(catalog: Catalog) -> None:
    catalog.record("acme", image("a"), target="local", run="r1")
    catalog.record("acme", replace(image("a"), ref="moved"), target="local", run="r2")
    assert [entry.ref for entry in catalog.images("acme")] == ["moved"]
