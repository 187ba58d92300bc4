"""Runs code of a user's file in a process of its own, with limits of time and memory, and reports its end in one line.

`call("aigc_lab.plugins:load", …)` runs that function in `python -m aigc_lab.host.confined` and yields what it sends. A
file that never returns, ends its process or takes all memory is refused with a sentence that names its line, and the
calling process goes on. Files that have passed are remembered by content, and not tried again.
"""

import ctypes
import faulthandler
import hashlib
import importlib
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import IO, Any, Literal, NoReturn

from pydantic import JsonValue

from aigc_lab.errors import Failure, UsageError
from aigc_lab.host.capacity import free_memory
from aigc_lab.host.channel import Channel, Closed, Message

#: seconds that a user's file may take to be loaded and built; 0 loads it at once, without trying it first
VARIABLE = "AIGC_LAB_PLUGIN_SECONDS"
_SECONDS = 60.0
# What trains a few steps or checks a contract may take so many times as long.
_WORK = 5
_TRACE = re.compile(r'File "(.+)", line (\d+) in ')
_CHECK = "'aigc-lab check' tests the file"


def seconds() -> float:
    """Time limit of this process in seconds. Raises `UsageError` for an environment variable that is not one."""
    text = os.environ.get(VARIABLE) or str(_SECONDS)
    with suppress(ValueError):
        if 0 <= float(text) < 1e6:
            return float(text)
    raise UsageError(f"{VARIABLE}={text!r:.60}: give seconds, like {_SECONDS:.0f}, or 0 to load files untried")


# ---- what has passed


def content_key(sources: Sequence[bytes], *facts: object) -> str:
    """Hex key of a trial: of the sources, of these facts, and of this package, Python and its environment
    (`sys.prefix`).
    """
    from aigc_lab import __version__

    digest = hashlib.sha256(json.dumps([__version__, sys.version, sys.prefix, *facts], default=str).encode())
    for source in sources:
        digest.update(hashlib.sha256(source).digest())
    return digest.hexdigest()


_passed: set[str] = set()


def _pass_marker(name: str) -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "aigc-lab" / "plugins" / name


def has_passed(name: str) -> bool:
    """Whether this trial passed before, in this process or in another of this user."""
    with suppress(OSError, RuntimeError):  # RuntimeError: a user without a home
        if name not in _passed and _pass_marker(name).is_file():
            _passed.add(name)
    return name in _passed


def remember_pass(name: str) -> None:
    """Remembers that a trial passed; where nothing can be written, for this process alone."""
    _passed.add(name)
    with suppress(OSError, RuntimeError):
        _pass_marker(name).parent.mkdir(parents=True, exist_ok=True)
        _pass_marker(name).touch()


# ---- what the two processes say


class Call(Message):
    """First message: the function, its arguments, the user's files, and what it does first (`doing`)."""

    function: str
    arguments: dict[str, JsonValue]
    files: list[str]
    doing: str
    bounded: bool


class Phase(Message):
    """What the function does from now on, and how long that may take."""

    doing: str
    limit: Literal["limited", "work", "unlimited"]


class Sent(Message):
    """Values sent by the function."""

    facts: dict[str, JsonValue]


class Raised(Message):
    """The function has raised an error of this package."""

    error: Literal["UsageError", "Failure"]
    text: str


class Forked(Message):
    """A copy of the process, made by the user's file, has returned."""


class Done(Message):
    """Last message."""


# ---- the process that asks


