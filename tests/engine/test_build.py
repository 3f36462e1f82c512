"""The engine over a whole backend in memory: what is built, what is reused, what a failure leaves."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ingot.backends.memory.backend import MemoryBackend
from ingot.engine import trace
from ingot.engine.records import Built
from ingot.errors import (
    BackendError,
    CancelledError,
    DeadlineError,
    IngotError,
    LeakError,
    LeftoverError,
    ProvisionError,
    TransientError,
)
from ingot.model.events import (
    BuildStarted,
    Event,
    LayerFinished,
    LayerStarted,
    StepFinished,
    Warned,
)
from ingot.model.forensics import Evidence
from ingot.model.plan import Plan
from ingot.model.secret import Secret, placeholder
from ingot.model.units import Seconds
from ingot.system.waits import Flag

from .bench import ALL, GIB, PLAN, Impatient, Workshop, packages, plan_of, text


def failing(where: str, error: BaseException, *, times: int = 10**6) -> Callable[[str], None]:
    """Fails at the effect or step of this name, so many times."""
    left = [times]

    def fault(name: str) -> None:
        if name == where and left[0] > 0:
            left[0] -= 1
            raise error

    return fault


def statuses(built: Built) -> list[str]:
    return [layer.status for layer in built.layers]


def test_a_first_build_makes_everything_and_cleans_up(workshop: Workshop) -> None:
    built = workshop.build()
    assert built.status == "built"
    assert [layer.name for layer in built.layers] == ["debian-12", "layer-1", "layer-2", "layer-3", "seal"]
    assert statuses(built) == ["built"] * 5
    assert workshop.applied == [
        "packages htop",
        "files /etc/motd",
        "packages tmux",
        "packages slurmd",
        "seal",
    ]
    assert workshop.store.shelf.machines() == []
    assert workshop.counts == {"bases": 1, "machines": 1, "layers": 4, "images": 1}
    assert built.image.digest == built.layers[-1].content
    (journal,) = workshop.runs.glob("*/journal*")
    assert journal.name == "journal.done.jsonl"


def test_the_manifest_tells_what_was_there_before_the_seal(workshop: Workshop) -> None:
    built = workshop.build()
    assert built.manifest is not None
    assert [package.name for package in built.manifest.packages] == ["htop", "slurmd", "tmux"]
    assert built.manifest.digest == built.image.digest
    assert built.manifest.layers == built.layers
    assert built.manifest.plan["layers"][0]["steps"][0]["install"] == ["htop"]


def test_a_second_build_reuses_all_and_opens_nothing(workshop: Workshop) -> None:
    first = workshop.build()
    workshop.counts.clear()
    again = workshop.build()
    assert again.status == "reused"
    assert statuses(again) == ["reused"] * 5
    assert again.image == first.image
    assert again.manifest is None
    assert workshop.counts == {}
    assert len(list(workshop.runs.glob("*/journal*"))) == 1


def test_only_what_changed_is_built(workshop: Workshop) -> None:
    workshop.build()
    workshop.applied.clear()
    changed = plan_of(
        packages("htop"), (text("/etc/motd", "hello"), packages("tmux")), packages("slurmd", "munge")
    )
    built = workshop.build(changed)
    assert statuses(built) == ["reused", "reused", "reused", "built", "built"]
    assert workshop.applied == ["packages slurmd munge", "seal"]
    assert isinstance(started := workshop.told(BuildStarted)[-1], BuildStarted)
    assert started.reused == 3


def test_a_child_begins_before_its_parents_seal(workshop: Workshop) -> None:
    workshop.build(plan_of(packages("htop")))
    workshop.applied.clear()
    child = workshop.build(plan_of(packages("htop"), packages("hwloc"), image="big-node"))
    assert statuses(child) == ["reused", "reused", "built", "built"]
    assert workshop.applied == ["packages hwloc", "seal"]


def test_a_grown_disk_is_a_layer_on_a_fresh_machine(workshop: Workshop) -> None:
    built = workshop.build(plan_of(packages("htop"), grow=16 * GIB))
    assert built.image.size == 16 * GIB
    assert workshop.counts["machines"] == 2
    assert workshop.store.shelf.machines() == []


def test_without_cache_everything_is_made_anew_and_replaces_what_was(workshop: Workshop) -> None:
    first = workshop.build()
    anew = workshop.build(anew=ALL)
    assert statuses(anew) == ["built"] * 5
    assert anew.image.digest != first.image.digest
    assert workshop.counts["bases"] == 2
    assert workshop.build().image.digest == anew.image.digest


def test_after_a_failure_without_cache_the_next_build_goes_on_from_what_is_fresh(workshop: Workshop) -> None:
    old = workshop.build()
    workshop.step_fault = failing("packages tmux", ProvisionError("no"), times=1)
    with pytest.raises(ProvisionError):
        workshop.build(anew=ALL)
    built = workshop.build()
    assert statuses(built) == ["reused", "reused", "built", "built", "built"]
    assert built.image.digest != old.image.digest


def test_a_damaged_layer_is_made_anew_with_those_above_it(workshop: Workshop) -> None:
    workshop.build()
    workshop.store.shelf.damage(PLAN.layers[1].key)
    assert statuses(workshop.build()) == ["reused", "reused", "built", "built", "built"]


@pytest.mark.parametrize("effect", ["base", "create", "attach", "freeze", "register"])
def test_a_failed_effect_cleans_up_and_the_next_build_goes_on(workshop: Workshop, effect: str) -> None:
    workshop.fault = failing(effect, BackendError(f"{effect} failed"), times=1)
    with pytest.raises(BackendError, match=effect):
        workshop.build()
    assert workshop.store.shelf.machines() == []
    assert workshop.build().image.digest == workshop.build().image.digest
    assert workshop.counts["bases"] == 1
    assert workshop.counts["layers"] == 4


@pytest.mark.parametrize(
    "step", ["packages htop", "files /etc/motd", "packages tmux", "packages slurmd", "seal"]
)
def test_a_failed_step_tells_its_layer_and_keeps_those_below(workshop: Workshop, step: str) -> None:
    workshop.step_fault = failing(step, ProvisionError("no"), times=1)
    with pytest.raises(ProvisionError) as caught:
        workshop.build()
    assert caught.value.step == step
    names = [event.layer for event in workshop.told(LayerStarted) if isinstance(event, LayerStarted)]
    assert caught.value.layer == names[-1]
    assert workshop.store.shelf.machines() == []
    assert list(workshop.store.images.list({})) == []
    finished = workshop.told(LayerFinished)
    built = workshop.build()
    assert statuses(built).count("reused") == len(finished)


def test_a_machine_that_a_step_lost_is_told_with_a_bundle(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = Evidence(kind="instance", state="ended", exit_code=0)
    monkeypatch.setattr(MemoryBackend, "examine", lambda self, ref: ended)
    workshop.step_fault = failing("packages tmux", ProvisionError("no answer", log="tmux.log"), times=1)
    with pytest.raises(ProvisionError) as caught:
        workshop.build()
    assert caught.value.message == "the machine was lost: it powered itself off"
    assert (caught.value.step, caught.value.log) == ("packages tmux", "tmux.log")
    assert (Path(caught.value.bundle) / "summary.txt").read_text().startswith("powered-off: ")
    assert workshop.store.shelf.machines() == []
    assert statuses(workshop.build()).count("reused") == 2


def test_a_machine_that_does_not_come_up_is_told_with_a_bundle(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Evidence(kind="instance", console="Kernel panic - not syncing: no init")
    monkeypatch.setattr(MemoryBackend, "examine", lambda self, ref: seen)
    workshop.fault = failing("attach", BackendError("no answer"), times=1)
    with pytest.raises(BackendError) as caught:
        workshop.build()
    assert caught.value.message == "the machine did not come up: the kernel panicked: no init"
    assert (Path(caught.value.bundle) / "console.log").exists()


def test_retries_are_told_and_bounded(workshop: Workshop) -> None:
    plan = plan_of(packages("htop", retries=2))
    workshop.step_fault = failing("packages htop", ProvisionError("mirror is away"), times=2)
    assert workshop.build(plan).status == "built"
    assert [event.failed for event in workshop.told(StepFinished) if isinstance(event, StepFinished)] == [
        True,
        True,
        False,
        False,
    ]
    assert len(workshop.told(Warned)) == 2


@pytest.mark.parametrize("error", [TransientError("away"), DeadlineError("late"), ProvisionError("no")])
def test_a_step_without_retries_is_tried_once(workshop: Workshop, error: IngotError) -> None:
    workshop.step_fault = failing("packages htop", error, times=1)
    with pytest.raises(type(error)):
        workshop.build()
    assert workshop.applied == []


def test_a_wish_to_stop_is_not_tried_again(workshop: Workshop) -> None:
    plan = plan_of(packages("htop", retries=5))
    workshop.step_fault = failing("packages htop", CancelledError("stop", signal=15), times=1)
    with pytest.raises(CancelledError):
        workshop.build(plan)
    assert workshop.store.shelf.machines() == []


def test_a_step_beyond_its_time_is_stopped(workshop: Workshop) -> None:
    with pytest.raises(DeadlineError, match="packages htop"):
        workshop.build(plan_of(packages("htop", timeout=-1.0)))
    assert workshop.store.shelf.machines() == []


def test_cancelling_between_layers_cleans_up_and_keeps_what_is_done(workshop: Workshop) -> None:
    cancel = Impatient()

    def stop(name: str) -> None:
        if name == "after freeze layer-1":
            cancel.set(15)

    with trace.hooked(stop), pytest.raises(CancelledError) as caught:
        workshop.build(cancel=cancel)
    assert caught.value.signal == 15
    assert workshop.store.shelf.machines() == []
    assert statuses(workshop.build()) == ["reused", "reused", "built", "built", "built"]


def test_what_cannot_be_removed_is_told_and_swept_later(workshop: Workshop) -> None:
    workshop.fault = failing("delete", BackendError("the cloud is away"), times=1)
    with pytest.raises(LeftoverError) as caught:
        workshop.build()
    (left,) = caught.value.left
    assert left.startswith("memory.machine ingot-")
    assert len(workshop.store.shelf.machines()) == 1
    assert workshop.build().status == "reused"
    assert workshop.store.shelf.machines() == []


def test_a_failure_and_a_failed_cleanup_are_both_told(workshop: Workshop) -> None:
    workshop.step_fault = failing("packages htop", ProvisionError("no"))
    workshop.fault = failing("delete", BackendError("away"), times=1)
    with pytest.raises(ExceptionGroup) as caught:
        workshop.build()
    assert [type(error) for error in caught.value.exceptions] == [ProvisionError, LeftoverError]


def test_a_secret_on_the_finished_disk_fails_the_build_and_names_the_place(workshop: Workshop) -> None:
    workshop.secrets = {"token": Secret("s3cr3t-t0ken")}
    plan = plan_of(text("/root/.netrc", f"password {placeholder('token')}"))
    with pytest.raises(LeakError) as caught:
        workshop.build(plan)
    assert "/root/.netrc" in str(caught.value)
    assert "s3cr3t-t0ken" not in str(caught.value)
    assert [finding.where for finding in caught.value.findings] == ["/root/.netrc"]
    assert caught.value.layer == "seal"
    assert list(workshop.store.images.list({})) == []
    assert workshop.store.layer(plan.key) is None


def test_a_secret_found_everywhere_is_told_to_be_too_ordinary(workshop: Workshop) -> None:
    workshop.secrets = {"token": Secret("password")}
    with pytest.raises(LeakError) as caught:
        workshop.build(plan_of(*(text(f"/usr/share/{n}", "enter password") for n in range(21))))
    assert "so ordinary is no secret" in caught.value.hint


def test_the_runs_own_keys_are_looked_for(workshop: Workshop) -> None:
    body = "AAAAC3NzaC1lZDI1NTE5AAAAIKz"
    plan = plan_of(text("/root/.ssh/authorized_keys", f"ssh-ed25519 {body} ingot"))
    with pytest.raises(LeakError, match="public key"):
        workshop.build(plan, keys={"key.pub": f"ssh-ed25519 {body} ingot\n"})


def test_a_secret_too_short_to_be_found_is_warned_of(workshop: Workshop) -> None:
    workshop.secrets = {"pin": Secret("1234")}
    workshop.build(plan_of(packages("htop")))
    assert any("pin" in event.message for event in workshop.told(Warned) if isinstance(event, Warned))


def waits_for_another(event: Event) -> bool:
    return isinstance(event, Warned) and "another build" in event.message


def test_two_at_once_one_waits_and_reuses(workshop: Workshop) -> None:
    """The first is held inside its first step until the second is seen to wait for it."""
    other = Workshop(root=workshop.root)
    waits = threading.Event()
    results: list[Built] = []

    def listen(event: Event) -> None:
        if waits_for_another(event):
            waits.set()

    def begin_the_other(name: str) -> None:
        if name == "packages htop" and not results_of.is_alive():
            results_of.start()
            assert waits.wait(30)

    other.events = _Listening(listen)
    results_of = threading.Thread(target=lambda: results.append(other.build()))
    workshop.step_fault = begin_the_other
    first = workshop.build()
    results_of.join(30)
    (second,) = results
    assert statuses(first) == ["built"] * 5
    assert second.status == "reused"
    assert statuses(second) == ["reused"] * 5
    assert other.counts == {}
    assert other.applied == []


class _Listening(list[Event]):
    """Events that somebody hears as they are kept."""

    def __init__(self, hear: Callable[[Event], None]) -> None:
        super().__init__()
        self._hear = hear

    def append(self, event: Event) -> None:
        super().append(event)
        self._hear(event)


def test_a_family_built_at_once_makes_every_layer_once(workshop: Workshop) -> None:
    """A parent and two children, in threads: whatever the order, nothing is made twice."""
    parent = (packages("htop"), text("/etc/motd", "hello"))
    plans = [
        plan_of(*parent),
        plan_of(*parent, packages("hwloc"), image="big"),
        plan_of(*parent, packages("hwloc"), packages("gdb"), image="huge"),
    ]
    shops = [Workshop(root=workshop.root) for _ in plans]
    threads = [
        threading.Thread(target=shop.build, args=(plan,)) for shop, plan in zip(shops, plans, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(shop.counts.get("bases", 0) for shop in shops) == 1
    assert sum(shop.counts.get("layers", 0) for shop in shops) == 2 + 1 + 1 + 3
    assert sum(shop.counts.get("images", 0) for shop in shops) == 3
    assert workshop.store.shelf.machines() == []


def test_one_who_waits_can_be_stopped(workshop: Workshop) -> None:
    cancel = Flag()
    workshop.events = _Listening(lambda event: cancel.set() if waits_for_another(event) else None)
    held = workshop.store.lock(PLAN.base.key, emit=lambda event: None, cancel=Flag())
    with held, pytest.raises(CancelledError):
        workshop.build(cancel=cancel)


def test_when_the_first_fails_the_one_who_waited_builds(workshop: Workshop) -> None:
    """The waiting build goes on from the layers that the failed one finished."""
    other = Workshop(root=workshop.root)
    waits = threading.Event()
    results: list[Built] = []
    other.events = _Listening(lambda event: waits.set() if waits_for_another(event) else None)
    thread = threading.Thread(target=lambda: results.append(other.build()))

    def begin_then_fail(name: str) -> None:
        if name == "packages slurmd":
            thread.start()
            assert waits.wait(30)
            raise ProvisionError("no")

    workshop.step_fault = begin_then_fail
    with pytest.raises(ProvisionError):
        workshop.build()
    thread.join(30)
    assert statuses(results[0]) == ["reused", "reused", "reused", "built", "built"]
    assert workshop.store.shelf.machines() == []


def test_another_place_of_a_secret_is_not_its_value(workshop: Workshop) -> None:
    """A secret's value is in no key and in no record."""
    plan = plan_of(text("/run/token", placeholder("token")))
    workshop.secrets = {"token": Secret("short")}
    built = workshop.build(plan)
    assert built.manifest is not None
    assert "short" not in str(built.manifest)
    assert replace(built, seconds=Seconds(0.0)).layers[1].steps == ("files /run/token",)


