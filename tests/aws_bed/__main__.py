"""`python -m tests.aws_bed`: a bed in the foreground, and how to use it by hand."""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from ingot.system import locks
from tests.aws_bed import disks, machine, state
from tests.aws_bed.profile import PROFILES

_MOTO = {
    "MOTO_EC2_LOAD_DEFAULT_AMIS": "false",  # the images are ours
    "MOTO_ENABLE_AMI_VALIDATION": "true",
    "MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION": "true",
}
_PREFIX = "aws-bed-"
_ENDS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_USE = """\
export AWS_ENDPOINT_URL=http://127.0.0.1:{port}
export AWS_ACCESS_KEY_ID={key}
export AWS_SECRET_ACCESS_KEY=bed
export AWS_DEFAULT_REGION={region}
# a source image: owner {owner}, name {name}
# a second account: AWS_ACCESS_KEY_ID={other}
"""


def main(words: list[str]) -> int:
    """Serves until SIGTERM or Ctrl-C."""
    options = _parser().parse_args(words)
    os.environ.update(_MOTO)  # read when moto is imported
    from tests.aws_bed.server import Application, serve

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    logging.getLogger("aws_bed").setLevel(logging.INFO)
    machine.sweep()
    _sweep(Path(options.state))
    with _folder(Path(options.state)) as folder:
        delays = PROFILES[options.profile].scaled(options.scale)
        application = Application(folder=folder, base=disks.base(), delays=delays)

        def leave(number: int, _: FrameType | None) -> None:
            for other in _ENDS:
                signal.signal(other, signal.SIG_IGN)  # what is removed is removed to the end
            raise SystemExit(0)

        for number in _ENDS:
            signal.signal(number, leave)
        try:
            serve(application, port=options.port, ready=_tell)
        finally:
            application.bed.machines.end_all()
    return 0


@contextmanager
def _folder(parent: Path) -> Iterator[Path]:
    """A folder for the disks of this bed, locked while it lives, so that others know."""
    made = tempfile.TemporaryDirectory(prefix=_PREFIX, dir=parent, ignore_cleanup_errors=True)
    with made as name, locks.lock(Path(name, "lock")):
        yield Path(name)


def _sweep(parent: Path) -> None:
    """Removes what beds that were killed have left of their disks."""
    for old in parent.glob(f"{_PREFIX}*"):
        with locks.try_lock(old / "lock") as free:
            if free:
                shutil.rmtree(old, ignore_errors=True)


def _tell(port: int) -> None:
    home, other = state.KEYS
    name = next(
        about["name"] for about in reversed(state.STAND_INS) if about["name"].startswith("debian-12-amd64")
    )
    text = _USE.format(port=port, key=home, other=other, region=state.REGION, owner=state.DEBIAN, name=name)
    sys.stdout.write(text)
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.aws_bed", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="on 127.0.0.1 (default: a free one)")
    parser.add_argument("--profile", choices=sorted(PROFILES), default="fast", help="how long things take")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on what the profile says")
    parser.add_argument("--state", default=os.environ.get("TMPDIR", "/var/tmp"), help="folder for disks")
    return parser


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(status)  # threads that wait for machines would keep it