def call(
    function: str,
    arguments: dict[str, Any],
    *,
    files: Sequence[str],
    doing: str,
    quiet: bool = False,
    bounded: bool = True,
) -> Iterator[dict[str, Any]]:
    """Yields what `function` ("module:name", called with `send` and the arguments) sends, as it comes.

    `files` are the user's, whose lines appear in errors. Memory is limited if `bounded`. `doing` names the first phase
    ("it was imported"), and `send(phase=…, limit=…)` begins the next; each may take `seconds()`, or as long as its
    limit says (`work`, `unlimited`). Raises `UsageError` and `Failure` as the function does, and `UsageError` for a
    process that ended otherwise.
    """
    limit = seconds() or _SECONDS
    ours, theirs = socket.socketpair()
    with tempfile.TemporaryFile() as traces:
        with theirs:
            process = _start(theirs, traces, quiet)
        channel = Channel(ours, Phase, Sent, Raised, Forked, Done)
        try:
            with suppress(Closed):
                channel.send(
                    Call(function=function, arguments=arguments, files=list(files), doing=doing, bounded=bounded)
                )
            allowed: float | None = None  # importing torch takes a while, and is not the file's fault
            while True:
                ours.settimeout(allowed)
                message = _next_message(channel, process, allowed, doing, files, traces)
                match message:
                    case Done():
                        return
                    case Phase():
                        doing = message.doing
                        allowed = {"limited": limit, "work": _WORK * limit, "unlimited": None}[message.limit]
                    case Sent():
                        yield message.facts
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # what it has started ends with it
            process.wait()
            channel.close()


def _next_message(
    channel: Channel,
    process: "subprocess.Popen[bytes]",
    allowed: float | None,
    doing: str,
    files: Sequence[str],
    traces: IO[bytes],
) -> Message:
    """Next message of the process. Raises the error that it reports, and `UsageError` if it has ended or was forked."""
    try:
        message = channel.receive()
    except Failure:
        raise UsageError(f"{files[0]}: it writes into files that it has not opened; {_CHECK}") from None
    if message is None:
        raise UsageError(_cause_of_end(process, allowed, doing, files, traces))
    if isinstance(message, Raised):
        raise (UsageError if message.error == "UsageError" else Failure)(message.text)
    if isinstance(message, Forked):
        raise UsageError(f"{files[0]}: it forks this process while {doing}; {_CHECK}")
    return message


def _start(theirs: socket.socket, traces: IO[bytes], quiet: bool) -> "subprocess.Popen[bytes]":
    """Starts the process in a session of its own: Ctrl-C is for the calling process, which ends this one."""
    descriptors = (theirs.fileno(), traces.fileno())
    return subprocess.Popen(
        # -P: a file in the working directory must not take the place of a module.
        [sys.executable, "-P", "-m", "aigc_lab.host.confined", *map(str, descriptors), str(os.getpid())],
        pass_fds=descriptors,
        stdin=subprocess.DEVNULL,
        # What it prints must not end up in the middle of what is asked for.
        stdout=subprocess.DEVNULL if quiet else 2,
        stderr=subprocess.DEVNULL if quiet else None,
        start_new_session=True,
        # This process is the trial: it must not try the file in another one first.
        env=os.environ | {VARIABLE: "0"},
    )


