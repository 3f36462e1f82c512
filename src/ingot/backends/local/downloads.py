"""A caching forward proxy for package downloads, served by this process on sockets that it is given.

Files of an archive that never change under their name (`/pool/…deb`, `/by-hash/…`) are fetched once and served from
the cache from then on, offline too. Those that do change (`InRelease`, lists) are kept and asked for again with
If-Modified-Since. All else passes through, and CONNECT joins the two ends unread. Nothing that a client says is
believed: kept is what the origin answered with 200 and in full length, and for by-hash what has that hash.

A machine that is being built asks through this proxy, so it must not lead into the builder: addresses of the
loopback and link-local networks are refused unless they were named when the proxy was made.
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import logging
import re
import select
import socket
import socketserver
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from ingot.backends.local.download_cache import DownloadCache, Kept
from ingot.backends.local.download_origin import (
    CHUNK,
    Connections,
    Download,
    RefusedAddressError,
    Upstream,
    connect,
)
from ingot.model.units import Bytes

CACHE_LIMIT = Bytes(10 * 2**30)
_LOG = logging.getLogger(__name__)
_IMMUTABLE = re.compile(r"/pool/.*\.u?deb$|/by-hash/SHA(256|512)/[0-9a-f]+$")
_MUTABLE = re.compile(r"/dists/")
_RANGE = re.compile(r"bytes=(\d+)-(\d*)$")
_PASSED = ("Accept", "User-Agent", "Range", "If-Range", "If-None-Match", "If-Modified-Since", "Cache-Control")
_HOP = frozenset(
    {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "te", "trailer", "upgrade"}
)


class Downloads:
    """The proxy's state: what is kept below `folder`, and what is on its way. One serves any number of sockets."""

    def __init__(self, folder: Path, *, upstream: Upstream | None = None) -> None:
        self.cache = DownloadCache(folder)
        self.upstream = upstream or Upstream()
        self.connections = Connections(self.upstream)
        self._running: dict[str, Download] = {}
        self._lock = threading.Lock()

    @contextmanager
    def serve(self, listener: socket.socket, *, instead: Mapping[str, str] | None = None) -> Iterator[str]:
        """Serves a listening TCP socket, whatever network namespace it is of; the value is the proxy's URL there.

        `instead` tells by URL prefix what is fetched in place of what is asked for: a mirror of the archive that
        the image's own sources name, so that the mirror itself need not be written into the image.
        """
        for mirror in (instead or {}).values():
            self.connections.trust(mirror)
        server = _Server(listener, self, dict(instead or {}))
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        host, port = listener.getsockname()[:2]
        thread.start()
        try:
            yield f"http://{host}:{port}"
        finally:
            server.shutdown()
            thread.join()
            server.end_clients()
            self.connections.close()
            self.prune()

    @contextmanager
    def serve_here(self) -> Iterator[str]:
        """Serves a loopback port of this computer that is free."""
        with socket.create_server(("127.0.0.1", 0)) as listener, self.serve(listener) as url:
            yield url

    def prune(self, maximum: Bytes = CACHE_LIMIT) -> Bytes:
        """Drops what was used least lately until at most `maximum` bytes are kept; returns the bytes dropped."""
        return self.cache.prune(maximum)

    def open(self, url: str) -> tuple[Kept | None, Download | None, IO[bytes] | None]:
        """The file where it is kept; its download, begun or shared, where it must be asked for; that one's reader.

        Both: the kept file is good if the download's status turns out to be 304.
        """
        with self._lock:
            kept = self.cache.find(url)
            if kept and _IMMUTABLE.search(url):
                return kept, None, None
            download = self._running.get(url)
            if not download:
                download = self._running[url] = Download(url, self.cache.unfinished(url))
                threading.Thread(target=self._fetch, args=(download, kept), daemon=True).start()
            return kept, download, download.part.open("rb")

    def _fetch(self, download: Download, kept: Kept | None) -> None:
        asked = {}
        if kept and "ETag" in kept.headers:
            asked["If-None-Match"] = kept.headers["ETag"]
        if kept and "Last-Modified" in kept.headers:
            asked["If-Modified-Since"] = kept.headers["Last-Modified"]
        whole = False
        try:
            whole = download.run(self.connections, asked)
        finally:
            with self._lock:
                if whole:
                    self.cache.keep(download.url, download.part, download.headers)
                else:
                    download.part.unlink(missing_ok=True)
                del self._running[download.url]
            download.end(whole=whole)


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True

    def __init__(self, listener: socket.socket, downloads: Downloads, instead: Mapping[str, str]) -> None:
        super().__init__(("", 0), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.downloads = downloads
        self.instead = instead
        self._clients: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []

    def process_request(self, request: Any, client_address: Any) -> None:
        self._clients.add(request)
        thread = threading.Thread(
            target=self.process_request_thread, args=(request, client_address), daemon=True
        )
        self._threads = [one for one in self._threads if one.is_alive()] + [thread]
        thread.start()

    def shutdown_request(self, request: Any) -> None:
        self._clients.discard(request)
        super().shutdown_request(request)

    def end_clients(self) -> None:
        """Ends the connections that are open still, and waits for their threads."""
        for client in tuple(self._clients):
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5.0)

    def handle_error(self, request: Any, client_address: Any) -> None:
        _LOG.debug("a client of the download proxy was lost", exc_info=True)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Answers are written whole, headers and first bytes apart: without this the second write waits for the peer.
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        _LOG.debug(format, *args)

    def do_HEAD(self) -> None:
        self.path = _replace_prefix(self.path, self.server.instead)
        self._pass_through()

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if parts.scheme != "http" or not parts.hostname:
            self._refuse(400, "only http:// URLs and CONNECT are served here")
            return
        self.path = _replace_prefix(self.path, self.server.instead)
        parts = urlsplit(self.path)
        if "@" not in parts.netloc and (_IMMUTABLE.search(parts.path) or _MUTABLE.search(parts.path)):
            self._serve_kept()
        else:
            self._pass_through()

    def _serve_kept(self) -> None:
        kept, download, reader = self.server.downloads.open(self.path)
        with reader or contextlib.nullcontext():
            status = download.wait_for_answer() if download else 200
            if kept and (not download or status == 304):
                self._serve_file(kept)
            elif not download or not reader:
                self._refuse(502, "the file is neither kept nor on its way")
            elif status != 200:
                self._refuse(status if status >= 400 else 502, download.reason)
            else:
                self._serve_download(download, reader)

    def _serve_file(self, kept: Kept) -> None:
        seen = self.headers.get("If-Modified-Since")
        if seen and seen == kept.headers.get("Last-Modified") and "Range" not in self.headers:
            self.send_response(304)
            self.end_headers()
            return
        with kept.path.open("rb") as file:
            span = self._begin(kept.size, kept.headers)
            place = span.start
            while place < span.stop:
                place += self.connection.sendfile(file, place, min(2**22, span.stop - place))

    def _serve_download(self, download: Download, reader: IO[bytes]) -> None:
        span = self._begin(download.total, download.headers)
        # A client that gets fewer bytes than announced knows that it has not got the file.
        if not download.read(reader, span=span, write=self.wfile.write):
            self.close_connection = True

    def _begin(self, size: int, headers: Any) -> range:
        """Sends the head of an answer; the value is what of the file is to follow it."""
        span = range(size)
        asked = _RANGE.match(self.headers.get("Range", ""))
        condition = self.headers.get("If-Range")
        if asked and (not condition or condition in headers.values()) and int(asked[1]) < size:
            span = range(int(asked[1]), min(int(asked[2] or size) + 1, size) if asked[2] else size)
        self.send_response(200 if len(span) == size else 206)
        if len(span) != size:
            self.send_header("Content-Range", f"bytes {span.start}-{span.stop - 1}/{size}")
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(span)))
        self.end_headers()
        return span

    def _pass_through(self) -> None:
        passed = {name: self.headers[name] for name in _PASSED if name in self.headers}
        connections = self.server.downloads.connections
        try:
            connection, response = connections.request(self.command, self.path, passed, reuse=False)
        except RefusedAddressError as error:
            self._refuse(403, str(error))
            return
        except (OSError, http.client.HTTPException) as error:
            self._refuse(502, str(error))
            return
        with contextlib.closing(connection):
            # Without a length the end of the connection is the end of the body.
            self.close_connection = True
            self.send_response(response.status, response.reason)
            for name, value in response.getheaders():
                if name.lower() not in _HOP:
                    self.send_header(name, value)
            self.send_header("Connection", "close")
            self.end_headers()
            while data := response.read(CHUNK):
                self.wfile.write(data)

    def do_CONNECT(self) -> None:
        host, _, port = self.path.rpartition(":")
        host, upstream = host.strip("[]"), self.server.downloads.upstream
        if not host or not port.isdigit():
            self._refuse(400, "CONNECT needs host:port")
            return
        try:
            with connect(host, int(port), upstream, tunnel=True) as origin:
                self.send_response(200, "Connected")
                self.end_headers()
                _join(self.connection, origin)
        except RefusedAddressError as error:
            self._refuse(403, str(error))
        except OSError as error:
            self._refuse(502, str(error))
        self.close_connection = True

    def _refuse(self, status: int, reason: str) -> None:
        said = (reason.replace("\n", " ") + "\n").encode()
        self.send_response(status, reason.partition("\n")[0][:200])
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(said)


def _replace_prefix(url: str, instead: Mapping[str, str]) -> str:
    for prefix, other in sorted(instead.items(), reverse=True):
        if url.startswith(prefix.rstrip("/") + "/"):
            return other.rstrip("/") + url[len(prefix.rstrip("/")) :]
    return url


def _join(client: socket.socket, origin: socket.socket) -> None:
    """Carries bytes both ways until both have ended, or one is gone."""
    other = {client: origin, origin: client}
    open_ends = {client, origin}
    while open_ends:
        ready, _, _ = select.select(list(open_ends), [], [], 600.0)
        if not ready:
            return
        for end in ready:
            data = end.recv(CHUNK)
            if data:
                other[end].sendall(data)
                continue
            open_ends.discard(end)
            with contextlib.suppress(OSError):
                other[end].shutdown(socket.SHUT_WR)