def keeping(*kept: str) -> Plan:
    """The plan on a backend that keeps these layers alone."""
    layers = tuple(replace(layer, keep=layer.name in kept) for layer in PLAN.layers)
    return replace(PLAN, layers=layers)


def test_a_layer_that_is_not_kept_is_made_on_the_same_machine(workshop: Workshop) -> None:
    built = workshop.build(keeping("layer-2", "seal"))
    assert workshop.counts == {"bases": 1, "machines": 1, "layers": 2, "images": 1}
    assert [bool(layer.content) for layer in built.layers] == [True, False, True, False, True]
    there = workshop.store.find_layers([layer.key for layer in PLAN.layers])
    assert list(there) == [PLAN.layers[1].key, PLAN.layers[3].key]
    done = workshop.store.shelf.disk(built.image.digest)["done"]
    assert done[1:] == workshop.applied and len(done) == 6, "all of it is in the image"


def test_a_build_goes_on_from_the_last_layer_that_was_kept(workshop: Workshop) -> None:
    plan = keeping("layer-1", "seal")
    workshop.step_fault = failing("packages slurmd", ProvisionError("no"), times=1)
    with pytest.raises(ProvisionError):
        workshop.build(plan)
    workshop.applied.clear()
    assert statuses(workshop.build(plan)) == ["reused", "reused", "built", "built", "built"]
    assert workshop.applied == ["files /etc/motd", "packages tmux", "packages slurmd", "seal"]


def test_what_somebody_else_kept_meanwhile_is_taken(workshop: Workshop) -> None:
    """Of a layer that is not kept nobody waits for anybody; at the next one that is, the other's is there."""
    plan = keeping("layer-3", "seal")
    other = Workshop(root=workshop.root, cloud=workshop.cloud)

    def beaten(name: str) -> None:
        if name == "packages tmux" and not other.applied:
            other.build(plan)

    workshop.step_fault = beaten
    built = workshop.build(plan)
    assert statuses(built) == ["built", "built", "built", "reused", "reused"]
