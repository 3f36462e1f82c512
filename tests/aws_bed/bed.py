"""The bed itself: what all actions share. One a process."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from werkzeug.wrappers import Response

from tests.aws_bed import state, wire
from tests.aws_bed.network import Network
from tests.aws_bed.nursery import Nursery
from tests.aws_bed.profile import Delays
from tests.aws_bed.trouble import Trouble
from tests.aws_bed.wire import ApiError, Call, Params

if TYPE_CHECKING:
    from tests.aws_bed.machines import Machines

Answer = Mapping[str, Any]
Handler = Callable[["Bed", Call], Answer]

ORGANISATION = (
    f"arn:aws:organizations::{state.HOME}:organization/o-bedbedbed0",
    f"arn:aws:organizations::{state.HOME}:ou/o-bedbedbed0/ou-bed0-bedbedbe",
)
"""The organisation and the unit that both accounts belong to."""


@dataclass(kw_only=True, slots=True, eq=False)
class Once:
    """A call with a client token: what the same call was answered before, and room for what it is answered now."""

    answers: dict[tuple[str, ...], tuple[Params, Answer]]
    key: tuple[str, ...]
    params: Params
    answer: Answer | None = None

    def remember(self, answer: Answer) -> Answer:
        """The answer, kept for the next call with this token."""
        if self.key:
            self.answers[self.key] = (self.params, answer)
        return answer


class Bed:
    """Images, snapshots, machines, and moto behind them."""

    def __init__(self, *, folder: Path, base: Path, delays: Delays, moto_app: Any) -> None:
        self.folder = folder
        self.world = state.World(base)
        self.trouble = Trouble()
        self.nursery = Nursery()
        self.network = Network(self.nursery)
        self.machines: Machines
        self._delays = delays
        self._moto_app = moto_app
        self.last_words: dict[str, bytes] = {}
        """What the consoles of terminated instances said."""
        self._answers: dict[tuple[str, ...], tuple[Params, Answer]] = {}

    @property
    def delays(self) -> Delays:
        """How long things take, with what a test wishes otherwise."""
        return replace(self._delays, **self.trouble.wish.delays)

    @staticmethod
    def now() -> datetime:
        return state.now()

    def disk_of_volume(self, name: str) -> Path:
        """The file of a volume."""
        return self.folder / "volumes" / f"{name}.raw"

    def disk_of_snapshot(self, name: str) -> Path:
        """The file of a snapshot that is ours; a stand-in's lies elsewhere."""
        return self.folder / "snapshots" / f"{name}.raw"

    @staticmethod
    def moto(call: Call) -> Any:
        """What moto keeps of EC2 for the caller's account and region."""
        return backend(call.account, call.region)

    def in_region(self, call: Call, region: str) -> Call:
        """The call as it would be in another region."""
        return replace(call, region=region)

    def pass_on(self, call: Call, params: Params | None = None) -> Response:
        """Moto's answer to the request, or to one for the same action with other parameters."""
        environ = dict(call.request.environ)
        body = call.request.get_data() if params is None else wire.rewritten(call, params)
        # werkzeug keeps its own copy of a request's form in there.
        for name in [name for name in environ if name.startswith("werkzeug.request")]:
            del environ[name]
        environ |= {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        environ["HTTP_X_MOTO_ACCOUNT_ID"] = call.account
        return Response.from_app(self._moto_app, environ, buffered=True)

    def ask_moto(self, call: Call, params: Params | None = None) -> Params:
        """The same, decoded. Raises ApiError for an error."""
        return wire.parse(call, self.pass_on(call, params))

    @staticmethod
    def dry_run(call: Call) -> None:
        """To be called before anything is changed. "Common request parameters": `DryRun`."""
        if call.dry:
            text = "Request would have succeeded, but DryRun flag is set."
            raise ApiError("DryRunOperation", text, status=412)

    def once(self, call: Call) -> Once:
        """Whether the call was made before: "Ensuring idempotency in Amazon EC2 API requests"."""
        params = dict(call.params)
        token = params.pop("ClientToken", "")
        key = (call.account, call.region, call.action, token) if token else ()
        once = Once(answers=self._answers, key=key, params=params)
        if key in self._answers:
            before, once.answer = self._answers[key]
            if before != params:
                code = "ConflictException" if call.service == "ebs" else "IdempotentParameterMismatch"
                raise ApiError(code, "The client token was used before, with other parameters.")
        return once

    def tags(self, account: str, region: str, name: str) -> list[dict[str, str]]:
        """The tags of a thing, which moto keeps for CreateTags, DeleteTags and DescribeTags."""
        found = backend(account, region).describe_tags(filters={"resource-id": [name]})
        return [{"Key": tag["key"], "Value": tag["value"]} for tag in found]

    def set_tags(self, call: Call, name: str, tags: state.Tags) -> None:
        """Adds tags to a thing of the caller's."""
        if tags:
            backend(call.account, call.region).create_tags([name], tags)

    def tag(self, call: Call, name: str, kind: str) -> None:
        """Adds the tags that the call asks for on things of this kind."""
        for asked in call.params.get("TagSpecifications", []):
            if asked.get("ResourceType") == kind:
                self.set_tags(call, name, {tag["Key"]: tag.get("Value", "") for tag in asked.get("Tags", [])})

    @staticmethod
    def organisation(account: str) -> tuple[str, ...]:
        """ARNs of what the account belongs to."""
        return ORGANISATION if account in state.KEYS.values() else ()

    def default_key(self, call: Call) -> str:
        """ARN of the key that EBS uses where none is named: `alias/aws/ebs`, unless the account says another."""
        ec2 = self.moto(call)
        return str(ec2.default_kms_key_id or ec2._create_default_encryption_key())

    def find_key(self, call: Call, name: str) -> tuple[str, str]:
        """(the ARN of the key, why it cannot be used). Looked at later than the call: see CopyImage, `KmsKeyId`."""
        from moto.kms.models import kms_backends

        try:
            return str(kms_backends[call.account][call.region].describe_key(name).arn), ""
        except Exception:  # moto's own, of several kinds
            return name, "Given key ID is not accessible"

    def key_allows(self, key: str, account: str) -> bool:
        """Whether a grant or the policy of the key lets another account use it: "Share a KMS key"."""
        from moto.kms.models import kms_backends

        _, _, _, region, owner, _ = key.split(":", 5)
        if owner == account:
            return True
        kms = kms_backends[owner][region]
        name = key.rpartition("/")[2]
        grants = kms.list_grants(name, "")
        return any(f":{account}:" in grant.grantee_principal for grant in grants) or (
            account in str(kms.keys[name].policy)
        )

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        """Does something in a thread of its own after a while."""
        timer = threading.Timer(seconds, act)
        timer.daemon = True
        timer.start()


def backend(account: str, region: str) -> Any:
    """What moto keeps of EC2 for an account and region."""
    from moto.ec2.models import ec2_backends

    return ec2_backends[account][region]
