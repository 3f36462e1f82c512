"""What garbage collection takes: decided over values, applied over a store in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot.errors import RefusedError
from ingot.lifecycle.gc import Drop, ImageUse, View, apply, decide, old_runs, prune_runs
from ingot.model.events import Event
from ingot.model.image import LayerRef
from ingot.model.plan import ContentId, LayerKey
from ingot.model.units import Bytes, Seconds
from ingot.ports import StoredLayer
from ingot.system.locks import lease

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
DAY = 86400.0


def store(
    parents: Mapping[str, str | None], *, days: Mapping[str, float] | None = None, leased: str = ""
) -> tuple[StoredLayer, ...]:
    """Layers of 10 bytes by name, each on its parent, last used so many days ago (100 unless told)."""
    known = days or {}
    return tuple(
        StoredLayer(
            ref=LayerRef(
                key=LayerKey(f"k-{name}"),
                content=ContentId(name),
                parent=ContentId(parent) if parent else None,
                ref=name,
                size=Bytes(10),
                created="",
            ),
            last_used=NOW - timedelta(days=known.get(name, 100.0)),
            leased=name in leased.split(),
            children=frozenset(ContentId(child) for child, of in parents.items() if of == name),
        )
        for name, parent in parents.items()
    )


# base ← tools ← seal1 (old version), base ← tools ← slurm ← seal2 (newest), base ← try (nobody's)
TREE = {
    "base": None,
    "tools": "base",
    "seal1": "tools",
    "slurm": "tools",
    "seal2": "slurm",
    "try": "base",
}
IMAGES = {
    ContentId("seal1"): ImageUse(name="node@1", newest=False),
    ContentId("seal2"): ImageUse(name="node@2", newest=True),
}


def names(drops: tuple[Drop, ...]) -> list[str]:
    return [drop.ref.ref for drop in drops]


def view(
    parents: Mapping[str, str | None] = TREE,
    *,
    days: Mapping[str, float] | None = None,
    leased: str = "",
    images: Mapping[ContentId, ImageUse] = IMAGES,
    keep: frozenset[LayerKey] = frozenset(),
) -> View:
    return View(now=NOW, layers=store(parents, days=days, leased=leased), images=images, keep=keep)


def test_without_a_limit_only_what_no_image_needs_goes() -> None:
    assert names(decide(view())) == ["try"]
    assert decide(view())[0].reason == "no image needs it"


def test_what_was_used_within_a_day_stays_for_going_on_with() -> None:
    assert decide(view(days={"try": 0.5})) == ()


def test_age_takes_old_versions_but_never_the_newest() -> None:
    drops = decide(view(), older_than=Seconds(30 * DAY))
    assert names(drops) == ["try", "seal1"]
    assert drops[1].image == "node@1"
    assert drops[1].reason == "unused for 2400h00m"


def test_a_cap_takes_the_least_needed_and_longest_unused_first() -> None:
    days = {"try": 1.0, "seal1": 50.0}
    assert names(decide(view(days=days), max_bytes=Bytes(50))) == ["try"]
    assert names(decide(view(days=days), max_bytes=Bytes(40))) == ["try", "seal1"]
    assert decide(view(days=days), max_bytes=Bytes(60)) == ()


def test_a_cap_below_what_is_protected_takes_no_more_than_the_rest() -> None:
    assert names(decide(view(), max_bytes=Bytes(1))) == ["try", "seal1"]


def test_whole_chains_go_leaf_by_leaf() -> None:
    chain = {"a": None, "b": "a", "c": "b"}
    assert names(decide(view(chain, images={}), max_bytes=Bytes(0))) == ["c", "b", "a"]


def test_leased_kept_and_just_used_ones_stay_with_all_below() -> None:
    chain = {"a": None, "b": "a", "c": "b"}
    for protected in (
        view(chain, images={}, leased="b"),
        view(chain, images={}, keep=frozenset({LayerKey("k-b")})),
        view(chain, images={}, days={"b": 0.001}),
    ):
        assert names(decide(protected, max_bytes=Bytes(0))) == ["c"]


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=12),
    st.sets(st.integers(0, 11)),
    st.sets(st.integers(0, 11)),
    st.integers(0, 120),
)
def test_whatever_is_asked_no_layer_loses_its_parent_and_what_is_protected_stays(
    parents: list[int], leased: set[int], newest: set[int], cap: int
) -> None:
    tree = {f"l{n}": f"l{p % n}" if n and p else None for n, p in enumerate(parents)}
    images = {ContentId(f"l{n}"): ImageUse(name=f"i{n}", newest=True) for n in newest}
    look = view(tree, images=images, leased=" ".join(f"l{n}" for n in leased))
    gone: set[str] = set()
    for drop in decide(look, max_bytes=Bytes(cap), older_than=Seconds(DAY)):
        children = {child for child, parent in tree.items() if parent == drop.ref.ref}
        assert children <= gone
        gone.add(drop.ref.ref)
    stays = {f"l{n}" for n in (leased | newest)} & tree.keys()
    for below in list(stays):
        parent = tree[below]
        while parent:
            stays.add(parent)
            parent = tree[parent]
    assert gone == tree.keys() - stays


class Store:
    """A layer store that refuses what it is told to."""

    def __init__(self, refuse: str = "") -> None:
        self.dropped: list[str] = []
        self._refuse = refuse

    def layers(self) -> Iterator[StoredLayer]:
        return iter(store(TREE))

    def drop(self, ref: LayerRef) -> None:
        if ref.ref == self._refuse:
            raise RefusedError(f"the layer {ref.ref} is in use")
        self.dropped.append(ref.ref)


def test_applying_forgets_images_before_their_layers() -> None:
    here = Store()
    order: list[str] = []
    drops = decide(view(), older_than=Seconds(DAY))
    gone = apply(
        drops, store=here, forget=lambda content: order.append(f"forgot {content} after {here.dropped}")
    )
    assert gone == drops
    assert order == ["forgot seal1 after ['try']"]
    assert here.dropped == ["try", "seal1"]


def test_what_was_taken_into_use_meanwhile_stays_with_a_warning() -> None:
    told: list[Event] = []
    here = Store(refuse="try")
    gone = apply(
        decide(view(), older_than=Seconds(DAY)), store=here, forget=lambda content: None, emit=told.append
    )
    assert names(gone) == ["seal1"]
    assert len(told) == 1


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for name in ("20260901-100000-aaaa", "20261001-100000-bbbb", "20261120-100000-cccc", "something-else"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "events.jsonl").touch()
    return tmp_path


def test_old_runs_are_told_by_their_ids(runs: Path) -> None:
    assert old_runs(runs, now=NOW) == ("20260901-100000-aaaa", "20261001-100000-bbbb")
    assert old_runs(runs / "nothing", now=NOW) == ()


def test_runs_that_live_or_are_to_be_swept_stay(runs: Path) -> None:
    (runs / "20260901-100000-aaaa/journal.jsonl").touch()
    with lease(runs / "20261001-100000-bbbb/lock"):
        assert prune_runs(runs, old_runs(runs, now=NOW)) == ()
    assert prune_runs(runs, old_runs(runs, now=NOW)) == ("20261001-100000-bbbb",)
    assert not (runs / "20261001-100000-bbbb").exists()
    assert (runs / "20260901-100000-aaaa").exists()
