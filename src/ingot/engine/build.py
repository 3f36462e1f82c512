"""Plan → Image: find the deepest layer that is there, make those that are not, register what came of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from functools import partial

from ingot.engine.bench import Baton, Bench
from ingot.engine.journal import Place
from ingot.engine.records import Built, Records, layer_keys, layer_names, manifest_of
from ingot.engine.resources import Resources
from ingot.engine.run import Run
from ingot.engine.sharing import Wanted, pull
from ingot.engine.trace import point
from ingot.engine.work import OnError, Work
from ingot.model.definition import CloudBase
from ingot.model.events import BuildFinished, BuildStarted, Emit, ImageRegistered
from ingot.model.image import Image, LayerRef
from ingot.model.plan import LayerKey, Plan
from ingot.model.secret import Secret
from ingot.model.units import Seconds
from ingot.ports import Backend, Cancel, Inventory, LayerCache, Provisioner


def build(
    plan: Plan,
    *,
    run: Run,
    backend: Backend,
    provisioner: Provisioner,
    inventory: Inventory,
    secrets: Mapping[str, Secret],
    emit: Emit,
    cancel: Cancel,
    anew: Collection[LayerKey] = (),
    on_error: OnError | None = None,
    cache: LayerCache | None = None,
    before_base: Callable[[], None] = lambda: None,
) -> Built:
    """Makes the image of a plan, from as many layers as are there already.

    The layers `anew`, the last ones of the plan, are made in any case and take the place of the old ones. Finished
    layers stay whatever happens later, so the same build goes on where a failed one stopped; `on_error` tells what becomes
    of the machine. What the `cache` offers beyond what is there is pulled first. `before_base` is called where the base
    has to be made. Raises the step's error (ProvisionError,
    DeadlineError, …), LeakError, BackendError, CancelledError; see `Resources` for LeftoverError.
    """
    started = run.clock.monotonic()

    def standing_now() -> tuple[LayerRef | None, ...]:
        return standing_layers(plan, backend, anew=anew)

    standing = standing_now()
    emit(BuildStarted(subject=plan.subject, layers=layer_names(plan), reused=len(standing)))
    records = Records(plan, clock=run.clock, emit=emit)
    with (
        Resources(run.journal, place=place_of(plan), emit=emit, subject=plan.subject) as held,
        closing(provisioner),
    ):
        wanted = Wanted(plan=plan, standing=standing, anew=anew)
        pulled = pull(wanted, cache, backend=backend, held=held, clock=run.clock, emit=emit, cancel=cancel)
        standing = standing_now() if pulled else standing
        bench = Bench(
            plan,
            run=run,
            hosts=backend.hosts,
            held=held,
            emit=emit,
            cancel=cancel,
        )
        work = Work(
            run,
            bench,
            provisioner=provisioner,
            inventory=inventory,
            secrets=secrets,
            on_error=on_error or OnError(),
        )
        with Baton(lambda key: backend.lock(key, emit=emit, cancel=cancel)) as baton:
            top = _pile(
                standing,
                work,
                records=records,
                baton=baton,
                backend=backend,
                anew=anew,
                pulled=pulled,
                before_base=before_base,
            )
            image = _register(plan, top, backend=backend, labels=bench.labels, emit=emit)
    seconds = Seconds(run.clock.monotonic() - started)
    emit(
        BuildFinished(
            subject=plan.subject, status=records.status, seconds=seconds, digest=image.digest, ref=image.ref
        )
    )
    layers = tuple(records.all)
    manifest = manifest_of(
        plan, image, layers=layers, contents=work.contents, run=run.id, now=run.clock.now()
    )
    return Built(
        image=image,
        layers=layers,
        manifest=manifest if records.status == "built" else None,
        status=records.status,
        seconds=seconds,
    )


def _pile(
    standing: Sequence[LayerRef | None],
    work: Work,
    *,
    records: Records,
    baton: Baton,
    backend: Backend,
    anew: Collection[LayerKey],
    pulled: Mapping[LayerKey, Seconds],
    before_base: Callable[[], None],
) -> LayerRef | None:
    """The plan's layers one on the other, from those that stand to the last; returns that one.

    One that is not kept is no layer that others could find or wait for: only what the machine has become.
    """
    bench, plan = work.bench, work.bench.plan
    top: LayerRef | None = None
    for index, found in enumerate(standing):
        top = records.reused(index, found, pulled=pulled.get(layer_keys(plan)[index]))
    for index in range(len(standing), len(plan.layers) + 1):
        bench.cancel.check()
        key = layer_keys(plan)[index]
        found = None
        if index == 0 or plan.layers[index - 1].keep:
            baton.take(key)
            made = index > 0 or not isinstance(plan.base.source, CloudBase)  # an image of a cloud is no layer
            found = (
                backend.layer(key) if made and key not in anew else None
            )  # somebody may have made it meanwhile
        if found and _stands_on(found, top):
            top = records.reused(index, found)
        elif top is None:
            before_base()
            top = records.built(index, partial(bench.make_base, fresh=key in anew))
        else:
            following = plan.layers[index] if index < len(plan.layers) else None
            make = partial(work.make_layer, plan.layers[index - 1], on=top, following=following)
            top = records.built(index, make)
    return top


def standing_layers(
    plan: Plan, backend: Backend, *, anew: Collection[LayerKey] = ()
) -> tuple[LayerRef | None, ...]:
    """What is there of the plan's layers, base first, up to the deepest one that can be used; none of those `anew`.

    None stands for one below it that was not kept, or that its key no longer leads to: the chain itself goes by content,
    and is whole.
    """
    there = backend.find_layers([key for key in layer_keys(plan) if key not in anew])
    found = [there.get(key) for key in layer_keys(plan)]
    for count in range(len(found), 0, -1):
        if found[count - 1] and all(map(_stands_on, found[1:count], found)):
            return tuple(found[:count])
    return ()


def _stands_on(layer: LayerRef | None, below: LayerRef | None) -> bool:
    """Whether a layer may be used above another one.

    Not where the one below was made anew without cache: what stood on the old content is out of date then, even
    though its inputs are the same. A flattened layer (without a parent) stands by itself; of one below that was not
    kept only its key is known.
    """
    return layer is None or below is None or not below.content or layer.parent in (None, below.content)


def place_of(plan: Plan) -> Place:
    """Where the plan's temporary things are made, as the journal has it."""
    return Place(backend=plan.backend, location=plan.location, options=plan.options)


def _register(
    plan: Plan, top: LayerRef | None, *, backend: Backend, labels: Mapping[str, str], emit: Emit
) -> Image:
    assert top is not None and top.sealed, "a plan ends with its seal"
    point("before register")
    image = backend.images.register(top, plan.image, arch=plan.arch, labels=labels)
    point("after register")
    emit(ImageRegistered(subject=plan.subject, image=plan.image, ref=image.ref, digest=image.digest))
    return image
