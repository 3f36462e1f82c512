"""Runs ansible-playbook so that nothing of it outlives Ingot. A program of its own: `python -P launch.py`.

It reads one JSON order from standard input (`Order` in `order.py` describes it), so that no secret is ever on a
command line, in a file or in an environment. It then forks: the child becomes ansible-playbook, in this very
interpreter (no second start); the parent stays as its warden. Being a subreaper, the warden gets every process that
Ansible leaves, however it was started: workers, mitogen's multiplexer, SSH masters, what `delegate_to: localhost`
started. It ends them all when the play is over, when it is told to stop, and when Ingot dies, however Ingot dies: the
kernel then sends the warden SIGTERM. Only Ansible and the standard library are imported here.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_SET_PDEATHSIG = 1
_SET_CHILD_SUBREAPER = 36
_LIMIT = 5.0  # seconds after which a process that SIGKILL does not end (one in a dead mount) is given up


_NO_MITOGEN = 211  # a child's exit code: mitogen did not start, and no task has run


def main() -> None:
    """Never returns: the exit code is ansible-playbook's, or 128 and the number of the signal that ended it."""
    if sys.argv[1] == "play":
        play(json.load(sys.stdin), sys.argv[2])
    scratch = Path(os.environ["TMPDIR"])
    prctl = ctypes.CDLL(None).prctl
    prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    _on_signals(lambda number, frame: leave(128 + number, scratch))
    # Until here, `setpriv` has seen to it that Ingot's death is ours.
    prctl(_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    expected = sys.argv[1]
    get_ready(expected)
    text = sys.stdin.read()
    order = json.loads(text)
    code = _NO_MITOGEN
    for engine in order["engines"]:
        child = os.fork()
        if child == 0:
            prctl(_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            _on_signals(signal.SIG_DFL)
            if engine == expected:
                play(order, engine)
            play_anew(text, order["strategies"][engine], engine)
        code = _wait_for(child)
        if code != _NO_MITOGEN:
            break
    leave(code, scratch)


def get_ready(engine: str) -> None:
    """Imports what a run with this engine needs, while the machine that the order is for is still being made.

    Ansible forks a worker for each task. Objects that the collector leaves alone stay in memory that all share:
    that and rarer collections take some 15 % off a trivial task.
    """
    if engine == "mitogen":
        with contextlib.suppress(BaseException):  # `_load_mitogen` tells why
            import ansible_mitogen.strategy  # noqa: F401
    import ansible.cli.playbook  # noqa: F401

    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 50)


def play_anew(text: str, strategy: str, engine: str) -> None:
    """Plays in a fresh interpreter, for Ansible reads its default strategy once, when it is imported."""
    file = os.memfd_create("order", 0)
    os.write(file, text.encode())
    os.lseek(file, 0, os.SEEK_SET)
    os.dup2(file, 0)
    others = {name: value for name, value in os.environ.items() if name != "ANSIBLE_STRATEGY"}
    chosen = {"ANSIBLE_STRATEGY": strategy} if strategy else {}
    os.execve(sys.executable, [sys.executable, "-P", __file__, "play", engine], {**others, **chosen})


def play(order: dict[str, Any], engine: str) -> None:
    """Becomes ansible-playbook. Exits with its code, or with _NO_MITOGEN."""
    records = os.dup(1)  # Ansible's workers close the standard streams
    os.environ["INGOT_RECORDS"] = f"{records} {order['mark']}"
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    arguments = ["ansible-playbook", *order["arguments"]]
    if order["variables"]:
        arguments += ["--extra-vars", json.dumps(order["variables"])]
    if order["vault_password"]:
        arguments += ["--vault-password-file", _secret_file(order["vault_password"])]
    if engine == "mitogen":
        _load_mitogen(records, order["mark"])
    from ansible.cli.playbook import PlaybookCLI
    from ansible.plugins.loader import callback_loader

    callback_loader.add_directory(str(Path(__file__).with_name("callback")))
    _record(records, order["mark"], {"kind": "engine", "engine": engine})
    sys.addaudithook(_reads(records, order["mark"], tuple(order["uncounted"])))
    code: Any = 1
    try:
        PlaybookCLI.cli_executor(arguments)
    except SystemExit as end:
        code = end.code
    # What Python and mitogen would now take apart piece by piece, the warden ends at once.
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else bool(code))


def leave(code: int, scratch: Path) -> None:
    """Ends every descendant, removes the scratch folder and exits."""
    _on_signals(signal.SIG_IGN)
    deadline = time.monotonic() + _LIMIT
    while (victims := list(_descendants())) and time.monotonic() < deadline:
        for victim in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.002)
    shutil.rmtree(scratch, ignore_errors=True)
    os._exit(code)


def _on_signals(what: Any) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, what)


def _wait_for(child: int) -> int:
    while True:
        pid, status = os.wait()
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _descendants() -> Iterator[int]:
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            stat = (folder / "stat").read_text(errors="replace")
            children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(folder.name))
    todo = [os.getpid()]
    while todo:
        found = children.get(todo.pop(), [])
        yield from found
        todo += found


def _record(file: int, mark: str, record: dict[str, Any]) -> None:
    os.write(file, f"{mark}{json.dumps(record)}\n".encode())


def _secret_file(text: str) -> str:
    """A path to a file that exists in memory alone. Not executable: Ansible would take it for a program."""
    file = os.memfd_create("vault", 0)
    os.fchmod(file, 0o400)
    os.write(file, text.encode())
    return f"/dev/fd/{file}"


def _load_mitogen(records: int, mark: str) -> None:
    """Makes mitogen's strategies known, or exits with _NO_MITOGEN before anything has run."""
    try:
        import ansible_mitogen.strategy
    except BaseException as error:  # whatever a future Ansible makes of mitogen's inner imports
        _record(records, mark, {"kind": "no-mitogen", "reason": f"{type(error).__name__}: {error}"})
        os._exit(_NO_MITOGEN)
    from ansible.plugins import loader

    loader.strategy_loader.add_directory(str(Path(ansible_mitogen.__file__).parent / "plugins/strategy"))
    heard: Callable[..., None] = loader.display.deprecated

    def deprecated(msg: str, *rest: Any, **more: Any) -> None:
        if not msg.startswith("Use of strategy plugins not included"):  # our choice, not the user's
            heard(msg, *rest, **more)

    loader.display.deprecated = deprecated


def _reads(records: int, mark: str, uncounted: tuple[str, ...]) -> Callable[[str, tuple[Any, ...]], None]:
    """An audit hook that records each file read here or in a worker, outside the `uncounted` folders, once."""
    seen: set[str] = set()

    def hear(event: str, details: tuple[Any, ...]) -> None:
        if event != "open" or not isinstance(details[0], (str, bytes)) or details[2] & os.O_ACCMODE:
            return
        path = os.path.abspath(os.fsdecode(details[0]))  # noqa: PTH100 - a link counts where it lies
        if path not in seen and not path.startswith(uncounted) and Path(path).is_file():
            seen.add(path)
            _record(records, mark, {"kind": "read", "path": path})

    return hear


if __name__ == "__main__":
    main()
