"""What a machine is told of the way out, and how it is logged into."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ingot.backends.local.network import apt_conf, certificate_files, listen_inside, proxy_environment
from ingot.errors import BackendError
from ingot.system.sshd import config, needs_pam


def test_proxies_are_told_in_both_spellings() -> None:
    found = proxy_environment(
        {"HTTPS_PROXY": "http://proxy:3128", "no_proxy": "localhost,.lan", "PATH": "/bin"}
    )
    assert found == {
        "https_proxy": "http://proxy:3128",
        "HTTPS_PROXY": "http://proxy:3128",
        "no_proxy": "localhost,.lan",
        "NO_PROXY": "localhost,.lan",
    }


@pytest.mark.parametrize(
    "value",
    ["http://127.0.0.1:3128", "http://user:pass@localhost:8080", 'http://proxy"; x', "http://a b", "a\nb"],
)
def test_proxy_that_cannot_be_meant_is_left_out(value: str) -> None:
    assert proxy_environment({"http_proxy": value}) == {}


def test_certificates_are_the_user_own(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_text("-----BEGIN CERTIFICATE-----\n")
    [(path, text, mode)] = certificate_files({"SSL_CERT_FILE": str(bundle)})
    assert path.startswith("/run/") and text == bundle.read_text() and mode == 0o644
    assert proxy_environment({"SSL_CERT_FILE": str(bundle)})["PIP_CERT"] == path
    assert certificate_files({}) == []
    with pytest.raises(BackendError, match="SSL_CERT_FILE names"):
        certificate_files({"SSL_CERT_FILE": str(tmp_path / "missing")})


def test_apt_asks_the_cache_before_a_proxy() -> None:
    environment = {"http_proxy": "http://proxy:3128", "https_proxy": "http://proxy:3128"}
    cached = apt_conf(environment, downloads="http://127.0.0.1:3142")
    assert 'Acquire::http::Proxy "http://127.0.0.1:3142";' in cached
    assert 'Acquire::https::Proxy "http://proxy:3128";' in cached
    assert 'Acquire::http::Proxy "http://proxy:3128";' in apt_conf(environment, downloads="")
    assert "Acquire" not in apt_conf({}, downloads="")


@pytest.mark.parametrize(
    ("shadow", "expected"),
    [
        ("root:*:19000:0:99999:7:::\n", False),
        ("daemon:!:1\nroot:!:19000:0:99999:7:::\n", True),
        ("root:!$6$abc:1::::::\n", True),
        ("root::1::::::\n", False),
        ("", False),
    ],
)
def test_locked_root_needs_pam(shadow: str, expected: bool) -> None:
    assert needs_pam(shadow) is expected


def test_every_login_gets_the_environment() -> None:
    text = config({"B": "2", "A": "1"}, pam=False)
    assert "SetEnv A=1 B=2\n" in text and "UsePAM no\n" in text


@pytest.mark.local
def test_listener_inside_is_of_that_network() -> None:
    """In our own network here, which is one too."""
    with listen_inside(os.getpid(), 0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"
    with pytest.raises(BackendError, match="could not be opened"):
        listen_inside(2**22 - 1, 0)
