"""Names to adapters: what the core gets injected. The one place that knows which ones there are."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingot.ports import BackendSettings

if TYPE_CHECKING:
    from ingot.api.workspace import Workspace
    from ingot.engine.journal import Place
    from ingot.engine.run import Run
    from ingot.ports import Backend, Inventory, Provisioner
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

    settings = BackendSettings(
        state=workspace.state.root,
        directory=directory,
        root=workspace.root if project else workspace.project.absolute(),
        options=dict(options),
        secrets=workspace.loaded.secrets if project else {},
    )
    return backends.find_backend(name)(settings)


def open_place(workspace: Workspace) -> Callable[[Place, Path], Backend]:
    """How sweeping opens the backend of a dead run's record."""

    def opened(place: Place, directory: Path) -> Backend:
        return open_backend(
            workspace, place.backend, options=place.options, directory=directory, project=False
        )

    return opened


def project_tree(workspace: Workspace) -> FileTree:
    """The files that planning may read: the project's, Ingot's own collections, and those of Python packages."""
    from ingot.provision.places import collections_path
    from ingot.system.tree import FileTree

    installed = (Path(entry) for entry in sys.path if entry)
    return FileTree(
        workspace.root,
        collections_path(),
        *(place for place in installed if (place / "ansible_collections").is_dir()),
    )


def provisioner(workspace: Workspace, run: Run) -> Provisioner:
    """What applies steps in this run."""
    from ingot.provision.apply import Provisioners

    return Provisioners(root=workspace.root, directory=run.directory, secrets=workspace.loaded.secrets)


def inventory() -> Inventory:
    """What reads packages, release and kernel from a machine."""
    from ingot.provision.inventory import MachineInventory

    return MachineInventory()


def ansible_version() -> str:
    """ansible-core's version, without importing Ansible itself."""
    from ansible.release import __version__

    return str(__version__)