def _cause_of_end(
    process: "subprocess.Popen[bytes]", allowed: float | None, doing: str, files: Sequence[str], traces: IO[bytes]
) -> str:
    """Sentence on how the process ended, or that it did not end, with the line of the user's file where it was."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(0.0 if allowed is None else 0.5)
    code = process.poll()
    if code is None:
        process.send_signal(signal.SIGUSR2)  # it writes down where it is
        # faulthandler writes in its own time, and this process cannot see when it is done.
        time.sleep(0.3)
        what = f"did not return within {allowed:.0f} s while {doing}"
        remedy = f"{_CHECK}; if it needs longer, set {VARIABLE} to more than {seconds() or _SECONDS:.0f}"
    elif code < 0:
        name = signal.Signals(-code).name
        what, remedy = f"was ended by {name}{' (out of memory?)' * (name == 'SIGKILL')} while {doing}", _CHECK
    else:
        what, remedy = f"ended the process with code {code} while {doing}", "raise an exception instead"
    traces.seek(0)
    dumped = traces.read().decode("utf-8", "replace")
    places = [f"{file}:{line}" for file, line in _TRACE.findall(dumped) if file in files]
    return f"{places[0] if places else files[0]}: {what}; {remedy}"


# ---- the process that is asked


def main() -> None:
    """Entry point of the confined process; arguments: file descriptors of the channel and of the
    traces, parent's pid.
    """
    end, traces, parent = map(int, sys.argv[1:])
    channel, own, forks = Channel(socket.socket(fileno=end), Call), os.getpid(), list[None]()
    _confine(traces, parent)
    os.register_at_fork(after_in_parent=lambda: forks.append(None))
    message = channel.receive()
    if not isinstance(message, Call):
        return

    def say(message: Message) -> None:
        with suppress(Closed):
            channel.send(message)

    def send(*, phase: str | None = None, limit: Any = "limited", **facts: Any) -> None:
        say(Sent(facts=facts) if phase is None else Phase(doing=phase, limit=limit))

    _run(message, say, send)
    if os.getpid() != own:  # a copy of this process has come back from the file, too
        say(Forked())
    else:
        time.sleep(1.0 if forks else 0.0)  # such a copy is to be heard first
        say(Done())
    sys.stderr.flush()
    os.kill(os.getpid(), signal.SIGKILL)  # whatever threads and handlers the file has left behind


def _run(call: Call, say: Callable[[Message], None], send: Any) -> None:
    module, _, name = call.function.partition(":")
    try:
        import torch  # noqa: F401 -- what every file imports should not count as its own time

        function = getattr(importlib.import_module(module), name)
        if call.bounded:
            _bound_memory()
        send(phase=call.doing)
        function(send, **call.arguments)
    except UsageError as error:
        say(Raised(error="UsageError", text=str(error)))
    except Failure as error:
        say(Raised(error="Failure", text=str(error)))
    except BaseException as error:  # noqa: BLE001 -- whatever a user's file raises is said with its line
        place = line_of(error, call.files)
        if place is None:
            traceback.print_exc()
        text = f"{place or call.files[0]}: {_error_text(error)}; {_CHECK}"
        say(Raised(error="UsageError" if place else "Failure", text=text))


def _error_text(error: BaseException) -> str:
    return f"{type(error).__name__}{f': {error}' if str(error) else ''}"


def line_of(error: BaseException, files: Sequence[str]) -> str | None:
    """Deepest line of these files in an error's traceback, as `file:line`; None if there is none."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in files]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else None


def _confine(traces: int, parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # it was quicker
            sys.exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable(traces, all_threads=True)
    faulthandler.register(signal.SIGUSR2, traces, all_threads=True)
    os_exit = os._exit

    def exit_with_trace(status: int) -> NoReturn:
        faulthandler.dump_traceback(traces, all_threads=False)
        os_exit(status)

    # `os._exit` leaves no traceback, and the line that called it is what the user has to know.
    os._exit = exit_with_trace


def _bound_memory() -> None:
    """Limits the process to half of the free memory, and to a gigabyte at least."""
    limit = max(free_memory() // 2, 1 << 30)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


# ---- a file as it is loaded where it is used


@contextmanager
def contained() -> Iterator[None]:
    """Context in which a user's file is loaded: its output goes to standard error, and it reads no input. The working
    directory and the signal handlers are restored afterwards.
    """
    folder, stdin = os.getcwd(), sys.stdin
    main = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if main else ()
    handlers = {number: signal.getsignal(number) for number in numbers}
    with open(os.devnull, encoding="utf-8") as empty, redirect_stdout(sys.stderr):
        sys.stdin = empty
        try:
            yield
        finally:
            sys.stdin = stdin
            with suppress(OSError):
                os.chdir(folder)
            for number, handler in handlers.items():
                if signal.getsignal(number) is not handler:
                    signal.signal(number, handler)


if __name__ == "__main__":
    main()
