"""Kill −9 at random instants: real sweeps whose processes are killed, and whose MLflow goes away for a while, resumed
until they end; registry, files, Optuna and MLflow are then compared with runs that nobody disturbed.

    uv run python tests/harness.py --kills 120 --seed 7
    uv run python tests/harness.py --kills 15 --experiment digits

The stores are read as files, by SQL of their own: what the laboratory's commands say of them is not taken for true.
"""

import argparse
import contextlib
import hashlib
import io
import itertools
import json
import math
import os
import random
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple
from unittest import mock

Target = Literal["supervisor", "worker", "writer", "server"]
Row = tuple[Any, ...]


@dataclass(frozen=True)
class Case:
    """An experiment to be disturbed: one that ships, or the `text` of another, with `changes`; what it comes to."""

    name: str
    objective: str
    trials: int
    seeds: int
    top: int  # trials that are confirmed
    confirmed: int  # seeds of each
    changes: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""

    def source(self, folder: Path) -> str:
        """What `sweep` is to be given; a file of one's own is written to `folder`."""
        if not self.text:
            return self.name
        file = folder / f"{self.name}.yaml"
        file.write_text(self.text)
        return str(file)

    def options(self) -> list[str]:
        return [word for key, value in self.changes.items() for word in ("--set", f"{key}={json.dumps(value)}")]


# Short forms of what ships, with their systems, samplers, pruners and confirmations. The moving average of so few steps
# follows fast enough for configurations to differ.
_DIGITS: dict[str, Any] = {"training.steps": 24, "training.log_every": 4, "training.evaluate_every": 8}
_DIGITS |= {"training.ema": 0.8, "evaluation": {"name": "image-small", "samples": 100}}
_RING: dict[str, Any] = {"training.steps": 120, "training.log_every": 10, "training.evaluate_every": 40}
_RING |= {"evaluation": {"name": "points", "samples": 400}}
CASES = {
    "points": Case(
        *("points", "rkl", 6, 2, 1, 2),
        text="""\
data: {name: ring, points: 2000}
system: {name: point_gan, hidden: 32, lr: {log: [1e-4, 1e-2]}, loss: {choice: [nonsaturating, hinge]}}
training: {steps: 240, batch_size: 64, log_every: 20, evaluate_every: 60, threads: 1, checkpoint_seconds: 0.3}
evaluation: {name: points, samples: 400}
objective: {minimize: rkl}
search: {trials: 6, seeds: 2}
confirm: {top: 1, seeds: 2}
""",
    ),
    "digits": Case("digits-8x8", "fd_clf", 8, 1, 2, 2, _DIGITS),
    "ring": Case("ring", "rkl", 8, 1, 1, 3, _RING),
}
PROGRAM = "from aigc_lab.cli import main; main()"

# How MLflow goes away, and for how many seconds; how long it then stays.
Outage = Literal["server down", "database locked", "artifacts gone"]
_AWAY, _BACK = (2.0, 10.0), (1.0, 8.0)
# Seconds between two looks; after a kill, within which the others of a dead sweep must end; that a command may take.
_LOOK = 0.005
_ORPHANED = 12.0
_PATIENCE = 180.0
_RESULTS = ("FINISHED", "PRUNED", "DIVERGED")
# Their values are times; there must be as many of them all the same.
_TIMES = ("dynamics/samples_per_second", "time/training_seconds", "time/evaluation_seconds")


def plain_environment() -> dict[str, str]:
    """This process's environment without what points at a home or a store."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("AIGC_LAB_", "MLFLOW_"))}


class Served:
    """A database on PostgreSQL that is in the place of a file of a home."""

    def __init__(self, url: str) -> None:
        import psycopg

        self._connection = psycopg.connect(url.replace("+psycopg", ""), autocommit=True)

    def rows(self, query: str, values: Sequence[object]) -> list[Row]:
        """As a file would say it: JSON is text there."""
        from psycopg.errors import UndefinedTable

        try:
            found = self._connection.execute(query.replace("?", "%s").encode(), values).fetchall()
        except UndefinedTable:
            return []
        return [tuple(json.dumps(each) if isinstance(each, dict) else each for each in row) for row in found]

    def written(self) -> object:
        """Something that changes with every commit."""
        return self.rows("SELECT CAST(pg_current_wal_insert_lsn() AS text)", ())


#: the file that a home would have -> the database that it has in its place
SERVED: dict[Path, Served] = {}


def rows(database: Path, query: str, *values: object) -> list[Row]:
    """What a database says at this moment; nothing while it does not exist yet or has no such table."""
    if database in SERVED:
        return SERVED[database].rows(query, values)
    if not database.exists():
        return []
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)) as connection:
        try:
            return connection.execute(query, values).fetchall()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return []
            raise


# ---- processes


class Being(NamedTuple):
    """A process for ever: its pid may be used again, its start may not."""

    pid: int
    started: str
    kind: Target | Literal["other"]


def _started(pid: int) -> str | None:
    """When a process started; None when it is gone, or only waits to be buried."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def family(home: Path) -> list[Being]:
    """All processes that were started for a home: its address stands in their environment."""
    mark, found = f"AIGC_LAB_HOME={home}".encode(), []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with suppress(OSError):
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                command, begun = (folder / "cmdline").read_bytes(), _started(int(folder.name))
                if begun is not None:
                    found.append(Being(int(folder.name), begun, _kind(command)))
    return found


