"""Making one layer: its steps on the machine, for the last one a look at what is there and the leak scan, freezing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeVar

from ingot.engine.bench import Bench
from ingot.engine.leaks import refuse_leaks
from ingot.engine.records import Contents, read_contents
from ingot.engine.run import Run
from ingot.engine.steps import apply_step
from ingot.errors import CancelledError, IngotError
from ingot.model.image import LayerRef
from ingot.model.plan import Layer
from ingot.model.secret import Secret
from ingot.model.step import Step
from ingot.model.units import Seconds
from ingot.ports import Inventory, Machine, Provisioner

Answer = Literal["cleanup", "keep", "retry"]
"""What becomes of the machine on which something failed; `retry` does the same again on it as it is."""
Decide = Callable[[IngotError], Answer]

T = TypeVar("T")


def always_cleanup(error: IngotError) -> Answer:
    """Finished layers stay, the machine goes."""
    return "cleanup"


def always_keep(error: IngotError) -> Answer:
    """Finished layers stay, the machine too, to be looked at."""
    return "keep"


@dataclass(frozen=True, kw_only=True, slots=True)
class OnError:
    """What is done when a step, or the leak scan, has failed."""

    decide: Decide = always_cleanup
    keep_for: Seconds = Seconds(0.0)
    """How long a machine stays that is kept."""


class Work:
    """What the layers of one build are made with. `contents` is known once the sealed layer was made."""

    def __init__(
        self,
        run: Run,
        bench: Bench,
        *,
        provisioner: Provisioner,
        inventory: Inventory,
        secrets: Mapping[str, Secret],
        on_error: OnError,
    ) -> None:
        self.contents = Contents()
        self.bench = bench
        self._run = run
        self._provisioner = provisioner
        self._inventory = inventory
        self._secrets = secrets
        self._on_error = on_error

    def make_layer(self, layer: Layer, *, on: LayerRef, following: Layer | None = None) -> LayerRef:
        """The layer, made on the one below it. Only a disk without leaks becomes a sealed one.

        One that is not kept stands for the machine as it is then, and for nothing in the store: see `Bench.leave`.
        `following` is the one that will be made next, as far as is known.
        """
        bench = self.bench
        user_data = None
        if layer.steps:
            self._provisioner.expect(layer.steps[0])
            user_data = self._provisioner.user_data(layer.steps[0])
        machine = bench.machine_for(layer, on, user_data=user_data)
        if layer.seals:
            self.contents = read_contents(self._inventory, machine)
        for step in layer.steps:
            self._carefully(partial(self._apply, step, machine))
        if layer.seals:
            self._carefully(partial(self._refuse_leaks, machine))
        if following and following.steps:
            self._provisioner.expect(following.steps[0])
        return bench.freeze(machine, layer, following=following) if layer.keep else bench.leave(layer, on=on)

    def _apply(self, step: Step, machine: Machine) -> None:
        bench = self.bench
        with bench.examining():
            apply_step(
                step,
                machine,
                subject=bench.plan.subject,
                provisioner=self._provisioner,
                clock=self._run.clock,
                emit=bench.emit,
                cancel=bench.cancel,
            )

    def _refuse_leaks(self, machine: Machine) -> None:
        bench = self.bench
        refuse_leaks(
            bench.hosts,
            machine,
            secrets=self._secrets,
            directory=self._run.directory,
            subject=bench.plan.subject,
            emit=bench.emit,
            cancel=bench.cancel,
        )

    def _carefully(self, act: Callable[[], T]) -> T:
        """What `act` gives back; on a failure the machine is kept, or all is tried again, where that is asked for."""
        while True:
            try:
                return act()
            except CancelledError:
                raise
            except IngotError as error:
                answer = self._on_error.decide(error)
                if answer == "retry":
                    continue
                if answer == "keep":
                    self._keep(error)
                raise

    def _keep(self, error: IngotError) -> None:
        until = self._run.clock.now().timestamp() + self._on_error.keep_for
        try:
            self.bench.keep(until)
        except IngotError as failure:
            error.add_note(f"the machine could not be kept: {failure}")
        else:
            error.facts["kept_until"] = until
