"""What a Debian archive has to give for a base: its lists and all packages, fetched before a disk is made.

apt does the work, with a configuration of its own: nothing of the builder's `/etc/apt` counts. Whatever the archive
refuses is learnt here and told in a sentence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ingot.errors import BackendError
from ingot.model.definition import DebootstrapBase
from ingot.model.units import Seconds
from ingot.ports import Cancel
from ingot.system import process
from ingot.system.process import ToolError

DEBIAN = DebootstrapBase(suite="")
KEYRING_IN_IMAGE = "/usr/share/keyrings/debian-archive-keyring.gpg"
OWN_KEYRING = "/etc/apt/keyrings/base-archive"
"""Where an image keeps the keys of an archive that is not Debian's."""
_ROLLING = frozenset({"sid", "unstable", "experimental", "rc-buggy"})
_PATIENCE = Seconds(1800.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Fetched:
    """What was fetched: apt's lists, and the packages in the order in which they are wanted."""

    lists: Path
    archives: Path
    packages: tuple[Path, ...]


def deb_architecture(arch: str) -> str:
    """Debian's name of an architecture. Raises BackendError for one that no base is made for here."""
    if arch != "x86_64":
        raise BackendError(
            f"bases for {arch} are not made from packages here",
            hint="use a cloud image as base, with its checksum",
        )
    return "amd64"


def sources(source: DebootstrapBase, *, keyring: str) -> str:
    """What apt reads (deb822) to build from the archives that a definition names, with the keys in `keyring`."""
    suites = [source.suite]
    rolling = source.suite in _ROLLING
    if source.security and not rolling:
        suites.append(f"{source.suite}-updates")
    stanzas = [_stanza(source.mirror, suites, source.components, keyring)]
    if source.security and not rolling:
        stanzas.append(_stanza(source.security, [f"{source.suite}-security"], source.components, keyring))
    return "\n".join(stanzas)


def image_sources(source: DebootstrapBase) -> str:
    """What apt reads in the finished image: Debian's own archive in place of the mirror of the build.

    An archive with a keyring of its own is no mirror of Debian's, so it stays.
    """
    if source.keyring:
        return sources(source, keyring=f"{OWN_KEYRING}{_suffix(source.keyring)}")
    canonical = DebootstrapBase(
        suite=source.suite, components=source.components, security=DEBIAN.security if source.security else ""
    )
    return sources(canonical, keyring=KEYRING_IN_IMAGE)


def mirrors(source: DebootstrapBase) -> dict[str, str]:
    """What later layers fetch in place of what the image's sources name (`Downloads.serve`, `instead`)."""
    if source.keyring:
        return {}
    found = {DEBIAN.mirror: source.mirror, DEBIAN.security: source.security or DEBIAN.security}
    return {own: other for own, other in found.items() if own != other}


def own_keyring(source: DebootstrapBase) -> str:
    """Where the image keeps the definition's keyring."""
    return f"{OWN_KEYRING}{_suffix(source.keyring)}"


def _suffix(keyring: str) -> str:
    # apt tells armoured keys from binary ones by the name.
    return ".asc" if keyring.endswith(".asc") else ".gpg"


def _stanza(uri: str, suites: Sequence[str], components: Sequence[str], keyring: str) -> str:
    lines = [
        "Types: deb",
        f"URIs: {uri}",
        f"Suites: {' '.join(suites)}",
        f"Components: {' '.join(components)}",
    ]
    if "snapshot.debian.org" in uri:
        # What is frozen on purpose has expired by now.
        lines.append("Check-Valid-Until: no")
    return "\n".join([*lines, f"Signed-By: {keyring}"]) + "\n"


def find_keyring(source: DebootstrapBase, root: Path) -> Path:
    """The keyring on this computer: the project's, or Debian's own. Raises BackendError where it is missing."""
    names = [root / source.keyring] if source.keyring else [
        Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
        Path("/usr/share/keyrings/debian-archive-keyring.pgp"),
    ]  # fmt: skip
    for name in names:
        if name.is_file():
            return name
    if source.keyring:
        raise BackendError(
            f"the keyring {source.keyring!r} of the base is not there",
            hint=f"it was looked for at {names[0]}",
        )
    raise BackendError(
        "Debian's archive keys are not on this computer",
        hint="install `debian-archive-keyring`, or name a `keyring:`",
    )


def fetch(
    source: DebootstrapBase,
    names: Sequence[str],
    *,
    arch: str,
    keyring: Path,
    folder: Path,
    proxy: str,
    cancel: Cancel,
    log: Path,
) -> Fetched:
    """Lists and packages, with all that they depend on, into `folder`. Raises BackendError with what is wrong."""
    archives = folder / "archives"
    config = _configure(source, arch=arch, keyring=keyring, folder=folder, proxy=proxy)

    env = process.environment({"APT_CONFIG": str(config), "DEBIAN_FRONTEND": "noninteractive"})

    def apt(*words: str) -> None:
        try:
            process.run(["apt-get", "-q", *words], timeout=_PATIENCE, cancel=cancel, env=env, log=log)
        except ToolError as error:
            raise explain(log.read_text(errors="replace"), source) from error

    log.write_bytes(b"")
    apt("update")
    install = ("install", "--yes", "--download-only")
    # mmdebstrap asks twice: for what is essential, and with that there for the rest. The first answer may name
    # packages that the second leaves out, so both are wanted; the first is worked out meanwhile.
    alone = (*_ALONE, "-o", f"Dir::Cache::archives={folder}/none")
    with _asking(["apt-get", *alone, "install", "?essential"], folder / "essential", env) as first_names:
        apt(*install, "?essential", "?priority(required)", "apt", *names)
        first = [archives / name for name in first_names()]
    if not first or not all(path.exists() for path in first):
        apt(*install, "?essential")
    rest = sorted(set(archives.glob("*.deb")) - set(first), key=lambda path: -path.stat().st_size)
    return Fetched(lists=folder / "lists", archives=archives, packages=(*first, *rest))


# With no cache in common; and with no archives, for what is there already would not be named.
_ALONE = ("-qq", "--print-uris", "-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache=")


@contextmanager
def _asking(argv: Sequence[str], answer: Path, env: Mapping[str, str]) -> Iterator[Callable[[], list[str]]]:
    """While inside, apt works out which packages a command would fetch; calling the value waits for their names."""
    with answer.open("wb") as file:
        child = process.spawn(argv, env=env, stdout=file)

    def names() -> list[str]:
        if child.wait():
            return []
        return re.findall(r"^'[^']*' (\S+\.deb) ", answer.read_text(), re.MULTILINE)

    try:
        yield names
    finally:
        process.end(child)


def _configure(source: DebootstrapBase, *, arch: str, keyring: Path, folder: Path, proxy: str) -> Path:
    for name in (
        "archives/partial",
        "none/partial",
        "lists/partial",
        "etc/apt.conf.d",
        "etc/preferences.d",
        "etc/trusted.gpg.d",
    ):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "status").touch()
    (folder / "etc/sources.sources").write_text(sources(source, keyring=str(keyring)))
    (folder / "etc/preferences.d/usrmerge").write_text(
        "Package: usrmerge\nPin: release *\nPin-Priority: -1\n"
    )
    architecture = deb_architecture(arch)
    settings = {
        "Dir": str(folder),
        "Dir::Etc": f"{folder}/etc",
        "Dir::Etc::sourcelist": "/dev/null",
        "Dir::Etc::sourceparts": f"{folder}/etc",
        "Dir::Etc::parts": f"{folder}/etc/apt.conf.d",
        "Dir::Etc::main": "/dev/null",
        "Dir::Etc::trusted": "/dev/null",
        "Dir::Etc::trustedparts": f"{folder}/etc/trusted.gpg.d",
        "Dir::State": str(folder),
        "Dir::State::lists": f"{folder}/lists",
        "Dir::State::status": f"{folder}/status",
        "Dir::Cache": str(folder),
        "Dir::Cache::archives": f"{folder}/archives",
        "Dir::Log": str(folder),
        "APT::Architecture": architecture,
        "APT::Install-Recommends": "false",
        "APT::Update::Error-Mode": "any",
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
        "Acquire::Retries": "2",
        "Acquire::http::Proxy": proxy,
        "Acquire::https::Proxy": proxy,
        "Debug::NoLocking": "true",
    }
    text = "".join(f'{name} "{value}";\n' for name, value in settings.items())
    config = folder / "apt.conf"
    config.write_text(f'#clear APT::Architectures;\nAPT::Architectures {{ "{architecture}"; }};\n{text}')
    return config


