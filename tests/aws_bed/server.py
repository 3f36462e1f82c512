"""The HTTP server: AWS requests to who answers them, and `/bed/…` for the tests that use the bed."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from moto.core.exceptions import ServiceException
from werkzeug.wrappers import Request, Response

from tests.aws_bed import (
    ebs,
    images,
    instances,
    keys,
    marks,
    new_images,
    parameters,
    quotas,
    routes,
    snapshots,
    state,
    tags,
    trouble,
    wire,
)
from tests.aws_bed.bed import Bed, Handler
from tests.aws_bed.machines import Machines
from tests.aws_bed.profile import Delays
from tests.aws_bed.wire import ApiError, Call

HANDLERS: dict[tuple[str, str], Handler] = {
    **{("ec2", name): handler for name, handler in images.ACTIONS.items()},
    **{("ec2", name): handler for name, handler in new_images.ACTIONS.items()},
    **{("ec2", name): handler for name, handler in instances.ACTIONS.items()},
    **{("ec2", name): handler for name, handler in marks.ACTIONS.items()},
    **{("ec2", name): handler for name, handler in keys.EC2_ACTIONS.items()},
    **{("ec2", name): handler for name, handler in routes.ACTIONS.items()},
    **{("ec2", name): handler for name, handler in snapshots.ACTIONS.items()},
    **{("ec2", name): handler for name, handler in tags.ACTIONS.items()},
    **{("ebs", name): handler for name, handler in ebs.ACTIONS.items()},
    **{("kms", name): handler for name, handler in keys.ACTIONS.items()},
    **{("service-quotas", name): handler for name, handler in quotas.ACTIONS.items()},
    **{("ssm", name): handler for name, handler in parameters.ACTIONS.items()},
}
"""What the bed answers itself."""

_LONG = {
    "CreateSnapshot",
    "CreateImage",
    "PutSnapshotBlock",
    "GetSnapshotBlock",
    "CompleteSnapshot",
    "CopyImage",
    "StartSnapshot",
}
"""Actions that copy disks: they change the tables at their end only, and others go on meanwhile."""
_LOG = logging.getLogger("aws_bed")


class Application:
    """The WSGI application."""

    def __init__(self, *, folder: Path, base: Path, delays: Delays) -> None:
        from moto.ec2.models.amis import AmiBackend
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

        self.bed = Bed(
            folder=folder, base=base, delays=delays, moto_app=DomainDispatcherApplication(create_backend_app)
        )
        self.bed.machines = Machines(self.bed)
        # What an instance of moto's asks its image for. Moto's own table of images stays empty.
        AmiBackend.describe_images = self._images_for_moto  # type: ignore[assignment,method-assign]

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        request = Request(environ)
        response = self._control(request) if request.path.startswith("/bed/") else self._answer(request)
        return response(environ, start)

    def _images_for_moto(self, ami_ids: Any = None, filters: Any = None, **_: Any) -> list[Any]:
        names = ami_ids or (filters or {}).get("image-id") or ()
        names = [names] if isinstance(names, str) else names
        return [_MotoImage(self.bed.world.images[name]) for name in names if name in self.bed.world.images]

    def _answer(self, request: Request) -> Response:
        found = wire.sender(request)
        if not found:
            return Response("The bed wants requests signed with Signature Version 4.\n", status=403)
        key, region, signed_for = found
        call = None
        try:
            call = wire.read(request, account=_account(key), region=region, signed_for=signed_for)
            if call is None:  # a service that is moto's alone
                blank = _blank(request, _account(key), region)
                return self.bed.pass_on(blank)
            return self._dispatch(call)
        except ServiceException as error:
            if call is not None:
                return wire.write(call, error)
            return wire.write_error(wire.CHECKED[signed_for], error)
        except Exception:
            _LOG.exception("the bed has a bug")
            bug = ApiError("InternalError", "The bed has a bug; its log tells more.", status=500)
            return wire.write(call, bug) if call else Response(str(bug), status=500)

    def _dispatch(self, call: Call) -> Response:
        _LOG.info("%s %s", call.service, call.action)
        self.bed.trouble.meet(call)
        handler = HANDLERS.get((call.service, call.action))
        if handler is None:
            response = self.bed.pass_on(call)
            if self.bed.trouble.bears(call) and response.status_code == 200:
                self.bed.trouble.note_births(call, wire.parse(call, response))
            return response
        if call.action in _LONG:
            result = handler(self.bed, call)
        else:
            with self.bed.world.lock:
                result = handler(self.bed, call)
        self.bed.trouble.note_births(call, result)
        return wire.write(call, result)

    def _control(self, request: Request) -> Response:
        """`POST trouble`, `GET calls` (`?reset=1`), `GET left`, `GET about`."""
        name = request.path.removeprefix("/bed/")
        if name == "trouble" and request.method == "POST":
            try:
                self.bed.trouble.set(trouble.read_wish(json.loads(request.get_data() or b"{}")))
            except (TypeError, ValueError) as error:
                return Response(f"{error}\n", status=400)
            return Response(status=204)
        if name == "calls":
            answer: object = self.bed.trouble.take_calls(reset="reset" in request.args)
        elif name == "left":
            answer = left(self.bed)
        elif name == "about":
            answer = {"home": state.HOME, "other": state.OTHER, "keys": state.KEYS, "pid": os.getpid()}
        else:
            return Response("There is no such thing at this bed.\n", status=404)
        return Response(json.dumps(answer), content_type="application/json")


class _MotoImage:
    """An image as far as moto's instances look at it."""

    def __init__(self, image: state.Image) -> None:
        self.id = image.id
        self.architecture = image.architecture
        self.platform = None
        self.virtualization_type = image.virtualization
        self.root_device_name = image.root_device
        self.kernel_id = None


