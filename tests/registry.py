"""A small container registry: what the distribution specification asks of a pull, for images made by tests.

`make_image` writes an image into a folder, `serving` serves the folder on 127.0.0.1. As a program
(`python3 registry.py FOLDER PORT`) it runs on a machine too: standard library only.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.server
import io
import json
import sys
import tarfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
TOKEN = "a-token-of-the-test"


def make_image(folder: Path, name: str, tag: str, *, files: Mapping[str, str]) -> str:
    """Adds an image of one layer for amd64, behind an index, to the folder's registry; returns the index's digest."""
    (folder / "blobs").mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, text in files.items():
            info = tarfile.TarInfo(path)
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    layer = gzip.compress(buffer.getvalue(), mtime=0)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["/bin/true"]},
        "rootfs": {"type": "layers", "diff_ids": [_digest(buffer.getvalue())]},
        "history": [{"created_by": "test"}],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": _add(folder, CONFIG, json.dumps(config).encode()),
        "layers": [_add(folder, LAYER, layer)],
    }
    inner = _add(folder, MANIFEST, json.dumps(manifest).encode())
    platform = {"platform": {"architecture": "amd64", "os": "linux"}}
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [{**inner, **platform}]}
    digest = str(_add(folder, INDEX, json.dumps(index).encode())["digest"])
    tags = folder / "tags" / name
    tags.mkdir(parents=True, exist_ok=True)
    (tags / tag).write_text(digest)
    return digest


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _add(folder: Path, media: str, data: bytes) -> dict[str, object]:
    digest = _digest(data)
    (folder / "blobs" / digest).write_bytes(data)
    return {"mediaType": media, "digest": digest, "size": len(data)}


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `folder`; where `login` is set, a token is asked for first, as public registries do."""

    protocol_version = "HTTP/1.1"
    folder: Path
    login = False
    quiet_digest = False
    asked: list[str]

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        self.asked.append(f"{self.command} {self.path}")
        url = urlsplit(self.path)
        host = self.headers["Host"]
        if url.path == "/token":
            scope = parse_qs(url.query)["scope"][0]
            self._send(200, json.dumps({"token": f"{TOKEN} {scope}"}).encode(), "application/json", body=body)
            return
        name, _, rest = url.path.removeprefix("/v2/").partition("/manifests/")
        scope = f"repository:{name}:pull"
        if self.login and self.headers["Authorization"] != f"Bearer {TOKEN} {scope}":
            challenge = f'Bearer realm="http://{host}/token",service="{host}",scope="{scope}"'
            self._send(401, b"{}", "application/json", body=body, extra={"WWW-Authenticate": challenge})
            return
        if url.path == "/v2/":
            self._send(200, b"{}", "application/json", body=body)
            return
        if rest:
            tag = self.folder / "tags" / name / rest
            digest = tag.read_text() if tag.is_file() else rest
        else:
            digest = url.path.rpartition("/")[2]
        blob = self.folder / "blobs" / digest
        if not blob.is_file():
            self._send(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}', "application/json", body=body)
            return
        data = blob.read_bytes()
        media = json.loads(data).get("mediaType", "") if rest else "application/octet-stream"
        if rest and media not in ",".join(self.headers.get_all("Accept") or []):
            self._send(404, b"{}", "application/json", body=body)
            return
        told = {} if self.quiet_digest else {"Docker-Content-Digest": digest}
        self._send(200, data, media, body=body, extra=told)

    def _send(
        self, code: int, data: bytes, media: str, *, body: bool, extra: Mapping[str, str] | None = None
    ) -> None:
        self.send_response(code)
        self.send_header("Content-Type", media)
        self.send_header("Content-Length", str(len(data)))
        for key, value in (extra or {}).items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def serving(
    folder: Path, *, login: bool = False, quiet_digest: bool = False
) -> Iterator[tuple[str, list[str]]]:
    """(`127.0.0.1:port`, what was asked so far) of a running registry of the folder's images."""
    asked: list[str] = []
    own = {"folder": folder, "login": login, "quiet_digest": quiet_digest, "asked": asked}
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Own", (Handler,), own)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}", asked
        finally:
            server.shutdown()
            thread.join()


if __name__ == "__main__":
    Handler.folder, Handler.asked = Path(sys.argv[1]), []
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler).serve_forever()
