from __future__ import annotations

from pathlib import Path

from ingot.engine.bench import Bench
from ingot.engine.build import place_of
from ingot.engine.resources import Resources
from ingot.engine.run import Run
from ingot.model.events import ignore
from ingot.model.secret import Secret
from ingot.system.waits import Flag
from tests.engine.bench import PLAN, Workshop


def test_a_machine_with_user_data_serves_one_layer(tmp_path: Path) -> None:
    """It is told of it at its first boot, which a machine has only once."""
    cloud = Workshop(root=tmp_path).store
    with (
        Run(tmp_path / "runs", verb="build") as run,
        Resources(run.journal, place=place_of(PLAN), emit=ignore, subject="x") as held,
    ):
        bench = Bench(PLAN, run=run, hosts=cloud.hosts, held=held, emit=ignore, cancel=Flag())
        top = bench.make_base(fresh=False)
        told = Secret("#cloud-config\n")
        machines = [
            bench.machine_for(PLAN.layers[0], top, user_data=user_data).ref
            for user_data in (None, None, told, told, None, None)
        ]
    first, again, second, third, fourth, last = machines
    assert first == again and fourth == last
    assert len({first, second, third, fourth}) == 4