def _account(key: str) -> str:
    from moto.iam.models import get_account_id_from

    return state.KEYS.get(key) or str(get_account_id_from(key))


def _blank(request: Request, account: str, region: str) -> Call:
    agent = request.headers.get("User-Agent", "")
    return Call(
        service="", action="", account=account, region=region, params={}, agent=agent, request=request
    )


def left(bed: Bed) -> dict[str, list[str]]:
    """What exists in both accounts, by kind. What every account is born with is left out."""
    from moto.ec2.models import ec2_backends

    mine = set(state.KEYS.values())
    found: dict[str, list[str]] = {
        "images": [image.id for image in bed.world.images.values() if image.account in mine],
        "snapshots": [one.id for one in bed.world.snapshots.values() if one.account in mine],
    }
    kinds: dict[str, list[str]] = {
        name: [] for name in ("instances", "volumes", "key_pairs", "security_groups")
    }
    kinds |= {"addresses": [], "spot_requests": []}
    for account in mine:
        for ec2 in dict(ec2_backends[account]).values():
            live = [one.id for one in ec2.all_instances() if one.state != "terminated"]
            kinds["instances"] += live
            kinds["volumes"] += list(ec2.volumes)
            kinds["key_pairs"] += list(ec2.key_pairs)
            groups = [group for of_vpc in ec2.groups.values() for group in of_vpc.values()]
            kinds["security_groups"] += [group.id for group in groups if group.name != "default"]
            kinds["addresses"] += [str(address.allocation_id) for address in ec2.addresses]
            kinds["spot_requests"] += list(ec2.spot_instance_requests)
    return {**found, **kinds}


def serve(application: Application, *, port: int, ready: Callable[[int], None]) -> None:
    """Serves on 127.0.0.1 until `application` is told to end; `ready` gets the port (0 asks for a free one)."""
    from moto.moto_server.werkzeug_app import MotoRequestHandler
    from werkzeug.serving import make_server

    class Quiet(MotoRequestHandler):
        protocol_version = "HTTP/1.1"

        def log(self, type: str, message: str, *args: Any) -> None:
            pass

    server = make_server("127.0.0.1", port, application, threaded=True, request_handler=Quiet)
    threading.Thread(target=ready, args=(server.server_port,), daemon=True).start()
    server.serve_forever()
