"""A small endpoint of the EBS direct APIs' writing half, with EC2's DescribeSnapshots and DeleteSnapshot beside it.

It refuses what the service refuses: a block of another length or checksum than announced, one beyond the volume, one for
a snapshot that is not pending, a wrong number of blocks or checksum at the end, a delta that asks for encryption. Equal
blocks are kept once, in memory; with `sink` they are thrown away unread. `Trouble` makes it unwilling.

`python -m tests.backends.aws.ebs_endpoint --sink` serves in a process of its own and prints its URL.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

BLOCK = 512 * 1024
GIB = 2**30
KEY = "arn:aws:kms:us-west-2:123456789012:key/11111111-2222-3333-4444-555555555555"
_ZEROS = bytes(BLOCK)
_NOISE = b"\xa5" * BLOCK
_PUT = re.compile(r"/snapshots/(snap-[0-9a-f]+)/blocks/(\d+)$")
_COMPLETE = re.compile(r"/snapshots/completion/(snap-[0-9a-f]+)$")


@dataclass
class Trouble:
    """What goes wrong on purpose. Numbers count the calls that put a block, from 1; 0 and empty is never."""

    throttle_every: int = 0
    drop_every: int = 0
    unavailable_every: int = 0
    expired_from: int = 0
    """From this put on, credentials have expired."""
    damage: frozenset[int] = frozenset()
    """Blocks of which a byte changes on the way."""
    delay: float = 0.0
    """Seconds that each put takes longer."""
    unknown_puts: int = 0
    """So many puts find the snapshot unknown still."""
    unlisted: int = 0
    """So many times DescribeSnapshots does not know a snapshot that it is asked for by id."""
    lose_completion: bool = False
    """The first completion is done, and its reply lost."""
    encrypt_by_default: bool = False
    polls_pending: int = 1
    """How often DescribeSnapshots says `pending` of a snapshot that was completed."""


@dataclass
class Snapshot:
    """What the service knows of one."""

    id: str
    gib: int
    parent: str
    key: str
    tags: dict[str, str]
    token: str
    asked: dict[str, Any]
    state: str = "pending"
    message: str = ""
    sealed: bool = False
    polls: int = 0
    sums: dict[int, bytes] = field(default_factory=dict)
    puts: list[int] = field(default_factory=list)
    """Every block that was accepted, in order of arrival."""


class RefusedCallError(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, code: str, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.reason = status, code, message, reason


class Service:
    """The service's state. Safe for several threads."""

    def __init__(self, *, sink: bool = False, trouble: Trouble | None = None) -> None:
        self.sink = sink
        self.contents: dict[bytes, bytes] = {}
        self.trouble = trouble or Trouble()
        self.snapshots: dict[str, Snapshot] = {}
        self.calls: dict[str, int] = {}
        self.lock = threading.Lock()
        self._made = 0

    def count(self, name: str) -> int:
        """Notes a call; returns its number."""
        with self.lock:
            self.calls[name] = number = self.calls.get(name, 0) + 1
        return number

    def start(self, asked: dict[str, Any]) -> dict[str, Any]:
        """StartSnapshot."""
        token, parent = asked.get("ClientToken", ""), asked.get("ParentSnapshotId", "")
        with self.lock:
            known = next((one for one in self.snapshots.values() if one.token == token), None)
            if known and known.asked != asked:
                raise RefusedCallError(
                    503 if not token else 400, "ConflictException", "token used with other parameters"
                )
            if known:
                return self._reply(known)
            if not 10 <= asked.get("Timeout", 60) <= 4320 or not 1 <= asked["VolumeSize"] <= 65536:
                raise RefusedCallError(400, "ValidationException", "out of range", "INVALID_PARAMETER_VALUE")
            if "KmsKeyArn" in asked and not asked.get("Encrypted"):
                raise RefusedCallError(
                    400, "ValidationException", "a key without Encrypted", "INVALID_PARAMETER_VALUE"
                )
            key = self._key(asked, parent)
            self._made += 1
            made = Snapshot(
                id=f"snap-{self._made:017x}",
                gib=asked["VolumeSize"],
                parent=parent,
                key=key,
                tags={tag["Key"]: tag["Value"] for tag in asked.get("Tags", ())},
                token=token,
                asked=asked,
            )
            self.snapshots[made.id] = made
            return self._reply(made)

    def _key(self, asked: Mapping[str, Any], parent: str) -> str:
        if not parent:
            wanted = asked.get("Encrypted") or self.trouble.encrypt_by_default
            return str(asked.get("KmsKeyArn", KEY)) if wanted else ""
        if "Encrypted" in asked or "KmsKeyArn" in asked:
            raise RefusedCallError(
                400, "ValidationException", "ParentSnapshotId with Encrypted", "INVALID_PARAMETER_VALUE"
            )
        below = self.snapshots.get(parent)
        if not below:
            raise RefusedCallError(
                404, "ResourceNotFoundException", f"{parent} does not exist", "SNAPSHOT_NOT_FOUND"
            )
        if below.state != "completed" or below.gib > asked["VolumeSize"]:
            raise RefusedCallError(
                400, "ValidationException", f"{parent} cannot be a parent", "INVALID_SNAPSHOT_ID"
            )
        if self.trouble.encrypt_by_default and not below.key:
            raise RefusedCallError(
                400, "ValidationException", f"{parent} is unencrypted", "INVALID_SNAPSHOT_ID"
            )
        return below.key

    def _reply(self, made: Snapshot) -> dict[str, Any]:
        reply = {
            "SnapshotId": made.id,
            "VolumeSize": made.gib,
            "BlockSize": BLOCK,
            "Status": made.state,
            "StartTime": int(time.time()),
            "OwnerId": "123456789012",
        }
        return reply | ({"KmsKeyArn": made.key, "SseType": "sse-kms"} if made.key else {})

    def read(self, snapshot: str) -> Iterator[bytes]:
        """The blocks of a volume made of the snapshot. What was not written to an encrypted one is noise."""
        about = self.snapshots[snapshot]
        below = self.read(about.parent) if about.parent else iter(())
        for index in range(about.gib * GIB // BLOCK):
            under = next(below, _NOISE if about.key else _ZEROS)
            yield self.contents[about.sums[index]] if index in about.sums else under

    def put(self, snapshot: str, index: int, data: bytes, announced: Mapping[str, str]) -> str:
        """PutSnapshotBlock."""
        about = self._pending(snapshot)
        if announced["x-amz-checksum-algorithm"] != "SHA256":
            raise RefusedCallError(400, "ValidationException", "unknown algorithm", "INVALID_PARAMETER_VALUE")
        if len(data) != BLOCK or int(announced["x-amz-data-length"]) != BLOCK:
            raise RefusedCallError(400, "ValidationException", "a block has 524288 bytes", "INVALID_BLOCK")
        if not 0 <= index < about.gib * GIB // BLOCK:
            raise RefusedCallError(
                400, "ValidationException", f"block {index} is beyond the volume", "INVALID_BLOCK"
            )
        if self.sink:
            return announced["x-amz-checksum"]
        found = hashlib.sha256(data).digest()
        if b64encode(found).decode() != announced["x-amz-checksum"]:
            raise RefusedCallError(400, "ValidationException", "the checksum does not match", "INVALID_BLOCK")
        with self.lock:
            self.contents.setdefault(found, data)
            about.sums[index] = found
            about.puts.append(index)
        return announced["x-amz-checksum"]

    def complete(self, snapshot: str, announced: Mapping[str, str]) -> dict[str, Any]:
        """CompleteSnapshot."""
        about = self._pending(snapshot)
        if not self.sink:
            found = b64encode(
                hashlib.sha256(b"".join(about.sums[index] for index in sorted(about.sums))).digest()
            ).decode()
            if int(announced["x-amz-changedblockscount"]) != len(about.sums):
                raise RefusedCallError(
                    400, "ValidationException", f"{len(about.sums)} blocks came", "INVALID_PARAMETER_VALUE"
                )
            if (
                announced["x-amz-checksum-aggregation-method"] != "LINEAR"
                or announced["x-amz-checksum"] != found
            ):
                raise RefusedCallError(
                    400, "ValidationException", "the checksum does not match", "INVALID_PARAMETER_VALUE"
                )
        about.sealed = True
        return {"Status": "pending"}

    def _pending(self, snapshot: str) -> Snapshot:
        about = self.snapshots.get(snapshot)
        if not about:
            raise RefusedCallError(
                404, "ResourceNotFoundException", f"{snapshot} does not exist", "SNAPSHOT_NOT_FOUND"
            )
        if about.sealed or about.state != "pending":
            raise RefusedCallError(
                400, "ValidationException", f"{snapshot} is not pending", "INVALID_SNAPSHOT_ID"
            )
        return about

    def describe(self, asked: Mapping[str, str]) -> str:
        """EC2's DescribeSnapshots, by ids or by one tag."""
        ids = [value for name, value in asked.items() if name.startswith("SnapshotId.")]
        tag = asked.get("Filter.1.Name", "").removeprefix("tag:")
        with self.lock:
            unlisted = ids and self.trouble.unlisted > 0
            self.trouble.unlisted -= bool(unlisted)
            for missing in set(ids) - (set() if unlisted else set(self.snapshots)):
                raise RefusedCallError(
                    400, "InvalidSnapshot.NotFound", f"The snapshot '{missing}' does not exist."
                )
            found = [
                one
                for one in self.snapshots.values()
                if (not ids or one.id in ids) and (not tag or one.tags.get(tag) == asked["Filter.1.Value.1"])
            ]
            for one in found:
                if one.sealed and one.state == "pending":
                    one.polls += 1
                    if one.polls > self.trouble.polls_pending:
                        one.state = "completed"
        items = "".join(
            f"<item><snapshotId>{one.id}</snapshotId><status>{one.state}</status><volumeSize>{one.gib}</volumeSize>"
            f"<statusMessage>{escape(one.message)}</statusMessage><encrypted>{str(bool(one.key)).lower()}</encrypted>"
            f"</item>"
            for one in found
        )
        return f"<DescribeSnapshotsResponse><snapshotSet>{items}</snapshotSet></DescribeSnapshotsResponse>"

    def delete(self, snapshot: str) -> str:
        """EC2's DeleteSnapshot."""
        with self.lock:
            if not self.snapshots.pop(snapshot, None):
                raise RefusedCallError(
                    400, "InvalidSnapshot.NotFound", f"The snapshot '{snapshot}' does not exist."
                )
        return "<DeleteSnapshotResponse><return>true</return></DeleteSnapshotResponse>"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    rbufsize = 2 * BLOCK
    wbufsize = 65536
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is logged."""

    def do_PUT(self) -> None:
        found = _PUT.match(urlsplit(self.path).path)
        data = self._body()
        if not found:
            self._json(404, {"message": "no such path"})
            return
        snapshot, index = found[1], int(found[2])
        service = self.server.service
        number = service.count("put")
        trouble = service.trouble
        if trouble.drop_every and number % trouble.drop_every == 0:
            self.close_connection = True
            self.connection.close()
            return
        try:
            _be_unwilling(trouble, number)
            if index in trouble.damage:
                data = data[:-1] + bytes([data[-1] ^ 1])
            checksum = service.put(snapshot, index, data, {k.lower(): v for k, v in self.headers.items()})
        except RefusedCallError as refusal:
            self._refuse(refusal)
        else:
            self._answer(
                201,
                b"{}",
                {"x-amz-Checksum": checksum, "x-amz-Checksum-Algorithm": "SHA256"},
            )

    def do_POST(self) -> None:
        path = urlsplit(self.path).path
        body = self._body()
        service = self.server.service
        complete = _COMPLETE.match(path)
        try:
            if path == "/snapshots":
                service.count("start")
                self._json(201, service.start(json.loads(body)))
            elif complete:
                number = service.count("complete")
                reply = service.complete(complete[1], {k.lower(): v for k, v in self.headers.items()})
                if service.trouble.lose_completion and number == 1:
                    self.close_connection = True
                    self.connection.close()
                    return
                self._json(202, reply)
            else:
                asked = {name: values[0] for name, values in parse_qs(body.decode()).items()}
                service.count(asked["Action"])
                deed = {"DescribeSnapshots": lambda: service.describe(asked)}
                deed["DeleteSnapshot"] = lambda: service.delete(asked["SnapshotId"])
                self._answer(200, deed[asked["Action"]]().encode(), {"Content-Type": "text/xml"})
        except RefusedCallError as refusal:
            if path == "/":
                text = f"<Code>{refusal.code}</Code><Message>{escape(refusal.message)}</Message>"
                text = f"<Response><Errors><Error>{text}</Error></Errors><RequestID>1</RequestID></Response>"
                self._answer(refusal.status, text.encode(), {"Content-Type": "text/xml"})
            else:
                self._refuse(refusal)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _refuse(self, refusal: RefusedCallError) -> None:
        about = {"Message": refusal.message, **({"Reason": refusal.reason} if refusal.reason else {})}
        self._answer(refusal.status, json.dumps(about).encode(), {"x-amzn-ErrorType": refusal.code})

    def _json(self, status: int, value: Mapping[str, Any]) -> None:
        self._answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _be_unwilling(trouble: Trouble, number: int) -> None:
    if trouble.delay:
        time.sleep(trouble.delay)
    if number <= trouble.unknown_puts:
        raise RefusedCallError(
            404, "ResourceNotFoundException", "the snapshot does not exist", "SNAPSHOT_NOT_FOUND"
        )
    if trouble.expired_from and number >= trouble.expired_from:
        raise RefusedCallError(
            403, "ExpiredTokenException", "The security token included in the request is expired"
        )
    if trouble.throttle_every and number % trouble.throttle_every == 0:
        raise RefusedCallError(400, "RequestThrottledException", "slow down", "ACCOUNT_THROTTLED")
    if trouble.unavailable_every and number % trouble.unavailable_every == 0:
        raise RefusedCallError(503, "ServiceUnavailableException", "come back later")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, service: Service) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.service = service

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is no error."""


@contextmanager
def served(service: Service) -> Iterator[str]:
    """The service on a loopback port; the value is its URL, of both its halves."""
    server = _Server(service)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def main() -> None:
    """Serves until it is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sink", action="store_true", help="throw blocks away, unverified")
    options = parser.parse_args()
    server = _Server(Service(sink=options.sink, trouble=Trouble(polls_pending=0)))
    sys.stdout.write(f"http://127.0.0.1:{server.server_address[1]}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
