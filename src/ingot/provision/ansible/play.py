"""One step of Ansible from end to end: what it needs is laid out, it runs, and what became of it is told."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ingot.errors import ProvisionError
from ingot.model.events import Warned
from ingot.model.secret import Secret, reveal
from ingot.model.step import PlaybookStep, RolesStep, describe
from ingot.model.units import Seconds
from ingot.ports import Cancel, Machine
from ingot.provision import packages
from ingot.provision.ansible import config as cfg
from ingot.provision.ansible import hosts, requirements, results
from ingot.provision.ansible.order import LAUNCHER, Order, program
from ingot.provision.log import StepLog
from ingot.system import files, process, ssh

VAULT_PASSWORD = "ansible_vault_password"
_SOCKET_FOLDER = 60  # longest path in which mitogen's and multiprocessing's sockets fit a socket's 107 bytes
_NO_MITOGEN = 211


@dataclass(frozen=True, kw_only=True, slots=True)
class AnsibleProject:
    """What all of a run's Ansible steps share. See `Provisioners` for the fields."""

    root: Path
    directory: Path
    collections: Path
    galaxy: Path
    secrets: Mapping[str, Secret] = field(default_factory=dict)
    strict: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class _Setting:
    """Where things are for one step."""

    config: cfg.Config
    roles: tuple[Path, ...]
    collections: tuple[Path, ...]
    scratch: Path

    def environment(self) -> dict[str, str]:
        empty = self.scratch / "ansible.cfg"
        empty.touch()
        return cfg.environment(
            self.config, empty=empty, scratch=self.scratch, roles=self.roles, collections=self.collections
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Started:
    """An Ansible for one step that waits for its order, and the folder for what it needs while it runs.

    `engine` is the one that it is ready for.
    """

    playbook: Path | None
    setting: _Setting
    engine: str
    process: subprocess.Popen[bytes]
    kept: contextlib.ExitStack

    def close(self) -> None:
        """Ends it, if it has not ended, and removes its folder."""
        self.kept.close()


def start(step: RolesStep | PlaybookStep, *, project: AnsibleProject) -> Started:
    """Starts Ansible as the step needs it. Raises ProvisionError for a playbook or configuration it cannot read."""
    playbook = _find_playbook(step, project.root)
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(_scratch_folder(project.directory))
        setting = _set_up(project, near=playbook.parent if playbook else project.root, scratch=scratch)
        engine = _engines(step, setting.config)[0]
        strategy = _strategies(setting.config)[engine]
        environment = {**setting.environment(), **({"ANSIBLE_STRATEGY": strategy} if strategy else {})}
        child = process.start(program(engine), env=environment, cwd=setting.config.folder)
        stack.callback(process.end, child)
        return Started(playbook=playbook, setting=setting, engine=engine, process=child, kept=stack.pop_all())


def apply(
    step: RolesStep | PlaybookStep,
    machine: Machine,
    *,
    started: Started,
    project: AnsibleProject,
    log: StepLog,
    cancel: Cancel,
) -> None:
    """Runs the roles or the playbook on the machine. Raises ProvisionError that names the task at fault."""
    playbook, setting = started.playbook, started.setting
    _install_requirements(setting, project=project, log=log.path, cancel=cancel)
    found = _look(machine)
    if "apt" in found and "lists" not in found:
        # Many roles install packages without a thought to the lists, for a server that runs has them.
        packages.fetch_lists(machine, log=log, cancel=cancel)
    name = hosts.machine_name(playbook) if playbook else "default"
    play = playbook or _write_play(step, setting.scratch)
    inventories = _write_inventories(step, machine, setting, project=project, name=name)
    order = _make_order(
        step, play, found=found, setting=setting, project=project, inventories=inventories, name=name
    )
    listener = results.Listener(mark=order.mark, root=project.root, log=log)
    done = process.run(
        program(started.engine),
        started=started.process,
        input=order.encode(),
        timeout=step.timeout,
        cancel=cancel,
        on_line=listener.hear,
        check=False,
    )
    _judge(step, listener, code=done.code, log=log)
    _report_reads(step, listener, setting=setting, project=project, inventories=inventories)


def fetch_requirements(project: AnsibleProject, *, cancel: Cancel, log: Path | None = None) -> bool:
    """Fetches what the project's requirements.yml asks for and nothing here has; whether anything was missing.

    Every step does this for itself; planning needs it done before, for roles are part of a layer's key.
    Raises ProvisionError.
    """
    with _scratch_folder(project.directory) as scratch:
        setting = _set_up(project, near=project.root, scratch=scratch)
        return _install_requirements(setting, project=project, log=log, cancel=cancel)


def _find_playbook(step: RolesStep | PlaybookStep, root: Path) -> Path | None:
    if isinstance(step, RolesStep):
        return None
    playbook = root / step.path
    if not playbook.is_file():
        raise ProvisionError(
            f"the playbook {step.path!r} is not there", hint=f"its path is relative to the project, {root}"
        )
    return playbook.resolve()


@contextlib.contextmanager
def _scratch_folder(directory: Path) -> Iterator[Path]:
    """A folder for what Ansible needs while it runs. The launcher's warden removes it too, for we may be killed."""
    parent = directory if len(str(directory.resolve())) <= _SOCKET_FOLDER else None
    folder = Path(tempfile.mkdtemp(prefix="ingot-", dir=parent)).resolve()
    try:
        yield folder
    finally:
        files.remove(folder)


def _set_up(project: AnsibleProject, *, near: Path, scratch: Path) -> _Setting:
    config = cfg.read_config(project.root, near=near)
    return _Setting(
        config=config,
        roles=cfg.search_roles(config, root=project.root, galaxy=project.galaxy),
        collections=cfg.search_collections(
            config, root=project.root, galaxy=project.galaxy, ours=project.collections
        ),
        scratch=scratch,
    )


def _install_requirements(
    setting: _Setting, *, project: AnsibleProject, log: Path | None, cancel: Cancel
) -> bool:
    wanted = requirements.read_requirements((setting.config.folder, project.root))
    missing = requirements.missing_requirements(wanted, roles=setting.roles, collections=setting.collections)
    if missing:
        requirements.install_requirements(
            missing,
            galaxy=project.galaxy,
            config=setting.config,
            env=setting.environment(),
            log=log,
            cancel=cancel,
        )
    return bool(missing)


def _write_play(step: RolesStep | PlaybookStep, scratch: Path) -> Path:
    """The one play that a step's roles are, in which Ansible's own defaults hold."""
    assert isinstance(step, RolesStep)
    play = {
        "name": " ".join(step.roles),
        "hosts": "default",
        "roles": [{"role": role} for role in step.roles],
    }
    file = scratch / "roles.yml"
    file.write_text(json.dumps([play]))
    return file


def _write_inventories(
    step: RolesStep | PlaybookStep,
    machine: Machine,
    setting: _Setting,
    *,
    project: AnsibleProject,
    name: str,
) -> tuple[str, ...]:
    """The project's inventories and, last so that it wins, ours."""
    python = not setting.config.get("defaults", "interpreter_python")
    ours = hosts.write_inventory(
        setting.scratch / "inventory",
        hosts.describe_machine(machine.ssh, name=name, groups=step.groups, python=python),
        beside=(setting.config.folder, project.root),
    )
    return (*hosts.find_inventories(setting.config, project.root), str(ours))


def _make_order(
    step: RolesStep | PlaybookStep,
    play: Path,
    *,
    found: frozenset[str],
    setting: _Setting,
    project: AnsibleProject,
    inventories: tuple[str, ...],
    name: str,
) -> Order:
    arguments = [word for inventory in inventories for word in ("--inventory", inventory)]
    # Plays for `all` are for the machine, not for the other hosts of the project's inventory.
    arguments += ["--limit", ",".join(dict.fromkeys((name, "localhost")))]
    arguments += ["--become"] if step.become else []
    arguments += [f"--tags={','.join(step.tags)}"] if step.tags else []
    arguments += [f"--skip-tags={','.join(step.skip_tags)}"] if step.skip_tags else []
    variables = dict(reveal(dict(step.vars), project.secrets))
    if step.become is False:
        variables["ansible_become"] = False
    password = project.secrets.get(VAULT_PASSWORD)
    return Order(
        arguments=(*arguments, str(play)),
        engines=_engines(step, setting.config, ready=_ready_for_mitogen(found)),
        strategies=_strategies(setting.config),
        uncounted=_uncounted(setting.scratch),
        variables=variables,
        vault_password=password.reveal() if password else "",
    )


def _look(machine: Machine) -> frozenset[str]:
    """Which of `python`, `apt`, `python3-apt` and apt's `lists`, no older than a day, the machine has."""
    probe = f"""
        command -v python3 >/dev/null && echo python
        command -v apt-get >/dev/null && echo apt
        ls /usr/lib/python3/dist-packages/apt_pkg*.so >/dev/null 2>&1 && echo python3-apt
        find /var/lib/apt/lists -maxdepth 1 -name '*_Packages*' -cmin -{packages.FRESH_MINUTES} | grep -q . && echo lists
        true"""
    done = ssh.run(machine.ssh, ["sh", "-c", probe], timeout=Seconds(60.0), check=False)
    if done.code:
        raise ProvisionError(
            f"the machine {machine.ref} could not be reached: {' '.join(done.tail[-1:]) or 'no answer'}",
            hint=f"`ssh -F {machine.ssh.config} {machine.ssh.host}` tells more",
        )
    return frozenset(done.stdout.split())


def _engines(step: RolesStep | PlaybookStep, config: cfg.Config, *, ready: bool = True) -> tuple[str, ...]:
    """The engines to try. `auto`: not mitogen where a strategy it has no counterpart for is set, nor on a machine
    that is not `ready` for it."""
    if step.engine != "auto":
        return (step.engine,)
    return ("mitogen", "ansible") if ready and config.strategy else ("ansible",)


def _ready_for_mitogen(found: frozenset[str]) -> bool:
    """Not without Python (`raw` tasks may install it), nor without python3-apt where there is apt: Ansible's apt
    module installs it and starts anew, which fails under mitogen."""
    return "python" in found and ("apt" not in found or "python3-apt" in found)


def _strategies(config: cfg.Config) -> dict[str, str]:
    """The default strategy for each engine; "" leaves it to ansible.cfg."""
    plain = "linear" if config.get("defaults", "strategy").startswith("mitogen") else ""
    return {"mitogen": config.strategy or "mitogen_linear", "ansible": plain}


def _uncounted(scratch: Path) -> tuple[str, ...]:
    folders = (
        sys.prefix,
        sys.base_prefix,
        LAUNCHER.parent,
        scratch,
        "/usr",
        "/lib",
        "/etc",
        "/proc",
        "/sys",
        "/dev",
    )
    return tuple(f"{folder}/" for folder in folders)


def _judge(step: RolesStep | PlaybookStep, listener: results.Listener, *, code: int, log: StepLog) -> None:
    if code == _NO_MITOGEN:
        raise ProvisionError(
            "mitogen does not start with this Ansible",
            hint="choose `engine: auto`, which then uses plain Ansible",
        )
    if code:
        raise listener.explain(describe(step), code=code)
    if listener.plays and listener.plays == listener.unmatched:
        groups = ", ".join(step.groups) or "no group"
        raise ProvisionError(
            f"{describe(step)} did nothing: none of its plays is for this machine (`default`, in {groups})",
            hint="name the groups that the plays are for in the step's `groups`, or let a play say `hosts: all`",
            file=step.path if isinstance(step, PlaybookStep) else step.place.file,
        )


def _report_reads(
    step: RolesStep | PlaybookStep,
    listener: results.Listener,
    *,
    setting: _Setting,
    project: AnsibleProject,
    inventories: tuple[str, ...],
) -> None:
    """Says which files Ansible read on this computer that the plan did not count. Without a plan, nothing is said."""
    if not step.reads:
        return
    config = setting.config
    known = (
        *(path for path, _ in step.reads),
        *(
            str(path)
            for name in ("vault_password_file", "log_path")
            for path in config.paths("defaults", name)
        ),
        *([str(config.file)] if config.file else []),
        *inventories,
        *(
            str(folder / name)
            for folder in (config.folder, project.root)
            for name in ("group_vars", "host_vars")
        ),
    )
    roots = (project.root, project.collections, project.galaxy)
    found = results.uncounted(listener.read, counted=known, roots=roots)
    names = [listener.place(str(path)) for path in found if "__pycache__" not in path.parts]
    if not names:
        return
    message = f"Ansible read files that the plan did not count: {', '.join(names[:10])}" + (
        f" and {len(names) - 10} more" if len(names) > 10 else ""
    )
    hint = "a change in them will not rebuild this layer; move them into the role or beside the playbook"
    if project.strict:
        raise ProvisionError(message, hint=hint, file=step.place.file, line=step.place.line)
    listener.log.emit(Warned(subject=listener.log.subject, message=message, hint=hint))
