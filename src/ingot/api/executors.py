"""Executors by their addresses: `dask://HOST:PORT` is the scheduler of a dask.distributed cluster."""

from __future__ import annotations

import importlib.util
import logging
import platform
import re
import threading
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from typing import Any

from ingot import __version__
from ingot.errors import BackendError, UsageError
from ingot.model.events import Emit, Warned
from ingot.model.units import Seconds, format_seconds

KNOWN = "dask://HOST:PORT"
PATIENCE = Seconds(15.0)
"""How long a scheduler may take to answer."""
_GRACE = Seconds(5.0)
_ADDRESS = re.compile(r"(?P<scheme>[^:]*)://(?P<host>\[[0-9A-Fa-f:.%]+\]|[^][:/@?#]+):(?P<port>[0-9]{1,5})/?")


@contextmanager
def open_executor(address: str, *, emit: Emit, patience: Seconds = PATIENCE) -> Iterator[Executor]:
    """The executor of an address, closed at the end.

    Raises UsageError for an address that is none, and where what it needs is not installed; BackendError where
    nobody answers within the `patience`, and for workers with other versions.
    """
    scheduler = _scheduler(address)
    if importlib.util.find_spec("distributed") is None:
        raise UsageError(
            f"{address!r} needs the package `distributed`, which is not installed",
            hint="install `ingot[dask]`, here and on every worker",
        )
    client = _connected(scheduler, patience)
    try:
        seen = client.get_versions(packages=["ingot"])
        _refuse_other_versions(seen, address)
        if not seen["workers"]:
            emit(Warned(message=f"{address} has no workers yet", hint="the jobs wait until one joins"))
        yield client.get_executor(pure=False)
    finally:
        client.close()


def _scheduler(address: str) -> str:
    """The address as `distributed` has it."""
    found = _ADDRESS.fullmatch(address)
    if found is None or found["scheme"] != "dask" or not 0 < int(found["port"]) < 65536:
        raise UsageError(
            f"{address!r} is no executor that Ingot knows",
            hint=f"write `{KNOWN}`, the address of a scheduler; without, threads of this process build (`-j`)",
        )
    return f"tcp://{found['host']}:{found['port']}"


def _connected(scheduler: str, patience: Seconds) -> Any:
    """A client of the scheduler. `distributed` itself may wait for ever for one that takes connections and is silent."""
    from distributed import Client

    connecting: Future[Any] = Future()
    client: Any = Client  # most of it is not typed

    def connect() -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # other versions: told below, in a sentence
                found = client(scheduler, timeout=patience, set_as_default=False, name="ingot")
            connecting.set_result(found)
        except BaseException as error:
            connecting.set_exception(error)

    for name in ("distributed", "distributed.client"):  # what matters is told as an event or an error
        logging.getLogger(name).setLevel(logging.CRITICAL)
    threading.Thread(target=connect, name="connect to dask", daemon=True).start()
    try:
        return connecting.result(timeout=patience + _GRACE)
    except OSError as error:  # a TimeoutError is one
        raise BackendError(
            f"the scheduler at {scheduler} did not answer within {format_seconds(patience)}",
            hint="is its address right, and can this computer reach it? `dask scheduler` prints the address",
        ) from error


def _refuse_other_versions(seen: Mapping[str, Any], address: str) -> None:
    """Jobs travel as pickles: Python, `distributed` and Ingot must be the same on both sides."""
    ours = {
        "Python": ".".join(platform.python_version_tuple()[:2]),
        "distributed": seen["client"]["packages"]["distributed"],
        "Ingot": __version__,
    }
    sides = {
        "the scheduler": seen["scheduler"],
        **{f"worker {name}": one for name, one in seen["workers"].items()},
    }
    for side, about in sides.items():
        packages = about["packages"]
        theirs = {
            "Python": ".".join(packages["python"].split(".")[:2]),
            "distributed": packages["distributed"],
            "Ingot": packages.get("ingot"),
        }
        for what, version in theirs.items():
            if version == ours[what] or (side == "the scheduler" and what == "Ingot"):
                continue
            has = f"{what} {version}" if version else f"no {what}"
            raise BackendError(
                f"{side} of {address} has {has}, and this computer has {ours[what]}",
                hint="install the same versions of Python, `distributed` and `ingot` everywhere",
            )
