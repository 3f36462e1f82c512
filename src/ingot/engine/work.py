"""Making one layer: its steps on the machine, for the last one a look at what is there and the leak scan, freezing."""

from __future__ import annotations

from collections.abc import Mapping

from ingot.engine.bench import Bench
from ingot.engine.leaks import refuse_leaks
from ingot.engine.records import Contents, read_contents
from ingot.engine.run import Run
from ingot.engine.steps import apply_step
from ingot.model.image import LayerRef
from ingot.model.plan import Layer
from ingot.model.secret import Secret
from ingot.ports import Inventory, Provisioner


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
    ) -> None:
        self.contents = Contents()
        self.bench = bench
        self._run = run
        self._provisioner = provisioner
        self._inventory = inventory
        self._secrets = secrets

    def make_layer(self, layer: Layer, *, on: LayerRef, following: Layer | None = None) -> LayerRef:
        """The layer, made on the one below it. Only a disk without leaks becomes a sealed one.

        `following` is the one that will be made next, as far as is known.
        """
        bench = self.bench
        if layer.steps:
            self._provisioner.expect(layer.steps[0])
        machine = bench.machine_on(on, kind=layer.machine, disk=layer.grow)
        if layer.seals:
            self.contents = read_contents(self._inventory, machine)
        with bench.examining():
            for step in layer.steps:
                apply_step(
                    step,
                    machine,
                    subject=bench.plan.subject,
                    provisioner=self._provisioner,
                    clock=self._run.clock,
                    emit=bench.emit,
                    cancel=bench.cancel,
                )
        if layer.seals:
            refuse_leaks(
                bench.hosts,
                machine,
                secrets=self._secrets,
                directory=self._run.directory,
                subject=bench.plan.subject,
                emit=bench.emit,
                cancel=bench.cancel,
            )
        if following and following.steps:
            self._provisioner.expect(following.steps[0])
        return bench.freeze(machine, layer)
