"""The one place that starts local processes.

Argument lists only; the environment is explicit; every process dies with us (`setpriv --pdeathsig KILL`), so that
SIGKILL of Ingot leaves none of them. A wait always has a deadline and listens to the cancel flag. A failure names
the command ready to paste, how it ended, and the end of what it printed.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shlex
import shutil
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

from ingot.errors import BackendError, DeadlineError
from ingot.model.units import Seconds
from ingot.ports import Cancel

TAIL = 40
GRACE = Seconds(10.0)
_KEPT = (
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "TMPDIR",
    "TERM",
    "SSH_AUTH_SOCK",
    "SSL_CERT_FILE",
    "XDG_RUNTIME_DIR",
)


class ToolError(BackendError):
    """A program that Ingot ran failed; facts: `argv`, `code` (negative: by that signal), `tail`, `log`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Completed:
    """What a finished process left: its exit code, its standard output whole, and the last lines of both streams."""

    argv: tuple[str, ...]
    code: int
    stdout: str
    tail: tuple[str, ...]
    seconds: Seconds


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """A small known environment: what finding programs and people's files needs, C.UTF-8, and `extra`."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    path = kept.get("PATH", os.defpath)
    if "/usr/sbin" not in path.split(":"):
        path += ":/usr/local/sbin:/usr/sbin:/sbin"
    return {**kept, "PATH": path, "LC_ALL": "C.UTF-8", **(extra or {})}


def have(program: str) -> bool:
    """Whether the program is on the path that our processes get."""
    return shutil.which(program, path=environment()["PATH"]) is not None


@cache
def _mortal() -> tuple[str, ...]:
    return ("setpriv", "--pdeathsig", "KILL", "--") if have("setpriv") else ()


def spawn(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: int | IO[Any] | None = subprocess.DEVNULL,
    stdout: int | IO[Any] | None = subprocess.DEVNULL,
    stderr: int | IO[Any] | None = subprocess.DEVNULL,
    pass_fds: Sequence[int] = (),
    mortal: bool = True,
) -> subprocess.Popen[bytes]:
    """A started process, in a session of its own, that gets SIGKILL when the thread that started it ends.

    Raises ToolError where the program is not there. `env` is the whole environment; None gives `environment()`.
    """
    if not have(argv[0]):
        raise ToolError(
            f"the program {argv[0]!r} is not installed",
            hint="`make setup` installs what Ingot needs; the list is in `debian-packages.txt`",
            argv=tuple(argv),
            code=127,
            tail=(),
            log="",
        )
    return subprocess.Popen(
        [*(_mortal() if mortal else ()), *argv],
        env=dict(environment() if env is None else env),
        cwd=cwd,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        pass_fds=tuple(pass_fds),
        start_new_session=True,
    )


def start(
    argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.Popen[bytes]:
    """A process that waits for its input, for `run` to go on with. As `spawn`; who starts it ends it (`end`)."""
    pipe = subprocess.PIPE
    return spawn(argv, env=env, cwd=cwd, stdin=pipe, stdout=pipe, stderr=pipe)


def run(
    argv: Sequence[str],
    *,
    timeout: Seconds,
    started: subprocess.Popen[bytes] | None = None,
    cancel: Cancel | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    input: bytes | None = None,
    stdin: IO[Any] | None = None,
    log: Path | None = None,
    on_line: Callable[[str, str], None] | None = None,
    check: bool = True,
    pass_fds: Sequence[int] = (),
    returns: bool = False,
    kept: bool = True,
) -> Completed:
    """Runs to the end. `on_line(stream, text)` hears each line as it comes; `log` gets both streams, appended.

    `started` is a process that `start` has started with this command line; `env` and `cwd` are its own then.
    With `returns` a carriage return ends a line too, for programs that draw their progress in one line. Without
    `kept` nothing of standard output is in what comes back, for output that is long or secret.

    Raises ToolError for a non-zero exit (unless `check` is off), DeadlineError when `timeout` ran out and
    CancelledError on a wish to stop; the process and its group are ended before either is raised.
    """
    began = time.monotonic()
    feed: int | IO[Any] = subprocess.PIPE if input is not None else (stdin or subprocess.DEVNULL)
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(log.open("ab")) if log else None
        process = started or spawn(
            argv,
            env=env,
            cwd=cwd,
            stdin=feed,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=pass_fds,
        )
        stack.callback(end, process)
        out: list[str] = []
        tail: deque[str] = deque(maxlen=TAIL)
        for stream, text in _lines(process, input, began + timeout, cancel, argv, returns=returns):
            if kept and stream == "stdout":
                out.append(text)
            if kept or stream == "stderr":
                tail.append(text.rstrip("\n"))
            if sink:
                sink.write(text.encode(errors="surrogateescape"))
                sink.flush()
            if on_line:
                on_line(stream, text.rstrip("\n"))
        code = process.wait()
    done = Completed(
        argv=tuple(argv),
        code=code,
        stdout="".join(out),
        tail=tuple(tail),
        seconds=Seconds(time.monotonic() - began),
    )
    if check and code:
        raise failure(done, log=log)
    return done


def failure(done: Completed, *, log: Path | None = None) -> ToolError:
    """The error that a finished process's failure is: how it ended and the last thing it said."""
    how = f"exited with {done.code}" if done.code > 0 else f"was ended by signal {-done.code}"
    said = next((line for line in reversed(done.tail) if line.strip()), "")
    return ToolError(
        f"`{Path(done.argv[0]).name}` {how}" + (f": {said.strip()}" if said else ""),
        hint=f"the command was: {shlex.join(done.argv)}",
        argv=done.argv,
        code=done.code,
        tail=done.tail,
        log=str(log or ""),
    )


