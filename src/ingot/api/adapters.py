"""Names to adapters: what the core gets injected. The one place that knows which ones there are."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingot.model.events import Progress
from ingot.ports import BackendSettings

REQUIREMENTS = (
    "requirements.yml",
    "requirements.yaml",
    "roles/requirements.yml",
    "collections/requirements.yml",
)

if TYPE_CHECKING:
    from ingot.api.workspace import Workspace
    from ingot.backends.memory.backend import MemoryBackend
    from ingot.definition.lock import Needed
    from ingot.engine.journal import Place
    from ingot.engine.run import Run
    from ingot.model.events import Emit
    from ingot.model.image import Package
    from ingot.model.secret import Secret
    from ingot.model.step import Step
    from ingot.ports import Backend, Cancel, FoundBase, Inventory, LayerCache, Machine, Provisioner
    from ingot.system.tree import FileTree


def backend_names(wanted: Collection[str]) -> Collection[str]:
    """The backends that can be opened. Other packages are only asked where our own do not have what is wanted."""
    from ingot import backends

    return tuple(backends.KNOWN) if set(wanted) <= backends.KNOWN.keys() else backends.names()


def open_backend(
    workspace: Workspace, name: str, *, options: Mapping[str, Any], directory: Path, project: bool = True
) -> Backend:
    """The backend of this name. Without `project` it is opened for cleaning up alone: no definition is read."""
    from ingot import backends

    if workspace.simulated is not None:
        return _pretend(workspace.state.root, workspace.simulated)
    settings = BackendSettings(
        state=workspace.state.root,
        directory=directory,
        root=workspace.root if project else workspace.project.absolute(),
        options=dict(options),
        secrets=workspace.loaded.secrets if project else {},
    )
    return backends.find_backend(name)(settings)


def base_finder(workspace: Workspace) -> Callable[[Needed], FoundBase]:
    """How the lock finds the image of a cloud that a base means. It raises PlanError where the backend has none."""

    def find(one: Needed) -> FoundBase:
        from ingot.errors import PlanError
        from ingot.model.definition import CloudBase

        target, source = one.target, one.source
        assert isinstance(source, CloudBase), "others are pinned without a backend"
        backend = open_backend(
            workspace, target.backend, options=target.options, directory=workspace.state.runs
        )
        if backend.finder is None:
            raise PlanError(
                f'the base "{one.base}" is an image of {source.backend!r}, and target "{target.name}" has none',
                hint=f"give `bases.{one.base}` an entry for `{target.name}`",
            )
        return backend.finder.find(source.query, arch=target.arch)

    return find


def open_place(workspace: Workspace) -> Callable[[Place, Path], Backend]:
    """How sweeping opens the backend of a dead run's record."""

    def opened(place: Place, directory: Path) -> Backend:
        return open_backend(
            workspace, place.backend, options=place.options, directory=directory, project=False
        )

    return opened


def project_tree(workspace: Workspace) -> FileTree:
    """The files that planning may read: the project's, Ingot's own collections, and those of Python packages."""
    from ingot.definition.roles import GALAXY, installed_collections
    from ingot.system.tree import FileTree

    found = (place for place in installed_collections() if (place / "ansible_collections").is_dir())
    return FileTree(workspace.root, workspace.root / GALAXY, *found)


def fetch_requirements(workspace: Workspace, *, emit: Emit, cancel: Cancel) -> None:
    """Fetches the roles and collections of the project's requirements.yml that are not there yet.

    Before the definition is read: what its steps name, and their keys, may lie in what is fetched.
    """
    from ingot.definition.roles import GALAXY

    root = workspace.project.absolute()
    if not any((root / name).is_file() for name in REQUIREMENTS):
        return
    from ingot.provision.ansible import AnsibleProject
    from ingot.provision.ansible import fetch_requirements as fetch
    from ingot.provision.places import collections_path

    emit(Progress(what="looking at what requirements.yml asks for", done=0))
    workspace.state.cache.mkdir(parents=True, exist_ok=True)
    project = AnsibleProject(
        root=root, directory=workspace.state.cache, collections=collections_path(), galaxy=root / GALAXY
    )
    fetch(project, cancel=cancel)


def layer_cache(workspace: Workspace) -> LayerCache | None:
    """Where the project's layers are shared; None without such a place."""
    found = workspace.definition.cache
    if found is None or workspace.simulated is not None:
        return None
    from ingot.stores.layers import RemoteLayers

    key = Path(found.key).expanduser() if found.key else None
    return RemoteLayers(found.url, signers=workspace.root / found.signers, key=key)


def provisioner(workspace: Workspace, run: Run) -> Provisioner:
    """What applies steps in this run."""
    if workspace.simulated is not None:
        from ingot.backends.memory.steps import MemoryProvisioner

        return MemoryProvisioner(
            cloud=_pretend(workspace.state.root, workspace.simulated), secrets=workspace.loaded.secrets
        )
    return _Steps(workspace, run)


def inventory(workspace: Workspace) -> Inventory:
    """What reads packages, release and kernel from a machine."""
    if workspace.simulated is not None:
        from ingot.backends.memory.steps import MemoryInventory

        return MemoryInventory(cloud=_pretend(workspace.state.root, workspace.simulated))
    return _Contents()


@cache
def _pretend(state: Path, habits: str) -> MemoryBackend:
    """The pretend cloud of a state folder, one for all that use it: it counts its calls."""
    from ingot.backends.memory.backend import MemoryBackend
    from ingot.backends.memory.habits import parse_habits

    return MemoryBackend(root=state / "memory", habits=parse_habits(habits))


class _Steps:
    """Loads the provisioners with the first step: a build with nothing to do has none."""

    def __init__(self, workspace: Workspace, run: Run) -> None:
        self._workspace = workspace
        self._run = run

    @cached_property
    def _all(self) -> Provisioner:
        from ingot.provision.apply import Provisioners

        workspace = self._workspace
        return Provisioners(
            root=workspace.root, directory=self._run.directory, secrets=workspace.loaded.secrets
        )

    def expect(self, step: Step) -> None:
        self._all.expect(step)

    def user_data(self, step: Step) -> Secret | None:
        return self._all.user_data(step)

    def apply(self, step: Step, machine: Machine, *, subject: str, emit: Emit, cancel: Cancel) -> None:
        self._all.apply(step, machine, subject=subject, emit=emit, cancel=cancel)

    def close(self) -> None:
        if "_all" in vars(self):
            self._all.close()


class _Contents:
    """Loads what reads a machine when there is one to read."""

    @cached_property
    def _reader(self) -> Inventory:
        from ingot.provision.inventory import MachineInventory

        return MachineInventory()

    def packages(self, machine: Machine) -> tuple[Package, ...]:
        return self._reader.packages(machine)

    def os_release(self, machine: Machine) -> Mapping[str, str]:
        return self._reader.os_release(machine)

    def kernel(self, machine: Machine) -> str:
        return self._reader.kernel(machine)


def ansible_version() -> str:
    """ansible-core's version, without importing Ansible itself."""
    from ansible.release import __version__

    return str(__version__)
