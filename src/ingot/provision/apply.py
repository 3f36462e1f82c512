"""The provisioner: which module applies which kind of step."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from ingot.errors import IngotError, ProvisionError
from ingot.model.events import Emit
from ingot.model.secret import Secret
from ingot.model.step import (
    CloudInitStep,
    ContainersStep,
    FilesStep,
    PackagesStep,
    PlaybookStep,
    RebootStep,
    RolesStep,
    ScriptStep,
    SealStep,
    Step,
    describe,
)
from ingot.ports import Cancel, Machine
from ingot.provision import files, packages, script
from ingot.provision.log import StepLog, open_log
from ingot.provision.places import collections_path

if TYPE_CHECKING:
    from ingot.provision.ansible import AnsibleProject, Started


class Provisioners:
    """`ports.Provisioner` for every kind of step.

    `root` is the project's folder, `directory` the run's own (logs), `collections` the folder that holds
    `ansible_collections/ingot`, `galaxy` where roles and collections of the project's requirements.yml are kept.
    With `strict`, a file that Ansible read though the plan did not count it is an error rather than a warning.
    """

    def __init__(
        self,
        *,
        root: Path,
        directory: Path,
        secrets: Mapping[str, Secret] | None = None,
        collections: Path | None = None,
        galaxy: Path | None = None,
        strict: bool = False,
    ) -> None:
        self._root = root.resolve()
        self._directory = directory
        self._secrets = dict(secrets or {})
        self._collections = collections or collections_path()
        self._galaxy = galaxy or self._root / ".ingot" / "galaxy"
        self._strict = strict
        self._ahead: tuple[Step, Started] | None = None

    def expect(self, step: Step) -> None:
        """Starts Ansible, which takes a second to read itself, while the machine is made ready."""
        if not isinstance(step, (RolesStep, PlaybookStep)) or (self._ahead and self._ahead[0] is step):
            return
        from ingot.provision.ansible import start

        self.close()
        with contextlib.suppress(IngotError, OSError):  # `apply` will tell what is wrong
            self._ahead = step, start(step, project=self._project)

    def close(self) -> None:
        """Ends an Ansible that was started for a step that did not come."""
        if self._ahead:
            self._ahead[1].close()
        self._ahead = None

    def user_data(self, step: Step) -> Secret | None:
        """What cloud-init is to be told by the machine's first boot. Raises ProvisionError where it can't be read."""
        if not isinstance(step, CloudInitStep):
            return None
        from ingot.provision import cloud_init

        return cloud_init.user_data(step, root=self._root, secrets=self._secrets)

    def apply(self, step: Step, machine: Machine, *, subject: str, emit: Emit, cancel: Cancel) -> None:
        """Returns when the step is done. Raises ProvisionError (facts: `step`, `log`, `tail`, and `task`, `file` and
        `line` where known), DeadlineError past the step's timeout, CancelledError on a wish to stop."""
        with open_log(self._directory, subject=subject, emit=emit, secrets=self._secrets) as log:
            try:
                self._apply(step, machine, log=log, cancel=cancel)
            except ProvisionError as error:
                facts = {"step": describe(step), "log": str(log.path), "tail": tuple(log.tail)}
                error.facts = {**facts, **error.facts}
                raise

    def _apply(self, step: Step, machine: Machine, *, log: StepLog, cancel: Cancel) -> None:
        match step:
            case PackagesStep():
                packages.apply(step, machine, log=log, cancel=cancel)
            case ScriptStep():
                script.apply(step, machine, root=self._root, secrets=self._secrets, log=log, cancel=cancel)
            case FilesStep():
                files.apply(step, machine, root=self._root, secrets=self._secrets, log=log, cancel=cancel)
            case RolesStep() | PlaybookStep():
                # Imported when used: a build without Ansible does not pay for reading its configuration.
                from ingot.provision.ansible import apply, start

                with contextlib.closing(self._take(step) or start(step, project=self._project)) as started:
                    apply(step, machine, started=started, project=self._project, log=log, cancel=cancel)
            case CloudInitStep():
                from ingot.provision import cloud_init

                cloud_init.apply(step, machine, log=log, cancel=cancel)
            case ContainersStep():
                from ingot.provision import containers

                containers.apply(step, machine, log=log, cancel=cancel)
            case RebootStep():
                from ingot.provision import reboot

                reboot.apply(step, machine, log=log, cancel=cancel)
            case SealStep():
                from ingot.provision import seal

                seal.apply(step, machine, subject=log.subject, emit=log.emit, cancel=cancel, log=log.path)
            case _:
                assert_never(step)

    def _take(self, step: Step) -> Started | None:
        """What was started for this very step."""
        if not self._ahead or self._ahead[0] is not step:
            return None
        started, self._ahead = self._ahead[1], None
        return started

    @property
    def _project(self) -> AnsibleProject:
        from ingot.provision.ansible import AnsibleProject

        return AnsibleProject(
            root=self._root,
            directory=self._directory,
            collections=self._collections,
            galaxy=self._galaxy,
            secrets=self._secrets,
            strict=self._strict,
        )