def end(process: subprocess.Popen[bytes], *, grace: Seconds = GRACE) -> None:
    """Ends a process and its group: TERM, then KILL after `grace`. One that is gone already is fine."""
    for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, None)):
        if process.poll() is not None:
            break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe:
            with contextlib.suppress(OSError):
                pipe.close()


def ask_to_stop(pid: int) -> None:
    """SIGTERM for a process that is not ours; one that has gone is fine."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)


def _lines(
    process: subprocess.Popen[bytes],
    input: bytes | None,
    deadline: float,
    cancel: Cancel | None,
    argv: Sequence[str],
    *,
    returns: bool,
) -> Iterator[tuple[str, str]]:
    """Yields (stream, line with its newline) until both streams end; feeds `input` meanwhile."""
    assert process.stdout and process.stderr
    waiting = selectors.DefaultSelector()
    partial = {"stdout": b"", "stderr": b""}
    for name, pipe in (("stdout", process.stdout), ("stderr", process.stderr)):
        os.set_blocking(pipe.fileno(), False)
        waiting.register(pipe, selectors.EVENT_READ, name)
    if input is not None and process.stdin:
        os.set_blocking(process.stdin.fileno(), False)
        waiting.register(process.stdin, selectors.EVENT_WRITE, "stdin")
    rest = memoryview(input or b"")
    while waiting.get_map():
        if cancel:
            cancel.check()
        left = deadline - time.monotonic()
        if left <= 0:
            raise DeadlineError(
                f"`{Path(argv[0]).name}` did not end within its time limit",
                hint=f"the command was: {shlex.join(argv)}; raise the step's `timeout` if it is only slow",
            )
        for key, _ in waiting.select(min(left, 0.2)):
            if key.data == "stdin":
                rest = _feed(process, rest)
                if not rest:
                    waiting.unregister(key.fileobj)
                    process.stdin.close()  # type: ignore[union-attr]
                continue
            data = os.read(key.fd, 65536).replace(b"\r", b"\n" if returns else b"\r")
            if not data:
                waiting.unregister(key.fileobj)
                if partial[key.data]:
                    yield key.data, partial[key.data].decode(errors="surrogateescape")
                continue
            *whole, partial[key.data] = (partial[key.data] + data).split(b"\n")
            for line in whole:
                yield key.data, line.decode(errors="surrogateescape") + "\n"


def _feed(process: subprocess.Popen[bytes], rest: memoryview) -> memoryview:
    assert process.stdin
    try:
        return rest[os.write(process.stdin.fileno(), rest[:65536]) :]
    except BlockingIOError:
        return rest
    except BrokenPipeError:
        return rest[len(rest) :]