_SAYINGS = (
    (r"Unable to locate package (\S+)", "the archive has no package {0!r} in {suite} ({components})",
     "check its spelling, and whether it needs another of `components:` (contrib, non-free, non-free-firmware)"),
    (r"Package '?(\S+?)'? has no installation candidate", "the archive has no package {0!r} in {suite} ({components})",
     "check its spelling, and whether it needs another of `components:` (contrib, non-free, non-free-firmware)"),
    (r"Version '(\S+)' for '(\S+)' was not found", "the archive has no version {0} of the package {1!r} in {suite}",
     "`apt-cache policy` on such a system tells which versions there are"),
    (r"(?:NO_PUBKEY (\S+)|signatures? couldn't be verified|is not signed|Missing key (\S+)|signing key)",
     "the archive {mirror} is signed with another key than those in {keyring}",
     "name the archive's keys with the base's `keyring:`"),
    (r"Release file for (\S+) is expired", "the archive's {0} is too old to be trusted",
     "use a mirror that is kept up to date"),
    (r"repository '(\S+) (\S+) Release' does not have a Release file", "the archive {0} has no suite {1!r}",
     "check `debootstrap:` (for example `bookworm` or `trixie`), `mirror:` and `security:`"),
    (r"404 .*\[IP|404  ?Not Found", "the archive {mirror} has not got a file that its lists name or that they need",
     "the mirror may be in the midst of an update; try again, or use another `mirror:`"),
    (r"No space left on device|Disk full|don't have enough free space",
     "the builder's disk is full", "free some space below the state folder; `ingot gc` drops layers"),
    (r"Hash Sum mismatch", "the archive {mirror} gave a file that does not match its lists",
     "the mirror may be in the midst of an update; try again, or use another `mirror:`"),
    (r"(?:Could not connect to|Could not resolve|Unable to connect to|Cannot initiate|Failed to fetch|502 )",
     "the archive {mirror} could not be reached", "check the network, `http_proxy`, and the base's `mirror:`"),
)  # fmt: skip


def explain(log: str, source: DebootstrapBase) -> BackendError:
    """The error that apt's messages mean: the first that is known, with the place and the remedy."""
    lines = [line for line in log.splitlines() if re.match(r"[EW]:|Err:|  ", line)] or log.splitlines()
    text = "\n".join(lines)
    known = {
        "suite": source.suite,
        "components": ", ".join(source.components),
        "mirror": source.mirror,
        "keyring": source.keyring or "Debian's keyring",
    }
    if "does not have a Release file" in text and not re.search(r"\b404\b", text):
        # The same words serve apt for a server that did not answer.
        text = text.replace("does not have a Release file", "")
    for pattern, sentence, hint in _SAYINGS:
        if found := re.search(pattern, text):
            return BackendError(
                sentence.format(*(group or "" for group in found.groups()), **known), hint=hint
            )
    said = next(
        (line[3:] for line in lines if line.startswith("E: ")), lines[-1] if lines else "no reason given"
    )
    return BackendError(f"apt could not get the packages from {source.mirror}: {said}")
