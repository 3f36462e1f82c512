"""Small downloads for the lock: an archive's index of indexes."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Callable
from urllib.parse import urlsplit

from ingot import __version__
from ingot.errors import BackendError, NotFoundError, TransientError
from ingot.model.units import Seconds

Fetch = Callable[[str], bytes]
"""The bytes at a URL. Raises NotFoundError, TransientError (worth another try) or BackendError."""

PATIENCE = Seconds(30.0)
_MOST = 64 * 2**20


def fetch(url: str, *, timeout: Seconds = PATIENCE) -> bytes:
    """The bytes at an http, https or file URL, at most 64 MiB; the environment's proxies are used."""
    scheme, host = urlsplit(url).scheme, urlsplit(url).netloc or url
    if scheme not in ("http", "https", "file"):
        raise BackendError(f"{url} cannot be downloaded", hint="http, https and file addresses can")
    request = urllib.request.Request(url, headers={"User-Agent": f"ingot/{__version__}"})
    hint = "check the address and the network, or set the base's `mirror`"
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            data: bytes = answer.read(_MOST + 1)
    except urllib.error.HTTPError as error:
        with error:
            raise _refusal(url, error.code) from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, FileNotFoundError) or (
            scheme == "file" and "No such file" in str(error.reason)
        ):
            raise NotFoundError(f"there is no {url}", hint=hint) from error
        if scheme == "file":
            raise BackendError(f"{url} cannot be read: {error.reason}", hint=hint) from error
        reason = str(error.reason)
        raise TransientError(
            f"{host} is not reachable: {reason}", hint=hint, url=url, reason=reason
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise TransientError(
            f"{host} broke off: {error or type(error).__name__}", hint=hint, url=url
        ) from error
    if len(data) > _MOST:
        raise BackendError(f"{url} is larger than 64 MiB", hint="this is no archive's InRelease file")
    return data


def _refusal(url: str, code: int) -> BackendError:
    hint = "check the base's `mirror` and `debootstrap`"
    if code in (404, 410):
        return NotFoundError(f"there is no {url}", hint=hint, url=url)
    if code in (408, 429) or code >= 500:
        return TransientError(f"{url} answered with HTTP {code}", hint="try again later", url=url)
    return BackendError(f"{url} answered with HTTP {code}", hint=hint, url=url)
