"""Shows the ports on which a machine listens on an address of this computer: `relay PID ADDRESS`.

PID is a process in the machine's network namespace. A port is open here only while something listens on it there, so
that a machine that is still starting refuses connections as an instance does. Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ingot.backends.local import kernel

_LISTENS = "0A"
_EVERY = 0.03
_CHUNK = 1 << 18
_OWN = range(32768, 61000)
"""Ports that programs listen on for themselves alone; none of EC2's users would open them in a security group."""


def listening(tables: Iterator[str]) -> frozenset[int]:
    """The TCP ports that lines of `/proc/<pid>/net/tcp` and `tcp6` show as listened on."""
    words = (line.split() for line in tables)
    ports = (int(found[1].rpartition(":")[2], 16) for found in words if found[3] == _LISTENS)
    return frozenset(port for port in ports if port not in _OWN)


@dataclass(eq=False, slots=True)
class Pipe:
    """One direction of a connection: what came from `source` and has not gone to `sink` yet."""

    source: socket.socket
    sink: socket.socket
    rest: bytes = b""
    ended: bool = False
    closed: bool = False


class Relay:
    """The listeners and connections of one machine. One thread; the machine's namespace is entered to connect only."""

    def __init__(self, process: int, address: str) -> None:
        self.address = address
        self._tables = [Path(f"/proc/{process}/net/{name}") for name in ("tcp", "tcp6")]
        self._there = os.open(f"/proc/{process}/ns/net", os.O_RDONLY)
        self._here = os.open("/proc/self/ns/net", os.O_RDONLY)
        self._select = selectors.DefaultSelector()
        self._listeners: dict[int, socket.socket] = {}
        self._pipes: dict[socket.socket, tuple[Pipe, Pipe]] = {}

    def run(self) -> None:
        """Relays until the machine's namespace has nobody left."""
        while self._follow():
            for key, events in self._select.select(_EVERY):
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                if key.data:
                    self._accept(sock, key.data)
                elif sock in self._pipes:  # else its other end, just before, closed both
                    self._move(sock, events)

    def _follow(self) -> bool:
        try:
            ports = listening(line for table in self._tables for line in table.read_text().splitlines()[1:])
        except OSError:
            return False
        for port in ports - self._listeners.keys():
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((self.address, port))
            except OSError:
                listener.close()
                continue
            listener.listen(64)
            self._listeners[port] = listener
            self._select.register(listener, selectors.EVENT_READ, port)
        for port in self._listeners.keys() - ports:
            listener = self._listeners.pop(port)
            self._select.unregister(listener)
            listener.close()
        return True

    def _accept(self, listener: socket.socket, port: int) -> None:
        client, _ = listener.accept()
        kernel.enter(self._there, kernel.NEW_NET)
        try:
            server = socket.create_connection(("127.0.0.1", port), timeout=5.0)
        except OSError:
            client.close()
            return
        finally:
            kernel.enter(self._here, kernel.NEW_NET)
        forth, back = Pipe(client, server), Pipe(server, client)
        for sock, ways in ((client, (forth, back)), (server, (back, forth))):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._pipes[sock] = ways
            self._select.register(sock, selectors.EVENT_READ, None)

    def _move(self, sock: socket.socket, events: int) -> None:
        own, other = self._pipes[sock]  # `own` reads from this socket, `other` writes to it
        try:
            if events & selectors.EVENT_READ and not own.rest:
                own.rest = sock.recv(_CHUNK)
                own.ended = not own.rest
                self._write(own)
            if events & selectors.EVENT_WRITE:
                self._write(other)
        except OSError:
            own.closed = other.closed = True
        if own.closed and other.closed:
            for end in (own.source, own.sink):
                if end in self._select.get_map():
                    self._select.unregister(end)
                del self._pipes[end]
                end.close()
            return
        for end in (own.source, own.sink):
            self._watch(end)

    def _write(self, pipe: Pipe) -> None:
        with contextlib.suppress(BlockingIOError):
            while pipe.rest:
                pipe.rest = pipe.rest[pipe.sink.send(pipe.rest) :]
        if pipe.ended and not pipe.rest and not pipe.closed:
            pipe.closed = True
            pipe.sink.shutdown(socket.SHUT_WR)

    def _watch(self, sock: socket.socket) -> None:
        own, other = self._pipes[sock]
        reads = selectors.EVENT_READ if not (own.rest or own.ended) else 0
        writes = selectors.EVENT_WRITE if other.rest else 0
        wanted = reads | writes
        now = self._select.get_map().get(sock)
        if now is None:
            if wanted:
                self._select.register(sock, wanted, None)
        elif not wanted:
            self._select.unregister(sock)
        elif now.events != wanted:
            self._select.modify(sock, wanted, None)


def main(words: list[str]) -> int:
    """Runs until the machine is gone."""
    Relay(int(words[0]), words[1]).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
