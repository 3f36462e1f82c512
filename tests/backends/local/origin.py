"""A small real HTTP server for tests: files in memory, what was asked for, and faults on demand."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any


@dataclass
class Origin:
    """`files` by path; `asked` are (method, path, Range); `cuts` how often an answer ends after half its bytes."""

    files: dict[str, bytes] = field(default_factory=dict)
    changed: dict[str, int] = field(default_factory=dict)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    cuts: dict[str, int] = field(default_factory=dict)
    pause: float = 0.0
    port: int = 0

    def url(self, path: str) -> str:
        """The URL of a path."""
        return f"http://127.0.0.1:{self.port}{path}"

    def put(self, path: str, data: bytes) -> str:
        """Sets a file, changed now a second later than before; returns its URL."""
        self.files[path] = data
        self.changed[path] = self.changed.get(path, 1_000_000_000) + 1
        return self.url(path)

    @contextmanager
    def serving(self) -> Iterator[Origin]:
        """Serves on a free port while inside."""
        server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), type("Handler", (_Handler,), {"origin": self})
        )
        self.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    origin: Origin

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""

    def do_GET(self) -> None:
        path, wanted = self.path, self.headers.get("Range", "")
        self.origin.asked.append((self.command, path, wanted))
        if path not in self.origin.files:
            self._head(404, {"Content-Length": "0"})
            return
        data, stamp = self.origin.files[path], formatdate(self.origin.changed[path], usegmt=True)
        if self.headers.get("If-Modified-Since") == stamp:
            self._head(304, {})
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-").partition("-")[0]) if wanted else 0
        if wanted and self.headers.get("If-Range") not in (None, stamp):
            start, wanted = 0, ""
        body = data[start:]
        head = {"Content-Length": str(len(body)), "Last-Modified": stamp}
        if wanted:
            head["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self._head(206 if wanted else 200, head)
        if self.command == "HEAD":
            return
        time.sleep(self.origin.pause)
        if self.origin.cuts.get(path, 0):
            self.origin.cuts[path] -= 1
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
            return
        self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
