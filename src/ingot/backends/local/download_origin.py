"""Fetching from origins: the way out of here, and downloads that several readers share while they run."""

from __future__ import annotations

import hashlib
import http.client
import ipaddress
import os
import re
import socket
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from io import BufferedRandom
from pathlib import Path
from typing import IO
from urllib.parse import SplitResult, unquote, urlsplit

from ingot.model.units import Bytes, Seconds

CHUNK = 256 * 1024
PATIENCE = Seconds(30.0)
KEPT_HEADERS = ("Content-Type", "ETag", "Last-Modified")
_STALLED = Seconds(120.0)
_ATTEMPTS = 3
_HASHED = re.compile(r"/by-hash/SHA(256|512)/([0-9a-f]+)$")


class RefusedAddressError(Exception):
    """An address that clients may not reach through us."""


class BrokenOffError(Exception):
    """A download that ended before its end, or with other bytes than its name says."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Upstream:
    """The way out of here: the user's own proxy (`http://[user:password@]host:port`, "" for none) and exceptions.

    `trusted` are `host:port` of this computer or its link that clients may reach all the same.
    """

    proxy: str = ""
    direct: tuple[str, ...] = ()
    trusted: frozenset[str] = field(default_factory=frozenset)

    def proxy_for(self, host: str) -> SplitResult | None:
        """The proxy through which a host is reached; None for directly."""
        names = [name.lstrip(".") for name in self.direct]
        if not self.proxy or "*" in names or any(host == n or host.endswith("." + n) for n in names):
            return None
        return urlsplit(self.proxy if "//" in self.proxy else f"http://{self.proxy}")


def upstream_from(variables: Mapping[str, str], *, trusted: Iterable[str] = ()) -> Upstream:
    """The way out that the environment variables `http_proxy` and `no_proxy` name, as curl reads them."""
    spared = variables.get("no_proxy") or variables.get("NO_PROXY") or ""
    return Upstream(
        proxy=variables.get("http_proxy", ""),
        direct=tuple(name.strip() for name in spared.split(",") if name.strip()),
        trusted=frozenset(trusted),
    )


def address_of(url: str) -> str:
    """`host:port` of a URL, as `Upstream.trusted` has it."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"


def connect(host: str, port: int, upstream: Upstream, *, tunnel: bool = False) -> socket.socket:
    """A connection to an origin, or to the user's proxy on the way there, with `tunnel` through it.

    Raises RefusedAddressError and OSError.
    """
    if proxy := upstream.proxy_for(host):
        connection = socket.create_connection((str(proxy.hostname), proxy.port or 3128), PATIENCE)
        if tunnel:
            _ask_for_tunnel(connection, f"{host}:{port}", proxy_headers(proxy))
        return connection
    # A computer without /etc/hosts (a minimal root) would ask a name server for it: RFC 6761 says what it is.
    itself = host == "localhost" or host.endswith(".localhost")
    found = socket.getaddrinfo("127.0.0.1" if itself else host, port, type=socket.SOCK_STREAM)
    problem: OSError = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in found:
        # The address that was judged is the one that is used: a name may mean something else a moment later.
        if _is_ours(str(address[0])) and f"{host}:{port}" not in upstream.trusted:
            raise RefusedAddressError(f"{host} is an address of the builder or its link ({address[0]})")
        connection = socket.socket(family, kind, protocol)
        connection.settimeout(PATIENCE)
        try:
            connection.connect(address)
        except OSError as error:
            connection.close()
            problem = error
        else:
            return connection
    raise problem


def _is_ours(address: str) -> bool:
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(found, "ipv4_mapped", None)
    found = mapped or found
    return found.is_loopback or found.is_link_local or found.is_unspecified or found.is_multicast


def proxy_headers(proxy: SplitResult | None) -> dict[str, str]:
    """What the user's proxy wants to be told beside the request itself."""
    if not proxy or not proxy.username:
        return {}
    secret = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": "Basic " + b64encode(secret.encode()).decode()}