def _kind(command: bytes) -> Target | Literal["other"]:
    words = command.split(b"\0")
    if b"aigc_lab.runs.worker" in words:
        return "worker"
    if b"aigc_lab.tracking.writer" in words:
        return "writer"
    return "supervisor" if PROGRAM.encode() in words else "other"


def alive(being: Being) -> bool:
    return _started(being.pid) == being.started


class Server:
    """`mlflow server` on a port of its own, killed and started again."""

    def __init__(self, folder: Path, database: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = int(probe.getsockname()[1])
        self.address = f"http://127.0.0.1:{self._port}"
        self.artifacts, self._folder, self._database = folder / "served", folder, database
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns at once; the server answers some seconds later."""
        command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(self._port)]
        command += [
            "--backend-store-uri",
            f"sqlite:///{self._database}",
            "--artifacts-destination",
            str(self.artifacts),
        ]
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, start_new_session=True, env=plain_environment() | quiet
            )

    def ready(self) -> None:
        """Returns when it answers; starts it if it does not run."""
        if self._process is None or self._process.poll() is not None:
            self.start()
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until:
            with suppress(OSError), urllib.request.urlopen(f"{self.address}/health", timeout=5):
                return
            time.sleep(0.2)
        raise AssertionError(f"{self.address} never answered; see {self._folder / 'server.log'}")

    @property
    def running(self) -> bool:
        return self._process is not None

    def kill(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


# ---- instants


@dataclass(frozen=True)
class Instant:
    """When to kill: `delay` seconds after the `count`th event of a kind since the command began to train; for `start`
    and `reconcile` (its first commit), since it began at all; for `end`, after the last run has its result.
    """

    event: str
    count: int = 0
    delay: float = 0.0

    def __str__(self) -> str:
        return f"{self.event} {self.count} + {self.delay:.3f} s" if self.count else f"{self.event} + {self.delay:.3f} s"


# Event -> the share of the kills of a target.
_EVENTS: dict[Target, dict[str, float]] = {
    "supervisor": {
        "training": 0.3, "log": 0.12, "state": 0.14, "commit": 0.2, "start": 0.06, "reconcile": 0.06, "end": 0.06,
        "weights": 0.06,
    },
    "worker": {"training": 0.3, "log": 0.18, "state": 0.22, "commit": 0.2, "weights": 0.08, "start": 0.02},
    "writer": {"training": 0.4, "delivery": 0.36, "log": 0.12, "end": 0.12},
    "server": {"training": 0.5, "delivery": 0.35, "end": 0.15},
}  # fmt: skip
_LONGEST = {"training": 1.5, "start": 4.0, "reconcile": 0.1, "end": 1.0}


def draw(target: Target, chance: random.Random) -> Instant:
    """An instant for this target: of any time, or just after something happened."""
    shares = _EVENTS[target]
    (event,) = chance.choices(list(shares), list(shares.values()))
    if event in _LONGEST:
        return Instant(event, delay=chance.uniform(0, _LONGEST[event]))
    return Instant(event, chance.randint(1, 6), chance.choice([0.0, chance.uniform(0, 0.04)]))


def glimpse(home: Path, event: str) -> object:
    """Something that changes whenever the event happens."""
    match event:
        case "log":
            return _sizes(home.glob("spool/*/*/log.jsonl"))
        case "state":  # with the temporary files that become states
            return sorted(map(str, itertools.chain(home.glob("checkpoints/*/*/*/[s.]*state-*"))))
        case "weights":
            return sorted(map(str, home.glob("checkpoints/*/*/*/*.safetensors")))
        case "delivery":
            return _sizes([home / "mlflow.db-wal", *home.glob("spool/*/*/delivered.json")])
        case _:
            if (served := SERVED.get(home / "registry.db")) is not None:
                return served.written()
            return _sizes([home / "registry.db-wal", home / "registry.db"])


def _sizes(paths: Iterable[Path]) -> list[tuple[int, int]]:
    found = []
    for path in paths:
        with suppress(OSError):
            stat = path.stat()
            found.append((stat.st_mtime_ns, stat.st_size))
    return found


# ---- a sweep that is disturbed


@dataclass
class Report:
    """What was done and found."""

    kills: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    outages: Counter[str] = field(default_factory=Counter)
    cases: Counter[str] = field(default_factory=Counter)
    away: int = 0  # sweeps in which MLflow was
    sweeps: int = 0
    commands: int = 0
    runs: Counter[str] = field(default_factory=Counter)
    attempts: int = 0
    resumed: int = 0
    compared: int = 0
    files: int = 0
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = ["target       kills"]
        lines += [f"{target:<12} {self.kills[target]:>5}" for target in _EVENTS]
        lines += ["instants: " + ", ".join(f"{event} {count}" for event, count in sorted(self.events.items()))]
        told = ", ".join(f"{name} {count}" for name, count in sorted(self.outages.items())) or "never"
        lines += [f"MLflow away in {self.away} sweeps: {told}"]
        lines += [
            f"{self.sweeps} sweeps ({', '.join(f'{name} {count}' for name, count in sorted(self.cases.items()))}) by "
            f"{self.commands} commands; runs: {dict(self.runs)}; {self.attempts} attempts, {self.resumed} of them from "
            f"a checkpoint",
            f"{self.compared} runs equal undisturbed ones to the bit (pruned ones up to where they were); {self.files} "
            "of their files are in MLflow, by sha256 or by pixels",
        ]
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"PROBLEM: {problem}" for problem in self.problems] or ["no problem found"]
        return "\n".join(lines)


class _Armed:
    """An instant that is waited for, while one command goes on."""

    def __init__(self, sweep: "Disturbed", instant: Instant, begun: float) -> None:
        self.instant, self.begun = instant, begun
        self._sweep, self._counted = sweep, 0
        self._seen: object = None
        self._at = math.inf

    def due(self, now: float, training: float) -> bool:
        """Whether the instant has come; `training` is when the command began to train."""
        if self._at == math.inf and self._happened(now, training):
            self._at = now + self.instant.delay
        return now >= self._at

    def _happened(self, now: float, training: float) -> bool:
        match self.instant.event:
            case "start":
                return True
            case "end":
                return self._sweep.all_ended()
            case "training":
                return now >= training
            case "reconcile":  # the first that a command writes down
                return self._changes() >= 1
            case _:
                return now >= training and self._changes() >= self.instant.count

    def _changes(self) -> int:
        seen = glimpse(self._sweep.home, self.instant.event)
        self._counted += self._seen is not None and seen != self._seen
        self._seen = seen
        return self._counted


class Disturbed:
    """A sweep in a home of its own, and what it is run by."""

    def __init__(
        self,
        folder: Path,
        chance: random.Random,
        report: Report,
        *,
        case: Case = CASES["points"],
        server: bool = False,
        away: bool = False,
        empty: Path | None = None,
        cache: Path | None = None,
        database: Callable[[], str] | None = None,
    ) -> None:
        folder.mkdir(parents=True)
        self.home, self.folder, self.case = folder / "home", folder, case
        self.home.mkdir()
        self._served: dict[str, str] = {}
        for store in ("registry", "optuna") if database is not None else ():
            assert database is not None
            url = self._served[f"AIGC_LAB_{store.upper()}_URL"] = database()
            SERVED[self.home / f"{store}.db"] = Served(url)
        if cache is not None:
            shutil.copytree(cache, self.home / "cache")
        self.database = self.home / "mlflow.db"
        if empty is not None:
            shutil.copy(empty, self.database)
        self._source = case.source(folder)
        self.server = Server(folder, self.database) if server else None
        self._outages = Outages(self, chance, report) if away else None
        self._chance, self._report = chance, report
        self._doomed: dict[Being, float] = {}
        self._looked = 0.0
        self._commands = 0
        self._again = math.inf  # when the server is started again
        # Results do not depend on it, and the same runs serve as the truth of all sweeps.
        self._checkpoints = chance.choice([0, 0.1, 0.3, 1])

    def endure(self, kills: "Counter[Target]") -> None:
        """Runs the sweep to its end, and kills meanwhile; what could not be done before the end is left in `kills`."""
        failures = 0
        while True:
            code = self._once(kills)
            if code == 0:
                break
            if code is not None:
                failures += 1
                self._failed(code)
                if failures > 3:
                    raise AssertionError(f"{self.folder}: it does not end")
        self._farewell()

    def environment(self) -> dict[str, str]:
        told = plain_environment() | self._served | {"AIGC_LAB_HOME": str(self.home)}
        return told | ({"MLFLOW_TRACKING_URI": self.server.address} if self.server else {})

    def command(self, *words: str) -> tuple[int, str]:
        """A command to its end: its exit code, and what it said."""
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *words],
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
        )
        return done.returncode, done.stdout + done.stderr

    def close(self) -> None:
        """Leaves no process behind, and no lock."""
        if self._outages:
            self._outages.end()
        for being in family(self.home):
            with suppress(ProcessLookupError):
                os.kill(being.pid, signal.SIGKILL)
        if self.server:
            self.server.kill()

    # ---- one command

    def _once(self, kills: "Counter[Target]") -> int | None:
        """One command until it ends, and its exit code; None when it was killed."""
        process = self._start()
        begun, logs, training = time.monotonic(), glimpse(self.home, "log"), math.inf
        seen, moved = logs, begun
        armed: dict[Target, _Armed] = {}
        try:
            while process.poll() is None:
                time.sleep(_LOOK)
                now = time.monotonic()
                self._watch(now)
                if (look := glimpse(self.home, "log")) != seen:
                    seen, moved = look, now
                if now - moved > _PATIENCE:
                    self._problem(f"{self._name()} hangs: {[being.kind for being in family(self.home)]}")
                    return None
                if training == math.inf and seen != logs:
                    training = now
                if training < now and self._outages:
                    self._outages.look(now)
                for target in [target for target, left in kills.items() if left]:
                    if target not in armed:
                        armed[target] = _Armed(self, draw(target, self._chance), begun)
                    if not armed[target].due(now, training) or not self._kill(target, armed[target], process):
                        continue
                    del armed[target]
                    kills[target] -= 1
                    if target == "supervisor":
                        return None
            return process.returncode
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()

    def all_ended(self) -> bool:
        query = "SELECT count(*) FROM run WHERE role = 'confirm' AND state IN ('FINISHED', 'DIVERGED')"
        return rows(self.home / "registry.db", query) == [(self.case.top * self.case.confirmed,)]

    def _start(self) -> "subprocess.Popen[bytes]":
        known = rows(self.home / "registry.db", "SELECT id FROM sweep")
        begin = ["sweep", self._source, *self.case.options()]
        begin += ["--set", f"training.checkpoint_seconds={self._checkpoints}"]
        words = ["resume", known[0][0]] if known and self._chance.random() < 0.5 else begin
        self._commands += 1
        self._report.commands += 1
        with self._output().open("wb") as output:
            return subprocess.Popen(
                [sys.executable, "-c", PROGRAM, *words, "--workers", "2", "--device", "cpu"],
                cwd=self.folder,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def _kill(self, target: Target, armed: "_Armed", process: "subprocess.Popen[bytes]") -> bool:
        """Kills it now, if there is one to kill."""
        instant, at = armed.instant, time.monotonic() - armed.begun
        if target == "server":
            if self.server is None or not self.server.running:
                return False
            self.server.kill()
            self._again = time.monotonic() + self._chance.uniform(0, 3)
            pid = 0
        else:
            chosen = self._chosen(target, instant, process.pid)
            if not chosen:
                return False
            pid = self._chance.choice(chosen).pid
            os.kill(pid, signal.SIGKILL)
        self._report.kills[target] += 1
        self._report.events[instant.event] += 1
        if target == "supervisor":
            process.wait()
            self._doomed |= {being: time.monotonic() + _ORPHANED for being in family(self.home)}
        print(f"{self.folder.name}.{self._commands} {at:6.2f} s  kill {target:<10} {instant!s:<24} {self._stand(pid)}")
        if target == "supervisor":
            time.sleep(self._chance.choice([0.0, self._chance.uniform(0, 2)]))
        return True

    def _chosen(self, target: Target, instant: Instant, supervisor: int) -> list[Being]:
        """Who may be killed. Workers are those in the middle of a run: one that dies twice before it begins is given
        up, and this is not about that.
        """
        here = [being for being in family(self.home) if being.kind == target]
        if target == "supervisor":
            return [being for being in here if being.pid == supervisor]
        if target == "worker" and instant.event != "start":
            busy = {
                pid for (pid,) in rows(self.home / "registry.db", "SELECT pid FROM attempt WHERE state = 'RUNNING'")
            }
            return [being for being in here if being.pid in busy]
        return here

    def _stand(self, pid: int) -> str:
        registry = self.home / "registry.db"
        states = Counter(state for (state,) in rows(registry, "SELECT state FROM run"))
        mine = rows(registry, "SELECT run_id, number FROM attempt WHERE pid = ? AND state = 'RUNNING'", pid)
        doing = "".join(f" in {run.partition('.')[2]} attempt {number}" for run, number in mine)
        return f"{dict(states)}{doing}"

    # ---- what must be so meanwhile

    def _watch(self, now: float) -> None:
        if now - self._looked < 0.2:
            return
        self._looked = now
        if self.server and now > self._again:
            self._again = math.inf
            self.server.start()
        for being, until in list(self._doomed.items()):
            if not alive(being):
                del self._doomed[being]
            elif now > until:
                del self._doomed[being]
                self._problem(f"{being.kind} {being.pid} outlives its supervisor by {_ORPHANED:.0f} s")

    def _farewell(self) -> None:
        """The sweep has ended: nobody is left of it, MLflow gets the rest."""
        until = time.monotonic() + _ORPHANED
        while self._doomed and time.monotonic() < until:
            time.sleep(0.1)
            self._watch(time.monotonic())
        for being in family(self.home):
            self._problem(f"{being.kind} {being.pid} is alive after the sweep has ended")
        if self._outages:
            self._outages.end()
        if self.server:
            self.server.ready()
        code, said = self.command("spool", "--flush")
        if code != 0:
            self._problem(f"spool --flush: exit code {code}: {said.strip()}")

    def _failed(self, code: int) -> None:
        said = self._output().read_text("utf-8", "replace").strip().splitlines()[-3:]
        allowed = any("a worker process cannot go on" in line for line in said)
        text = f"{self._name()} ended with code {code}: {' | '.join(said)}"
        if allowed:  # two kills of one worker before it could begin
            self._report.notes.append(text)
        else:
            self._problem(text)

    def _output(self) -> Path:
        return self.folder / f"command-{self._commands}.log"

    def _name(self) -> str:
        return f"{self.folder.name}, command {self._commands}"

    def _problem(self, text: str) -> None:
        print(f"PROBLEM: {self.folder}: {text}")
        self._report.problems.append(f"{self.folder}: {text}")


class Outages:
    """MLflow's store goes away and comes back, while one command after the other goes on: its server is down, somebody
    else locks its database, or where its files are is gone, as a mount may be.
    """

    def __init__(self, sweep: Disturbed, chance: random.Random, report: Report) -> None:
        self._sweep, self._chance, self._report = sweep, chance, report
        self._next = 0.0
        self._kind: Outage | None = None
        self._before: Outage = chance.choice(["database locked", "artifacts gone"])
        self._lock: sqlite3.Connection | None = None
        self._files = sweep.home / "artifacts" / "mlflow"
        self._aside = sweep.home / "artifacts-away"
        self._counted = False

    def look(self, now: float) -> None:
        if now < self._next:
            return
        if self._kind is not None:
            self.end()
            self._next = now + self._chance.uniform(*_BACK)
            return
        kind: Outage = "server down"
        if self._sweep.server is None:  # in turn
            kind = "artifacts gone" if self._before == "database locked" else "database locked"
        if not self._begin(kind):
            return
        self._before = kind
        self._kind, self._next = kind, now + self._chance.uniform(*_AWAY)
        self._report.outages[kind] += 1
        self._report.away += not self._counted
        self._counted = True
        print(f"{self._sweep.folder.name}   {kind} for {self._next - now:.1f} s")

    def _begin(self, kind: Outage) -> bool:
        if kind == "server down":
            if self._sweep.server is None or not self._sweep.server.running:
                return False
            self._sweep.server.kill()
        elif kind == "database locked":
            self._lock = sqlite3.connect(self._sweep.database, timeout=0, isolation_level=None)
            try:
                self._lock.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError:  # somebody writes at this moment
                self._lock.close()
                return False
        else:
            self._files.parent.mkdir(exist_ok=True)
            with suppress(FileNotFoundError):  # MLflow has none yet
                self._files.rename(self._aside)
            try:
                self._files.touch(exist_ok=False)
            except FileExistsError:  # the writer was quicker, and has begun another folder
                self._bring_back()
                return False
        return True

    def end(self) -> None:
        """What was away is back."""
        kind, self._kind = self._kind, None
        if kind == "server down" and self._sweep.server is not None:
            self._sweep.server.start()
        elif kind == "database locked" and self._lock is not None:
            self._lock.close()
        elif kind == "artifacts gone":
            self._files.unlink()
            self._bring_back()

    def _bring_back(self) -> None:
        if not self._aside.is_dir():
            return
        if self._files.is_dir():
            shutil.copytree(self._files, self._aside, dirs_exist_ok=True)
            shutil.rmtree(self._files)
        self._aside.rename(self._files)


# ---- the truth


class NoWriter:
    """In the writer's place: what a run shows stays in its spool, to be read there."""

    def __init__(self, *given: object) -> None: ...

    def start(self) -> None: ...

    def finish(self, patience: float | None = None) -> None: ...


class Stored(NamedTuple):
    """What the registry and the files have of a run: sha256 of its weights and of its pictures, and its scores."""

    weights: dict[str, str]
    pictures: dict[str, str]
    scores: list[Row]

    def until(self, step: int) -> "Stored":
        """What a run has that was pruned at that step: no weights, and neither pictures nor scores of later ones."""
        pictures = {name: digest for name, digest in self.pictures.items() if "/" in name}
        pictures = {name: digest for name, digest in pictures.items() if int(name.partition("/")[2]) <= step}
        return Stored({}, pictures, [row for row in self.scores if row[0] == "progress" and row[1] <= step])


@dataclass(frozen=True)
class Reference:
    """What an undisturbed run leaves, and what MLflow would be shown."""

    stored: Stored
    points: dict[str, list[tuple[int, float]]]
    shown: list[tuple[str, int]]

    def until(self, step: int) -> "Reference":
        """The same of a run that was pruned at that step."""
        points = {name: [point for point in points if point[0] <= step] for name, points in self.points.items()}
        kept = {name: points for name, points in points.items() if points}
        return Reference(self.stored.until(step), kept, [shown for shown in self.shown if shown[1] <= step])


class References:
    """Undisturbed runs, each done once."""

    def __init__(self, folder: Path, cache: Path | None = None) -> None:
        self._folder = folder
        folder.mkdir(parents=True)
        if cache is not None:
            shutil.copytree(cache, folder / "home" / "cache")
        self._known: dict[tuple[str, str, int], Reference] = {}

    def of(self, case: Case, values: Mapping[str, Any], seed: int) -> Reference:
        """The run of a configuration, which `values` give by the names of the experiment's holes, to its end."""
        from aigc_lab import api
        from aigc_lab.experiment import experiment
        from aigc_lab.tracking import writer

        key = (case.name, json.dumps(values, sort_keys=True), seed)
        if key not in self._known:
            changes = [(name, json.dumps(value), name) for name, value in case.changes.items()]
            template = experiment.load_experiment(case.source(self._folder), changes, data_dir=self._folder)
            plain = template.resolve(lambda hole: values[hole.name]).data
            with mock.patch.object(writer, "Writer", NoWriter), contextlib.redirect_stderr(io.StringIO()):
                row = api.train({"name": case.name, **plain}, seed=seed, home=self._folder / "home", device="cpu")
            self._known[key] = self._read(row["run"])
        return self._known[key]

    def _read(self, run: str) -> Reference:
        home = self._folder / "home"
        (log,) = home.glob(f"spool/*/{run}.*/log.jsonl")
        told = [json.loads(line) for line in log.read_text().splitlines()]
        points: dict[str, list[tuple[int, float]]] = defaultdict(list)
        for record in told:
            for name, value, _, step in record.get("points", ()):
                points[name].append((step, value))
        shown = [(record["key"], record["step"]) for record in told if "image" in record]
        return Reference(stored(home, run), {name: sorted(points[name]) for name in points}, shown)


def stored(home: Path, run: str) -> Stored:
    registry = home / "registry.db"
    weights: dict[str, str] = dict(rows(registry, "SELECT kind, path FROM checkpoint WHERE run_id = ?", run))
    query = "SELECT name, path FROM artifact WHERE run_id = ? AND kind IN ('image/png', 'text/plain')"
    pictures: dict[str, str] = dict(rows(registry, query, run))
    columns = "checkpoint, step, split, name, value, low, high, n, floor, signature"
    scores = sorted(rows(registry, f"SELECT {columns} FROM score WHERE run_id = ?", run), key=lambda row: row[:4])
    digests = [{name: sha256(home / path) for name, path in files.items()} for files in (weights, pictures)]
    return Stored(digests[0], digests[1], scores)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"


def pixels(path: Path) -> str:
    """A digest of what a picture shows: MLflow's is another file of the same."""
    from PIL import Image

    with Image.open(path) as picture:
        return f"{picture.size} {hashlib.sha256(picture.convert('RGB').tobytes()).hexdigest()}"


# ---- the judge


class Judge:
    """Compares a sweep that has ended with the truth."""

    def __init__(self, sweep: Disturbed, references: References, report: Report) -> None:
        self._sweep, self._references, self._report = sweep, references, report
        self._home, self._registry = sweep.home, sweep.home / "registry.db"
        self._case = sweep.case
        self._runs = rows(self._registry, "SELECT id, trial, seed, role, state, reason, mlflow_run_id FROM run")

    def judge(self) -> None:
        self._report.sweeps += 1
        self._report.cases[self._case.name] += 1
        self._counts()
        self._confirmations()
        self._lives()
        self._leftovers()
        self._mlflow()
        self._files()
        self._optuna()
        self._bits()
        code, said = self._sweep.command("verify", "--json")
        told = json.loads(said) if said.startswith("{") else {}
        if code != 0 or told.get("problems") != [] or told.get("notes") != []:
            self._problem(f"verify: exit code {code}: {said.strip()}")

    def _counts(self) -> None:
        """Every trial and every run once, here and in Optuna; one that was pruned has its first seed alone."""
        numbers = list(range(self._case.trials))
        trials: dict[int, str] = dict(rows(self._registry, "SELECT number, state FROM trial ORDER BY number"))
        self._same("trials", list(trials), numbers)
        asked = rows(self._home / "optuna.db", "SELECT number, state FROM trials ORDER BY number")
        failed = {trial for _, trial, _, _, state, _, _ in self._runs if state == "FAILED"}
        self._same("trials of Optuna", [number for number, _ in asked], numbers)
        for number, state in asked:
            wanted = "PRUNED" if trials.get(number) == "PRUNED" else "COMPLETE"
            if state != wanted and not (state == "FAIL" and number in failed):
                self._problem(f"Optuna says that trial {number} is {state}, and it is {trials.get(number)}")
        searched = sorted((trial, seed) for _, trial, seed, role, *_ in self._runs if role == "search")
        seeds = {number: 1 if state == "PRUNED" else self._case.seeds for number, state in trials.items()}
        runs = [(number, seed) for number in numbers for seed in range(seeds.get(number, 0))]
        self._same("runs", [run for run in searched if run[0] not in failed], [r for r in runs if r[0] not in failed])

    def _confirmations(self) -> None:
        """The best trials of the search, each with as many fresh seeds."""
        case = self._case
        order = "SELECT number FROM trial WHERE state = 'FINISHED' AND value IS NOT NULL ORDER BY value"
        best = [number for (number,) in rows(self._registry, order)][: case.top]
        seeds = range(case.seeds, case.seeds + case.confirmed)
        confirmed = sorted((trial, seed) for _, trial, seed, role, *_ in self._runs if role == "confirm")
        self._same("confirmations", confirmed, sorted(itertools.product(best, seeds)))

    def _lives(self) -> None:
        """All have ended with a result; only what was killed thrice without progress has none."""
        for run, _, _, _, state, reason, _ in self._runs:
            self._report.runs[state] += 1
            if state == "FAILED" and "times without progress" in (reason or ""):
                self._report.notes.append(f"{run} FAILED: {reason}")
            elif state not in _RESULTS:
                self._problem(f"{run} is {state}: {reason}")
        attempts = rows(self._registry, "SELECT run_id, number, state, from_step FROM attempt ORDER BY run_id, number")
        self._report.attempts += len(attempts)
        self._report.resumed += sum(bool(begun) for *_, begun in attempts)
        for run, number, state, _ in attempts:
            if state in ("RUNNING", "QUEUED"):
                self._problem(f"{run}, attempt {number} is {state}")
        results = Counter(run for run, _, state, _ in attempts if state in _RESULTS)
        for run, count in results.items():
            self._same(f"results of {run}", count, 1)
        self._same("supervisors", rows(self._registry, "SELECT sweep_id FROM supervisor"), [])

    def _leftovers(self) -> None:
        """No half-written file, no state of a run that has ended, nothing that waits for MLflow."""
        for place in ("checkpoints", "artifacts"):
            for path in (self._home / place).rglob("*"):
                if path.is_file() and (path.name.startswith((".", "state-")) or path.suffix == ".tmp"):
                    self._problem(f"left behind: {path.relative_to(self._home)}")
        for path in self._home.glob("spool/*/*"):
            if path.is_dir() or path.suffix in (".jsonl", ".png"):
                self._problem(f"left behind: {path.relative_to(self._home)}")

    def _mlflow(self) -> None:
        """One MLflow run for each of ours, which shows what the undisturbed one shows, every point and picture once."""
        database = self._sweep.database
        keys = "SELECT value, run_uuid FROM tags WHERE key = 'aigc_lab.key'"
        shown: dict[str, list[str]] = defaultdict(list)
        for key, identity in rows(database, keys):
            shown[key.rpartition(".")[0]].append(identity)
        states: dict[str, str] = dict(
            rows(database, "SELECT run_uuid, status FROM runs WHERE lifecycle_stage = 'active'")
        )
        self._same("MLflow runs", len(states), sum(map(len, shown.values())))
        self._same("runs in MLflow", sorted(shown), sorted(run for run, *_ in self._runs))
        pruned = {recorded for _, _, _, _, state, _, recorded in self._runs if state == "PRUNED"}
        for identity, status in states.items():
            if status not in ("FINISHED", "FAILED", "KILLED") or (status == "KILLED" and identity not in pruned):
                self._problem(f"MLflow run {identity} is {status}")
        for run, trial, seed, _, state, _, recorded in self._runs:
            if len(shown[run]) != 1:
                self._problem(f"MLflow has {len(shown[run])} runs of {run}")
            elif state in ("FINISHED", "PRUNED"):
                self._same(f"MLflow run of {run}", recorded, shown[run][0])
                status = "KILLED" if state == "PRUNED" else "FINISHED"
                self._same(f"status of {run} in MLflow", states.get(recorded), status)
                self._curves(run, recorded, self._truth(run, trial, seed, state))

    def _curves(self, run: str, identity: str, truth: Reference) -> None:
        points: dict[str, list[tuple[int, float]]] = defaultdict(list)
        query = "SELECT key, step, value FROM metrics WHERE run_uuid = ? ORDER BY key, step"
        for name, step, value in rows(self._sweep.database, query, identity):
            points[name].append((step, value))
        self._same(f"metrics of {run}", sorted(points), sorted(truth.points))
        for name, here in points.items():
            there = truth.points.get(name, [])
            self._same(f"steps of {name} of {run}", [step for step, _ in here], [step for step, _ in there])
            if name not in _TIMES:
                self._same(f"{name} of {run}", here, there)
        names = [path.name for path in self._shown(identity) if "~grid+step+" in path.name]
        found = [re.findall(r"(.*)\+step\+(\d+)\+", name)[0] for name in names if name.endswith(".png")]
        pictures = sorted((key.replace("~", "/"), int(step)) for key, step in found)
        self._same(f"pictures of {run}", pictures, sorted(truth.shown))

    def _shown(self, identity: str) -> list[Path]:
        """The files that MLflow has of a run."""
        root = self._sweep.server.artifacts if self._sweep.server else self._home / "artifacts" / "mlflow"
        return [path for path in root.glob(f"*/{identity}/artifacts/**/*") if path.is_file()]

    def _files(self) -> None:
        """Every file of a run that the registry knows, or that lies beside its weights, is in MLflow too, with the same
        content; and MLflow has no weights that the home does not have.
        """
        for run, trial, seed, _, state, _, identity in self._runs:
            if state not in _RESULTS or not identity:
                continue
            shown = self._shown(identity)
            digests = {sha256(path): path.stat().st_size for path in shown}
            seen = {pixels(path) for path in shown if path.suffix == ".png"}
            (sweep,) = {run.partition(".")[0] for run, *_ in self._runs}
            here = [path for path in self._home.glob(f"checkpoints/{sweep}/{trial}.{seed}/*/*") if path.is_file()]
            paths = rows(self._registry, "SELECT path FROM artifact WHERE run_id = ?", run)
            weights = rows(self._registry, "SELECT path, sha256 FROM checkpoint WHERE run_id = ?", run)
            for path, digest in weights:  # MLflow may hold the same file: one that is damaged is damaged in both
                if (self._home / path).is_file() and sha256(self._home / path) != digest:
                    self._problem(f"{run}: {path} is not the file that the registry recorded")
            paths += [(path,) for path, _ in weights]
            for path in dict.fromkeys([*here, *(self._home / path for (path,) in paths)]):
                name = path.relative_to(self._home)
                if not path.is_file():
                    self._problem(f"{run}: {name} is missing")
                elif path.name == "curves.json":
                    self._points(run, identity, path)
                elif digests.get(sha256(path)) != path.stat().st_size and not (
                    path.suffix == ".png" and pixels(path) in seen
                ):
                    have = ", ".join(str(each).partition("/artifacts/")[2] for each in shown)
                    self._problem(f"{run} ({state}): MLflow has no {name}; it has {have or 'nothing'}")
                else:
                    self._report.files += 1
            known = {sha256(path) for path in here}
            for path in shown:
                if path.suffix == ".safetensors" and sha256(path) not in known:
                    self._problem(f"{run}: MLflow's {path.name} ({path.stat().st_size} bytes) is none of the home's")

    def _points(self, run: str, identity: str, path: Path) -> None:
        """The curves of a run, which are a file here and metrics there."""
        for name, curve in json.loads(path.read_bytes()).items():
            here = [(s, v) for s, v in zip(curve["step"], curve["value"], strict=True) if v is not None]
            query = "SELECT step, value FROM metrics WHERE run_uuid = ? AND key = ? ORDER BY step"
            self._same(f"curve {name} of {run}", rows(self._sweep.database, query, identity, name), here)
        self._report.files += 1

    def _optuna(self) -> None:
        """It was told every score of every trial's first run, once; what was pruned was worse than others then."""
        query = (
            "SELECT trials.number, step, intermediate_value FROM trial_intermediate_values "
            "JOIN trials ON trials.trial_id = trial_intermediate_values.trial_id ORDER BY 1, 2"
        )
        told: dict[int, dict[int, float]] = defaultdict(dict)
        for number, step, value in rows(self._home / "optuna.db", query):
            told[number][step] = value
        systems: dict[int, str] = dict(rows(self._registry, "SELECT number, system FROM trial"))
        states = {trial: state for _, trial, seed, _, state, *_ in self._runs if seed == 0}
        for run, trial, seed, _, state, *_ in self._runs:
            if seed != 0 or state not in ("FINISHED", "PRUNED"):
                continue
            scores = rows(
                self._registry,
                "SELECT step, value FROM score WHERE run_id = ? AND checkpoint = 'progress' AND name = ?",
                *(run, self._case.objective),
            )
            self._same(f"what Optuna was told of trial {trial}", told[trial], dict(scores))
            if state != "PRUNED":
                continue
            at, kin = max(told[trial], default=-1), [n for n in systems if systems[n] == systems[trial]]
            others = [told[n][at] for n in kin if states.get(n) == "FINISHED" and at in told[n]]
            if len(others) < 2 or min(told[trial].values()) <= min(others):
                self._problem(f"trial {trial} was pruned at step {at} with {told[trial]} beside {others}")

    def _bits(self) -> None:
        for run, trial, seed, _, state, _, _ in self._runs:
            if state not in ("FINISHED", "PRUNED"):
                continue
            before, truth = len(self._report.problems), self._truth(run, trial, seed, state).stored
            here = stored(self._home, run)
            self._same(f"weights of {run}", here.weights, truth.weights)
            self._same(f"picture files of {run}", here.pictures, truth.pictures)
            self._same(f"scores of {run}", here.scores, truth.scores)
            self._report.compared += len(self._report.problems) == before

    def _truth(self, run: str, trial: int, seed: int, state: str) -> Reference:
        """What an undisturbed run of the same configuration and seed came to; up to where it was pruned, if it was."""
        ((values,),) = rows(self._registry, "SELECT params FROM trial WHERE number = ?", trial)
        truth = self._references.of(self._case, json.loads(values), seed)
        if state != "PRUNED":
            return truth
        ((step,),) = rows(self._registry, "SELECT max(step) FROM score WHERE run_id = ?", run)
        return truth.until(step or 0)

    def _same(self, what: str, here: object, wanted: object) -> None:
        if here != wanted:
            self._problem(f"{what}: {_short(here)} instead of {_short(wanted)}")

    def _problem(self, text: str) -> None:
        print(f"PROBLEM: {self._sweep.folder}: {text}")
        self._report.problems.append(f"{self._sweep.folder}: {text}")


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 300 else f"{text[:150]} … {text[-150:]}"


# ---- all of it


@contextmanager
def disturbed(folder: Path, chance: random.Random, report: Report, **options: Any) -> Iterator[Disturbed]:
    """A sweep that leaves no process behind."""
    sweep = Disturbed(folder, chance, report, **options)
    try:
        if sweep.server:
            sweep.server.ready()
        yield sweep
    finally:
        sweep.close()


def empty_mlflow(folder: Path) -> Path:
    """MLflow's tables, which take seconds to make, without anything in them."""
    from aigc_lab.tracking.mlflow import MlflowTracker

    path = folder / "empty.db"
    MlflowTracker(f"sqlite:///{path}", folder)._client()
    return path


def classifier(folder: Path) -> Path:
    """A cache with the digits' classifier, which takes seconds to train; on one thread, as others use the cores."""
    import torch

    from aigc_lab.data.digits import Digits
    from aigc_lab.extractors.classifier import Classifier
    from aigc_lab.host.weights import WeightsPolicy

    torch.set_num_threads(1)
    dataset, cache = Digits(Digits.Config(), Path()), folder / "cache"
    Classifier.prepare(dataset, cache=cache, weights=WeightsPolicy(), device="cpu", say=lambda text: None)
    return cache


def campaign(
    folder: Path,
    kills: int,
    seed: int,
    *,
    experiments: Sequence[str] = tuple(CASES),
    a_sweep: int = 14,
    say: Callable[[Report], None] = lambda report: None,
    database: Callable[[], str] | None = None,
) -> Report:
    """Sweep after sweep until all the kills are done: the experiments in turn, one of three with a server, MLflow away
    for a while in every second one at least. `say` is told after each sweep. With `database`, which makes a new one and
    returns its address, registry and Optuna are on PostgreSQL.
    """
    chance, report = random.Random(seed), Report()
    cache, empty = classifier(folder), empty_mlflow(folder)
    references = References(folder / "undisturbed", cache)
    local: list[Target] = ["worker", "writer", "supervisor"]
    for number in itertools.count():
        left = kills - report.kills.total()
        if left <= 0 or len(report.problems) > 200:
            return report
        case = CASES[experiments[number % len(experiments)]]
        server = (number + number // 3) % 3 == 2
        due = Counter(itertools.islice(itertools.cycle([*local, "server"] if server else local), min(left, a_sweep)))
        stores: dict[str, Any] = {"server": server, "away": number % 2 == 0, "empty": empty, "cache": cache}
        stores["database"] = database
        with disturbed(folder / f"{case.name}-{number}", chance, report, case=case, **stores) as sweep:
            try:
                sweep.endure(due)
                Judge(sweep, references, report).judge()
            except (AssertionError, subprocess.TimeoutExpired) as error:
                report.problems.append(f"{sweep.folder}: {error}")
        say(report)
    raise AssertionError("it counts for ever")


def main() -> int:
    """Kills as asked, prints the report, and returns 1 if there is a problem."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--experiment", choices=[*CASES, "mix"], default="mix", help="mix: all in turn  [default]")
    parser.add_argument("--a-sweep", type=int, default=14, help="kills in one sweep  [default: 14]")
    parser.add_argument("--folder", type=Path, help="where homes and the report are kept  [default: a new one]")
    options = parser.parse_args()
    for name in set(os.environ) - set(plain_environment()):
        del os.environ[name]
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    folder = (options.folder or Path(tempfile.mkdtemp(prefix="kills-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)

    def write(report: Report) -> None:
        (folder / "report.json").write_text(json.dumps(vars(report), indent=2))
        (folder / "report.txt").write_text(f"{report}\n")

    experiments = list(CASES) if options.experiment == "mix" else [options.experiment]
    report = campaign(folder, options.kills, options.seed, experiments=experiments, a_sweep=options.a_sweep, say=write)
    write(report)
    print(f"{report}\n{folder / 'report.json'}")
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
