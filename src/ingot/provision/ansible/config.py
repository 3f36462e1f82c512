"""The project's ansible.cfg, honoured as Ansible honours it, and the environment that Ansible runs in.

Where both have an opinion, ours wins only where the build would not be right otherwise (pinned host keys, temporary
folders, no facts from another machine). What a user may reasonably choose is set only where the user did not.
"""

from __future__ import annotations

import configparser
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ingot.errors import ProvisionError
from ingot.system import process

# Of the caller's environment: how this computer gets out, and where vault passwords are.
_PASSED = (
    *("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE"),
    *("SSL_CERT_DIR", "ANSIBLE_VAULT_PASSWORD_FILE", "ANSIBLE_VAULT_IDENTITY_LIST", "ANSIBLE_GALAXY_SERVER"),
)

_ALWAYS = {
    "ANSIBLE_HOST_KEY_CHECKING": "True",  # the key is pinned; `False` would make mitogen ignore the pin
    "ANSIBLE_CACHE_PLUGIN": "memory",  # facts kept on disk would be those of another machine of the same name
    "ANSIBLE_RETRY_FILES_ENABLED": "False",
    "ANSIBLE_NOCOLOR": "True",
    "ANSIBLE_NOCOWS": "True",
    "ANSIBLE_PIPELINING": "True",
    # On the machine, where /tmp is not part of an image. A folder for each user: `become_user` may not enter root's.
    "ANSIBLE_REMOTE_TEMP": "/tmp/.ansible-${USER}",
}

# Where the configuration does not say otherwise: its section and name, our variable, our value.
_USUALLY = (("defaults", "gathering", "ANSIBLE_GATHERING", "smart"),)

_STRATEGIES = {
    "": "mitogen_linear",
    "linear": "mitogen_linear",
    "ansible.builtin.linear": "mitogen_linear",
    "free": "mitogen_free",
    "ansible.builtin.free": "mitogen_free",
    "host_pinned": "mitogen_host_pinned",
    "ansible.builtin.host_pinned": "mitogen_host_pinned",
    "mitogen": "mitogen_linear",
    "mitogen_linear": "mitogen_linear",
    "mitogen_free": "mitogen_free",
    "mitogen_host_pinned": "mitogen_host_pinned",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """An ansible.cfg that was read. `folder` is where Ansible is started; `file` is None where there is none."""

    folder: Path
    file: Path | None = None
    values: Mapping[tuple[str, str], str] = field(default_factory=dict)

    def get(self, section: str, name: str) -> str:
        """The setting's text, "" where it is not set."""
        return self.values.get((section, name), "")

    def paths(self, section: str, *names: str, separator: str = ":") -> tuple[Path, ...]:
        """A setting that lists paths, the first of `names` that is set; relative ones belong to the file's folder."""
        text = next((value for name in names if (value := self.get(section, name))), "")
        return tuple(self._path(part.strip()) for part in text.split(separator) if part.strip())

    def _path(self, text: str) -> Path:
        expanded = os.path.expandvars(os.path.expanduser(text.replace("{{CWD}}", str(self.folder))))  # noqa: PTH111
        return Path(os.path.normpath(self.folder / expanded))

    @property
    def strategy(self) -> str:
        """mitogen's counterpart of the chosen strategy, "" where there is none."""
        return _STRATEGIES.get(self.get("defaults", "strategy"), "")


def read_config(root: Path, *, near: Path | None = None) -> Config:
    """The ansible.cfg nearest to `near` (a playbook's folder) on the way up to the project's `root`.

    Nobody's ~/.ansible.cfg and no /etc/ansible is read: a build must not depend on who runs it.
    """
    folder = (near or root).resolve()
    while root in (folder, *folder.parents):
        if (folder / "ansible.cfg").is_file():
            return parse_config(folder / "ansible.cfg")
        if folder == root:
            break
        folder = folder.parent
    return Config(folder=root)


def parse_config(file: Path) -> Config:
    """The settings of one ansible.cfg. Raises ProvisionError when it is not an INI file."""
    parser = configparser.ConfigParser(inline_comment_prefixes=(";",), interpolation=None, strict=False)
    try:
        parser.read_string(file.read_text(encoding="utf-8"), source=str(file))
    except (configparser.Error, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise ProvisionError(
            f"{file} cannot be read: {reason}", hint="see `ansible-config view`", file=str(file)
        ) from error
    values = {
        (section, name): value for section in parser.sections() for name, value in parser.items(section)
    }
    return Config(folder=file.parent, file=file, values=values)


def search_roles(config: Config, *, root: Path, galaxy: Path) -> tuple[Path, ...]:
    """Where roles are looked for: as configured, in the project, those of requirements.yml, the user's own."""
    own = config.paths("defaults", "roles_path")
    users = (Path.home() / ".ansible/roles", Path("/usr/share/ansible/roles"), Path("/etc/ansible/roles"))
    return tuple(dict.fromkeys((*own, config.folder / "roles", root / "roles", galaxy / "roles", *users)))


def search_collections(config: Config, *, root: Path, galaxy: Path, ours: Path) -> tuple[Path, ...]:
    """Where collections are looked for, before those of our own Python environment."""
    own = config.paths("defaults", "collections_path", "collections_paths")
    users = (Path.home() / ".ansible/collections", Path("/usr/share/ansible/collections"))
    return tuple(
        dict.fromkeys((*own, config.folder / "collections", root / "collections", galaxy, ours, *users))
    )


def environment(
    config: Config, *, empty: Path, scratch: Path, roles: tuple[Path, ...], collections: tuple[Path, ...]
) -> dict[str, str]:
    """The whole environment of an Ansible process. `empty` is an empty ansible.cfg, for a project without one."""
    passed = {name: os.environ[name] for name in _PASSED if name in os.environ}
    usually = {
        variable: value for section, name, variable, value in _USUALLY if not config.get(section, name)
    }
    return process.environment(
        {
            **passed,
            **usually,
            **_ALWAYS,
            "ANSIBLE_CONFIG": str(config.file or empty),
            "ANSIBLE_LOCAL_TEMP": str(scratch),
            "ANSIBLE_ROLES_PATH": ":".join(map(str, roles)),
            "ANSIBLE_COLLECTIONS_PATH": ":".join(map(str, collections)),
            "TMPDIR": str(scratch),
        }
    )
