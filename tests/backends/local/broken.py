"""Machines broken on purpose: a layer on a real base with one thing wrong, booted for real.

`python -m tests.backends.local.broken CASE…` boots them and keeps their bundles below `tests/data/forensics/`.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from ingot.backends.local import chain, progress, vm
from ingot.backends.local.holder import mounted
from ingot.backends.local.store import NewLayer
from ingot.errors import IngotError
from ingot.forensics.report import Examiner
from ingot.model.events import ignore
from ingot.model.image import LayerRef
from ingot.model.units import Seconds
from ingot.ports import MachineSpec, Token
from ingot.system import files, process
from ingot.system.waits import Flag
from tests.backends.local import bases
from tests.local_fixtures import Site, key, open_site

PATIENCE = Seconds(90.0)
"""Less than users get, and more than any pause of a sound boot on a busy computer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Broken:
    """`script` is run by a shell on the builder; `$R` is where the disk is mounted."""

    script: str = "true"
    user_data: str = ""
    """In place of Ingot's own."""


CASES = {
    "no-sshd": Broken(script="ln -sf /dev/null $R/etc/systemd/system/ssh.service"),
    "wrong-user": Broken(script="echo 'AllowUsers admin' > $R/etc/ssh/sshd_config.d/users.conf"),
    "kernel-panic": Broken(script="sed -i /initrd/d $R/boot/grub/grub.cfg"),
    "disk-full": Broken(script="""
        fallocate -l $(($(stat -f -c '%f * %S' $R/) - 400000000)) $R/var/log/huge
        cat /dev/zero > $R/var/log/rest || true
    """),
    "network-down": Broken(script="ln -sf /dev/null $R/etc/systemd/system/systemd-networkd.service"),
    "cloud-init": Broken(user_data="#cloud-config\nssh_authorized_keys: [\nbootcmd:\n  - systemctl start slurmd\n"),
}  # fmt: skip


def site(folder: Path) -> Site:
    """A store with a Debian that boots."""
    return open_site(folder, bases.debian("bookworm"))


def layer(at: Site, name: str, script: str, folder: Path) -> LayerRef:
    """A layer on the site's base, changed by a script."""
    overlay = folder / f"{name}.qcow2"
    store = at.backend.store
    records = store.verify(at.base.content)
    chain.create(overlay, records[-1].disk)
    with mounted([*store.files(records), overlay], folder / f"{name}-ns") as held:
        environment = {**process.environment(), "R": str(held.outside(held.root))}
        process.run(["sh", "-ec", script], timeout=Seconds(300.0), env=environment)
    new = NewLayer(key=key(name), parent=at.base.content, sealed=False, scanned=True, labels={})
    return store.add(overlay, new).ref(overlay)


@contextmanager
def telling(user_data: str) -> Iterator[None]:
    """Machines made meanwhile are told this by their seed."""
    write = files.write_atomically

    def other(path: Path, data: bytes | str, *, mode: int = 0o644) -> None:
        write(path, user_data if path.name == "user-data" and user_data else data, mode=mode)

    with mock.patch("ingot.backends.local.vm_seed.write_atomically", other):
        yield


def diagnose(at: Site, name: str, folder: Path, **spec: object) -> IngotError:
    """The error that booting a broken machine ends with. Its bundle is in `folder`."""
    case = CASES[name]
    made = layer(at, name, case.script, folder)
    resource = at.backend.hosts.machine(MachineSpec(parent=made, kind="vm", purpose="look", **spec))  # type: ignore[arg-type]
    token = Token(f"ingot-{name}-1")
    with telling(case.user_data):
        ref = resource.create(token)
    try:
        with (
            mock.patch.object(vm, "BOOT_TIMEOUT", Seconds(5 * PATIENCE)),
            mock.patch.object(progress, "PATIENCE", PATIENCE),
        ):
            at.backend.hosts.attach(ref, emit=ignore, cancel=Flag())
    except IngotError as error:
        return examiner(at, folder).explain(error, ref)
    finally:
        resource.delete(ref)
    raise AssertionError(f"{name} came up")


def examiner(at: Site, folder: Path) -> Examiner:
    """What looks at machines for an image named `node`."""
    return Examiner(
        hosts=at.backend.hosts, directory=folder, image="node", scrub=lambda text: text, emit=ignore
    )


_TELLS = re.compile(
    r"sshd|WARNING|ERROR|CRITICAL|No space|Failed|failed|network|Reached target|Cloud-init v|kernel: Linux"
)


def keep(bundle: Path, folder: Path) -> None:
    """A bundle as data for tests: of long texts what tells something."""
    folder.mkdir(exist_ok=True)
    for path in bundle.iterdir():
        text = path.read_text().replace(str(bundle.parents[3]), "/state")
        if path.name in ("journal.log", "cloud-init.log", "cloud-init-output.log"):
            text = "".join(line for line in text.splitlines(keepends=True) if _TELLS.search(line))
        elif path.name == "console.log" and len(text) > 30000:
            text = f"{text[:4000]}\n{text[-20000:]}"
        (folder / path.name).write_text(text.rstrip() + "\n")


def main(names: list[str]) -> None:
    """Boots the cases and keeps what was seen."""
    from tests.forensics.recorded import DATA

    root = Path(os.environ["INGOT_STATE"])
    at = site(root)
    for name in names or list(CASES):
        folder = root / "runs" / name
        folder.mkdir(parents=True)
        error = diagnose(at, name, folder)
        sys.stdout.write(
            f"== {name}\nerror: {error.message}\nbundle {error.facts.get('bundle')}\nhint: {error.hint}\n"
        )
        sys.stdout.flush()
        if bundle := error.facts.get("bundle"):
            keep(Path(bundle), DATA / name)


if __name__ == "__main__":
    main(sys.argv[1:])
