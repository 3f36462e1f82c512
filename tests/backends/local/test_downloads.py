"""The download proxy against a real server: what it keeps, what it asks again, and what it refuses."""

from __future__ import annotations

import hashlib
import http.client
import os
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from ingot.backends.local.download_origin import Upstream, upstream_from
from ingot.backends.local.downloads import Downloads
from ingot.model.units import Bytes
from tests.backends.local.origin import Origin

POOL = "/debian/pool/main/h/hello/hello_1_amd64.deb"
RELEASE = "/debian/dists/bookworm/InRelease"


@dataclass
class Proxied:
    """An origin, and a proxy in front of it."""

    origin: Origin
    downloads: Downloads
    proxy: str

    def get(self, url: str, headers: Mapping[str, str] | None = None) -> tuple[int, bytes]:
        """Status and body of a GET through the proxy. Raises IncompleteRead for fewer bytes than announced."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": self.proxy}))
        try:
            with opener.open(urllib.request.Request(url, headers=dict(headers or {})), timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()


@pytest.fixture
def proxied(tmp_path: Path) -> Iterator[Proxied]:
    with Origin().serving() as origin:
        downloads = Downloads(
            tmp_path / "cache", upstream=Upstream(trusted=frozenset({f"127.0.0.1:{origin.port}"}))
        )
        with downloads.serve_here() as proxy:
            yield Proxied(origin=origin, downloads=downloads, proxy=proxy)


def test_a_pool_file_is_fetched_once(proxied: Proxied) -> None:
    url = proxied.origin.put(POOL, b"package" * 1000)
    assert [proxied.get(url) for _ in range(3)] == [(200, b"package" * 1000)] * 3
    assert len(proxied.origin.asked) == 1


def test_a_pool_file_is_served_while_the_origin_is_gone(proxied: Proxied) -> None:
    url = proxied.origin.put(POOL, b"package")
    proxied.get(url)
    gone = proxied.origin.url("/debian/pool/gone.deb").replace(str(proxied.origin.port), "1")
    assert proxied.get(gone)[0] in (403, 502)
    proxied.origin.files.clear()
    assert proxied.get(url) == (200, b"package")


def test_a_release_is_asked_for_again_and_kept_while_it_is_the_same(proxied: Proxied) -> None:
    url = proxied.origin.put(RELEASE, b"first")
    assert proxied.get(url) == (200, b"first")
    assert proxied.get(url) == (200, b"first")
    assert len(proxied.origin.asked) == 2
    proxied.origin.put(RELEASE, b"second")
    assert proxied.get(url) == (200, b"second")


def test_a_range_of_a_kept_and_of_a_new_file(proxied: Proxied) -> None:
    url = proxied.origin.put(POOL, bytes(range(256)) * 100)
    for _ in range(2):
        assert proxied.get(url, {"Range": "bytes=100-109"}) == (206, bytes(range(100, 110)))
        assert proxied.get(url, {"Range": "bytes=25500-"}) == (206, bytes(range(156, 256)))
    assert [wanted for _, _, wanted in proxied.origin.asked] == [""]


def test_a_connection_that_is_cut_is_continued(proxied: Proxied) -> None:
    data = bytes(1000) + b"end" * 5000
    url = proxied.origin.put(POOL, data)
    proxied.origin.cuts[POOL] = 2
    assert proxied.get(url) == (200, data)
    assert [wanted for _, _, wanted in proxied.origin.asked] == ["", "bytes=8000-", "bytes=12000-"]


def test_a_file_that_never_comes_whole_is_not_kept(proxied: Proxied) -> None:
    url = proxied.origin.put(POOL, b"x" * 10000)
    proxied.origin.cuts[POOL] = 3
    with pytest.raises(http.client.IncompleteRead):
        proxied.get(url)
    assert proxied.downloads.cache.find(url) is None
    assert proxied.get(url) == (200, b"x" * 10000)


def test_a_file_that_changes_on_its_way_is_not_mixed(proxied: Proxied) -> None:
    url = proxied.origin.put(POOL, b"a" * 10000)
    proxied.origin.cuts[POOL] = 1
    proxied.origin.pause = 0.2
    timer = threading.Timer(0.1, lambda: proxied.origin.changed.update({POOL: 5}))
    timer.start()
    with pytest.raises(http.client.IncompleteRead):
        proxied.get(url)
    timer.join()
    assert proxied.downloads.cache.find(url) is None


def test_many_readers_share_one_download(proxied: Proxied) -> None:
    data = b"shared" * 100_000
    url = proxied.origin.put(POOL, data)
    proxied.origin.pause = 0.3
    answers: list[tuple[int, bytes]] = []
    readers = [threading.Thread(target=lambda: answers.append(proxied.get(url))) for _ in range(8)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert answers == [(200, data)] * 8
    assert len(proxied.origin.asked) == 1


def test_what_is_missing_is_told_and_not_kept(proxied: Proxied) -> None:
    url = proxied.origin.url(POOL)
    assert proxied.get(url)[0] == 404
    proxied.origin.put(POOL, b"now there")
    assert proxied.get(url) == (200, b"now there")


def test_a_file_named_by_a_hash_has_it_or_is_not_kept(proxied: Proxied) -> None:
    good, bad = (
        f"/debian/dists/x/by-hash/SHA256/{hashlib.sha256(text).hexdigest()}" for text in (b"good", b"bad")
    )
    proxied.origin.put(bad, b"something else")
    assert proxied.get(proxied.origin.put(good, b"good")) == (200, b"good")
    assert proxied.downloads.cache.find(proxied.origin.url(good))
    with pytest.raises(http.client.IncompleteRead):
        proxied.get(proxied.origin.url(bad))
    assert proxied.downloads.cache.find(proxied.origin.url(bad)) is None


def test_a_damaged_file_is_fetched_again(proxied: Proxied) -> None:
    url = proxied.origin.put(POOL, b"package")
    proxied.get(url)
    kept = proxied.downloads.cache.find(url)
    assert kept
    kept.path.write_bytes(b"pack")
    assert proxied.get(url) == (200, b"package")
    assert len(proxied.origin.asked) == 2


def test_other_files_pass_through(proxied: Proxied) -> None:
    url = proxied.origin.put("/data.tar", b"data")
    assert proxied.get(url) == (200, b"data")
    assert proxied.get(url) == (200, b"data")
    assert len(proxied.origin.asked) == 2
    assert not list(proxied.downloads.cache.folder.iterdir())


def test_the_builder_itself_is_out_of_reach(tmp_path: Path) -> None:
    with Origin().serving() as origin:
        url = origin.put(POOL, b"private")
        downloads = Downloads(tmp_path)
        with downloads.serve_here() as proxy:
            seen = Proxied(origin=origin, downloads=downloads, proxy=proxy)
            names = (url, url.replace("127.0.0.1", "localhost"), url.replace("127.0.0.1", "0.0.0.0"))
            assert [seen.get(name)[0] for name in names] == [403, 403, 403]
            assert seen.get("http://169.254.169.254/latest/meta-data/")[0] == 403
            assert _connect(proxy, f"127.0.0.1:{origin.port}").startswith(b"HTTP/1.1 403")
        assert not origin.asked


def _connect(proxy: str, place: str) -> bytes:
    with socket.create_connection(("127.0.0.1", int(proxy.rpartition(":")[2])), 10) as client:
        client.sendall(f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n".encode())
        return client.recv(100)


def test_connect_joins_both_ends(proxied: Proxied) -> None:
    proxied.origin.put("/hello", b"through the tunnel")
    tunnel = http.client.HTTPConnection("127.0.0.1", int(proxied.proxy.rpartition(":")[2]), timeout=10)
    tunnel.set_tunnel("127.0.0.1", proxied.origin.port)
    tunnel.request("GET", "/hello")
    assert tunnel.getresponse().read() == b"through the tunnel"
    tunnel.close()


def test_the_users_own_proxy_is_the_way_out(proxied: Proxied, tmp_path: Path) -> None:
    url = proxied.origin.put(POOL, b"package")
    tunnelled = proxied.origin.put("/tunnelled", b"in a tunnel of a tunnel")
    second = Downloads(tmp_path / "second", upstream=Upstream(proxy=proxied.proxy, direct=("else.where",)))
    with second.serve_here() as proxy:
        seen = Proxied(origin=proxied.origin, downloads=second, proxy=proxy)
        assert seen.get(url) == (200, b"package")
        assert seen.get(proxied.origin.url("/nothing.txt"))[0] == 404
        tunnel = http.client.HTTPConnection("127.0.0.1", int(proxy.rpartition(":")[2]), timeout=10)
        tunnel.set_tunnel("127.0.0.1", proxied.origin.port)
        tunnel.request("GET", "/tunnelled")
        assert tunnel.getresponse().read() == proxied.origin.files["/tunnelled"]
        tunnel.close()
    assert tunnelled and proxied.downloads.cache.find(url)


def test_a_mirror_stands_in_for_the_archive(tmp_path: Path) -> None:
    with Origin().serving() as origin, socket.create_server(("127.0.0.1", 0)) as listener:
        origin.put("/mirror/pool/a.deb", b"from the mirror")
        origin.put("/mirror/README", b"read me")
        downloads = Downloads(tmp_path)
        instead = {"http://deb.debian.org/debian": origin.url("/mirror/")}
        with downloads.serve(listener, instead=instead) as proxy:
            seen = Proxied(origin=origin, downloads=downloads, proxy=proxy)
            for _ in range(2):
                assert seen.get("http://deb.debian.org/debian/pool/a.deb") == (200, b"from the mirror")
            assert seen.get("http://deb.debian.org/debian/README") == (200, b"read me")
    assert [path for _, path, _ in origin.asked] == ["/mirror/pool/a.deb", "/mirror/README"]


@pytest.mark.parametrize(
    ("direct", "host", "through"),
    [("", "deb.debian.org", True), ("debian.org", "deb.debian.org", False), (".debian.org,x", "debian.org", False),
     ("notdebian.org", "debian.org", True), ("*", "debian.org", False)],
)  # fmt: skip
def test_no_proxy_names_hosts_and_domains(direct: str, host: str, through: bool) -> None:
    upstream = upstream_from({"http_proxy": "proxy.example:3128", "no_proxy": direct})
    assert (upstream.proxy_for(host) is not None) is through


def test_prune_drops_what_was_used_least_lately(proxied: Proxied) -> None:
    urls = [proxied.origin.put(f"/debian/pool/{name}.deb", name.encode() * 1000) for name in "abc"]
    for number, url in enumerate(urls):
        proxied.get(url)
        kept = proxied.downloads.cache.find(url)
        assert kept
        os.utime(kept.path, (number, number))
    orphan = proxied.downloads.cache.folder / "0123.999999999.1.part"
    orphan.write_bytes(b"left by a killed process")
    assert proxied.downloads.prune(Bytes(2500)) == 1000 + len(b"left by a killed process")
    assert [proxied.downloads.cache.find(url) is not None for url in urls] == [False, True, True]
    assert not orphan.exists()
