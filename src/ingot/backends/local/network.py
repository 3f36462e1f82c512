"""A chroot machine's network: outgoing only, its files, and services of ours that it may reach.

The machine has a network namespace of its own behind slirp4netns: it reaches what the builder reaches, but nothing
that listens on the builder's 127.0.0.1. A service of ours is handed in as a listening socket made *inside* that
namespace, so that no port opens on the builder.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from ingot.backends.local import kernel
from ingot.errors import BackendError

DOWNLOADS_PORT = 3142
"""Where the machine finds the cache of package downloads, on its own 127.0.0.1."""
DOWNLOADS_URL = f"http://127.0.0.1:{DOWNLOADS_PORT}"

RESOLV_CONF = "# For the time of the build.\nnameserver 10.0.2.3\noptions timeout:2 attempts:5\n"
_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy")
BUNDLE = "/run/ingot/ca-certificates.crt"
_BUNDLE_NAMES = ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "GIT_SSL_CAINFO")


_MIRRORS = "mirrors"


class Service(Protocol):
    """Something that answers on a listening socket while the context lasts, in threads of its own."""

    def serve(
        self, listener: socket.socket, *, instead: Mapping[str, str] | None = None
    ) -> AbstractContextManager[object]: ...


@contextmanager
def hand_in(
    service: Service, init: int, *, instead: Mapping[str, str] | None = None, port: int = DOWNLOADS_PORT
) -> Iterator[None]:
    """The service on 127.0.0.1:`port` of the machine whose init has this process id. `instead`: its mirrors."""
    with listen_inside(init, port) as listener, service.serve(listener, instead=instead):
        yield


def mirror_labels(instead: Mapping[str, str]) -> dict[str, str]:
    """The labels by which a base tells the layers above it which mirrors stand in for what its sources name."""
    return {_MIRRORS: json.dumps(instead, sort_keys=True)} if instead else {}


def inherited(labels: Mapping[str, str]) -> dict[str, str]:
    """Of a layer's labels, those that a layer on it has too."""
    return {name: value for name, value in labels.items() if name == _MIRRORS}


def mirrors_of(labels: Mapping[str, str]) -> dict[str, str]:
    """What a layer's labels say of mirrors, by the URL prefix that each stands in for."""
    return dict(json.loads(labels.get(_MIRRORS, "{}")))


def listen_inside(init: int, port: int) -> socket.socket:
    """A listening socket in another process's network namespace. Raises BackendError where it can't be made."""

    def listen() -> socket.socket:
        # Only this thread changes its network; the socket stays in the one it was made in.
        space = os.open(f"/proc/{init}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            kernel.enter(space, kernel.NEW_NET)
        finally:
            os.close(space)
        return socket.create_server(("127.0.0.1", port), backlog=128)

    try:
        return _in_thread(listen)
    except OSError as error:
        raise BackendError(f"port {port} could not be opened inside the machine: {error}") from error


def _in_thread(make: Callable[[], socket.socket]) -> socket.socket:
    made: list[socket.socket] = []
    failed: list[OSError] = []

    def work() -> None:
        try:
            made.append(make())
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=work, name="listen-inside")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return made[0]


def proxy_environment(environment: Mapping[str, str], *, bundle: str = BUNDLE) -> dict[str, str]:
    """The user's proxies and certificates as programs on the machine are to see them, in both spellings.

    A proxy on the builder's own 127.0.0.1 is left out: the machine cannot reach it.
    """
    found: dict[str, str] = {}
    for name in _PROXIES:
        value = environment.get(name) or environment.get(name.upper()) or ""
        if value and not (name != "no_proxy" and _is_local(value)) and _is_plain(value):
            found[name] = found[name.upper()] = value
    if environment.get("SSL_CERT_FILE"):
        found |= dict.fromkeys(_BUNDLE_NAMES, bundle)
    return found


def certificate_files(environment: Mapping[str, str], *, bundle: str = BUNDLE) -> list[tuple[str, str, int]]:
    """The user's own bundle of certificates, as a file for the machine that its image will not have."""
    path = environment.get("SSL_CERT_FILE")
    if not path:
        return []
    try:
        return [(bundle, Path(path).read_bytes().decode("latin-1"), 0o644)]
    except OSError as error:
        raise BackendError(
            f"SSL_CERT_FILE names {path}, which cannot be read: {error.strerror}", hint="correct or unset it"
        ) from error


def apt_conf(environment: Mapping[str, str], *, downloads: str) -> str:
    """What apt is told for the time of the build: where downloads come from, to keep none on the disk, and that
    dpkg need not wait for the disk file by file. `downloads` is the URL of a cache. What a crash leaves is no layer, and freezing waits for all."""
    lines = ['APT::Keep-Downloaded-Packages "false";', 'DPkg::Options:: "--force-unsafe-io";']
    if downloads:
        lines.append(f'Acquire::http::Proxy "{downloads}";')
    elif "http_proxy" in environment:
        lines.append(f'Acquire::http::Proxy "{environment["http_proxy"]}";')
    if "https_proxy" in environment:
        lines.append(f'Acquire::https::Proxy "{environment["https_proxy"]}";')
    if "SSL_CERT_FILE" in environment:
        lines.append(f'Acquire::https::CAInfo "{environment["SSL_CERT_FILE"]}";')
    return "".join(f"{line}\n" for line in lines)


def _is_local(url: str) -> bool:
    host = url.split("://")[-1].split("@")[-1]
    return host.startswith(("127.", "localhost", "[::1]"))


def _is_plain(value: str) -> bool:
    return value.isprintable() and '"' not in value and " " not in value
