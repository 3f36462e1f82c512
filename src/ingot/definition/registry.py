"""What a tag of a container image means now: its digest, asked of the image's registry by the distribution specification.

Anonymous reading only, with the bearer token that public registries hand to anybody. Registries on this very computer are
spoken to without TLS, as the field's tools do.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from email.message import Message
from urllib.parse import urlencode, urlsplit

from ingot import __version__
from ingot.errors import BackendError, NotFoundError, TransientError
from ingot.model.reference import HUB, Reference
from ingot.model.units import Seconds

DigestOf = Callable[[Reference], str]
"""The digest that a reference's tag has now. Raises NotFoundError, TransientError (worth another try) or BackendError."""

PATIENCE = Seconds(30.0)
_MOST = 4 * 2**20
# An index of several architectures comes first: its digest holds on all of them.
_ACCEPT = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_WORD = re.compile(r'(\w+)="([^"]*)"')


def digest_of(reference: Reference, *, timeout: Seconds = PATIENCE) -> str:
    """The digest of the manifest, or of the index of several, that the tag names."""
    host = f"registry-1.{HUB}" if reference.registry == HUB else reference.registry
    scheme = "http" if reference.is_local else "https"
    url = f"{scheme}://{host}/v2/{reference.repository}/manifests/{reference.tag}"
    headers = {"Accept": _ACCEPT}
    code, told, _ = _ask("HEAD", url, headers, reference, timeout)
    if code == 401:
        headers["Authorization"] = f"Bearer {_token(told, reference, timeout)}"
        code, told, _ = _ask("HEAD", url, headers, reference, timeout)
    if code == 200 and _DIGEST.fullmatch(told.get("Docker-Content-Digest", "")):
        return str(told["Docker-Content-Digest"])
    if code in (200, 405):  # the header is optional, and so is HEAD with some
        code, told, body = _ask("GET", url, headers, reference, timeout)
        if code == 200:
            return "sha256:" + hashlib.sha256(body).hexdigest()
    raise _refusal(code, reference)


def _token(told: Message, reference: Reference, timeout: Seconds) -> str:
    """What the registry's own service gives to anybody who asks for reading this repository."""
    challenge = told.get("WWW-Authenticate", "")
    words: Mapping[str, str] = dict(_WORD.findall(challenge))
    if not challenge.lower().startswith("bearer ") or not re.match("https?://", words.get("realm", "")):
        raise _refusal(401, reference)
    asked = {"scope": words.get("scope") or f"repository:{reference.repository}:pull"}
    if "service" in words:
        asked["service"] = words["service"]
    mark = "&" if urlsplit(words["realm"]).query else "?"
    code, _, body = _ask("GET", f"{words['realm']}{mark}{urlencode(asked)}", {}, reference, timeout)
    try:
        answer = json.loads(body)
        token = answer.get("token") or answer["access_token"]
    except (ValueError, KeyError, AttributeError) as error:
        raise _refusal(code, reference) from error
    return str(token)


def _ask(
    method: str, url: str, headers: Mapping[str, str], reference: Reference, timeout: Seconds
) -> tuple[int, Message, bytes]:
    """(code, headers, body) of an answer of whatever code. Raises TransientError where there is none."""
    request = urllib.request.Request(
        url, method=method, headers={"User-Agent": f"ingot/{__version__}", **headers}
    )
    host = urlsplit(url).netloc
    hint = f"check the network, or write the image by its digest: `{reference.name}@sha256:…`"
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.status, answer.headers, answer.read(_MOST)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, b""
    except urllib.error.URLError as error:
        message = f"the registry {host} of {reference} is not reachable: {error.reason}"
        raise TransientError(message, hint=hint, url=url) from error
    except (OSError, http.client.HTTPException) as error:
        message = f"the registry {host} of {reference} broke off: {error or type(error).__name__}"
        raise TransientError(message, hint=hint, url=url) from error


def _refusal(code: int, reference: Reference) -> BackendError:
    registry = f"the registry {reference.registry}"
    if code == 404:
        return NotFoundError(f"{registry} has no {reference}", hint="check the image's name and its tag")
    if code in (408, 429) or code >= 500:
        hint = "try again later, or write the image by its digest"
        return TransientError(f"{registry} answered with HTTP {code} for {reference}", hint=hint)
    if code in (401, 403):
        hint = "check the name; of an image that only some may read, write the digest: `name:tag@sha256:…`"
        return BackendError(f"{registry} does not give {reference} to everybody (HTTP {code})", hint=hint)
    return BackendError(
        f"{registry} answered with HTTP {code} for {reference}", hint="check the image's name"
    )