def _ask_for_tunnel(proxy: socket.socket, place: str, headers: Mapping[str, str]) -> None:
    lines = [f"CONNECT {place} HTTP/1.1", f"Host: {place}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    proxy.sendall("\r\n".join([*lines, "", ""]).encode())
    answer = b""
    # Byte by byte: what follows the empty line is the origin's already.
    while not answer.endswith(b"\r\n\r\n") and len(answer) < 65536:
        byte = proxy.recv(1)
        if not byte:
            proxy.close()
            raise OSError("the upstream proxy closed the connection")
        answer += byte
    if answer.split(b" ", 2)[1:2] != [b"200"]:
        proxy.close()
        raise OSError(f"the upstream proxy said: {answer.splitlines()[0].decode(errors='replace')}")


class Connections:
    """Connections to origins, kept open between requests."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._idle: dict[str, list[http.client.HTTPConnection]] = {}
        self._lock = threading.Lock()

    def request(
        self, method: str, url: str, headers: Mapping[str, str], *, reuse: bool = True
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """The origin's answer, its body yet to be read, and its connection, to be given back after that."""
        parts = urlsplit(url)
        place = address_of(url)
        host, port, secure = str(parts.hostname), int(place.rpartition(":")[2]), parts.scheme == "https"
        with self._lock:
            idle = self._idle.get(place, []) if reuse else []
            connection = idle.pop() if idle else None
        proxy = None if secure else self._upstream.proxy_for(host)
        if not connection:
            connection = http.client.HTTPConnection(host, port, timeout=PATIENCE)
            connection.sock = connect(host, port, self._upstream, tunnel=secure)
            if secure:
                connection.sock = ssl.create_default_context().wrap_socket(
                    connection.sock, server_hostname=host
                )
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        try:
            connection.putrequest(method, url if proxy else path, skip_host=True, skip_accept_encoding=True)
            connection.putheader("Host", parts.netloc.rpartition("@")[2])
            for name, value in {**headers, **proxy_headers(proxy)}.items():
                connection.putheader(name, value)
            connection.endheaders()
            return connection, connection.getresponse()
        except BaseException:
            connection.close()
            raise

    def give_back(self, connection: http.client.HTTPConnection, url: str) -> None:
        """Keeps a connection whose answer was read to its end for the next request."""
        with self._lock:
            if connection.sock is not None:
                self._idle.setdefault(address_of(url), []).append(connection)

    def trust(self, url: str) -> None:
        """Lets clients reach the address of this URL though it is one of the builder or its link."""
        self._upstream = replace(self._upstream, trusted=self._upstream.trusted | {address_of(url)})

    def close(self) -> None:
        """Closes those that wait."""
        with self._lock:
            for connection in (one for idle in self._idle.values() for one in idle):
                connection.close()
            self._idle.clear()


class Download:
    """A file on its way to `part`: one thread writes, any number of readers follow. Memory holds a chunk of it."""

    def __init__(self, url: str, part: Path) -> None:
        self.url = url
        self.part = part
        self._changed = threading.Condition()
        self._written = 0
        self._state = "asking"
        self.status = 0
        self.reason = ""
        self.headers: Mapping[str, str] = {}
        self.total = Bytes(0)
        part.touch()

    def run(self, connections: Connections, headers: Mapping[str, str]) -> bool:
        """Fetches; where the connection breaks, goes on from where it was. True: all is there, and as named."""
        for attempt in range(_ATTEMPTS):
            try:
                return self._receive(connections, headers, reuse=attempt == 0)
            except RefusedAddressError as error:
                self._answer(403, {}, 0, reason=str(error))
            except BrokenOffError as error:
                self._answer(502, {}, 0, reason=str(error))
            except (OSError, http.client.HTTPException) as error:
                if attempt + 1 < _ATTEMPTS:
                    continue
                self._answer(502, {}, 0, reason=f"{address_of(self.url)}: {error}")
            return False
        return False

    def _receive(self, connections: Connections, headers: Mapping[str, str], *, reuse: bool) -> bool:
        asked = dict(headers)
        if self._written:
            seen = self.headers.get("ETag") or self.headers.get("Last-Modified")
            if not seen:
                raise BrokenOffError("the connection broke, and the file may have changed since")
            asked = {"Range": f"bytes={self._written}-", "If-Range": seen}
        connection, response = connections.request("GET", self.url, asked, reuse=reuse)
        try:
            follows = self._begin(response)
            if follows:
                with self.part.open("r+b") as file:
                    file.seek(self._written)
                    self._copy(response, file)
                    self._finish(file)
        except BaseException:
            connection.close()
            raise
        if follows:
            connections.give_back(connection, self.url)
        else:
            connection.close()
        return follows

    def _begin(self, response: http.client.HTTPResponse) -> bool:
        """Takes note of the answer; True where a body follows that may be kept."""
        if self._written:
            if response.status != 206:
                raise BrokenOffError("the file changed while it was on its way")
            return True
        kept = {name: value for name in KEPT_HEADERS if (value := response.getheader(name))}
        length = response.getheader("Content-Length")
        if response.status == 200 and length is None:
            raise BrokenOffError("the origin did not say how long the file is")
        self._answer(
            response.status, kept, int(length or 0) if response.status == 200 else 0, reason=response.reason
        )
        return response.status == 200

    def _copy(self, response: http.client.HTTPResponse, file: IO[bytes]) -> None:
        while data := response.read(CHUNK):
            file.write(data)
            file.flush()
            with self._changed:
                self._written += len(data)
                self._changed.notify_all()
        if self._written != self.total:
            raise http.client.IncompleteRead(b"", self.total - self._written)

    def _finish(self, file: BufferedRandom) -> None:
        if named := _HASHED.search(self.url):
            file.seek(0)
            if hashlib.file_digest(file, f"sha{named[1]}").hexdigest() != named[2]:
                raise BrokenOffError("the file has not the hash that it is named by")
        # A power cut must not leave a file that is whole in its size only.
        os.fsync(file.fileno())

    def _answer(self, status: int, headers: Mapping[str, str], total: int, *, reason: str) -> None:
        with self._changed:
            if not self.status:
                self.status, self.headers, self.total, self.reason = status, headers, Bytes(total), reason
                self._state = "running"
            self._changed.notify_all()

    def end(self, *, whole: bool) -> None:
        """Tells the readers that no more will come."""
        with self._changed:
            self._state = "done" if whole else "failed"
            self._changed.notify_all()

    def wait_for_answer(self) -> int:
        """The origin's status; 504 where none came in time."""
        with self._changed:
            self._changed.wait_for(lambda: self._state != "asking", _STALLED)
            return self.status or 504

    def read(self, file: IO[bytes], *, span: range, write: Callable[[bytes], object]) -> bool:
        """Hands the bytes of `span` on to `write` as they come; False where the download failed before its end."""
        file.seek(span.start)
        place, deadline = span.start, time.monotonic() + _STALLED
        while place < span.stop:
            available, state = self._await_more(place)
            available = min(available, span.stop)
            if available <= place and (state != "running" or time.monotonic() > deadline):
                return False
            while place < available:
                data = file.read(min(CHUNK, available - place))
                write(data)
                place += len(data)
                deadline = time.monotonic() + _STALLED
        return True

    def _await_more(self, place: int) -> tuple[int, str]:
        with self._changed:
            self._changed.wait_for(lambda: self._available() > place or self._state != "running", 1.0)
            return self._available(), self._state

    def _available(self) -> int:
        # Whoever has the last byte has the file, so it is held back until all is known to be right.
        return self._written if self._state == "done" else min(self._written, self.total - 1)
