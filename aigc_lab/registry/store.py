"""Writing to the registry.

Every write is one transaction and may be replayed: what a worker did before a crash it may do again. The primary keys
make that safe, and the number of the attempt keeps a worker that was given up for dead from overwriting its successor.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, Literal, ParamSpec, Self, TypeVar

from sqlalchemy import ColumnElement, Connection, Engine, Table, delete, func, insert, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from aigc_lab.errors import Failure
from aigc_lab.host import outage
from aigc_lab.host.processes import Process
from aigc_lab.host.settings import discreet
from aigc_lab.registry.engine import away, first_line, folder_of, label, open_engine
from aigc_lab.registry.records import (
    DESCRIBED,
    Better,
    Role,
    ScalarLike,
    StoredArtifact,
    StoredCheckpoint,
    StoredPromotion,
    StoredScore,
    StoredVerdict,
)
from aigc_lab.registry.run_lifecycle import Life, Outdated
from aigc_lab.registry.states import RunState
from aigc_lab.registry.tables import (
    AliasEvent,
    Artifact,
    Attempt,
    Checkpoint,
    Promotion,
    Run,
    ScalarSummary,
    Score,
    Supervisor,
    Sweep,
    Trial,
    Verdict,
)

P = ParamSpec("P")
T = TypeVar("T")

# What the bits of a run depend on, of the environment that an attempt records.
_BITS = ("device", "threads", "versions", "git_commit", "git_dirty")


class _Lost(Failure):
    """The server went away in the middle of a transaction, which may be done again."""


def repeated(ask: "Callable[Concatenate[Registry, P], T]") -> "Callable[Concatenate[Registry, P], T]":
    """Of a function that reads or writes a registry in one transaction and may be repeated: it is, while the server is
    away (`outage`).
    """

    @wraps(ask)
    def asked(registry: "Registry", /, *given: P.args, **named: P.kwargs) -> T:
        return registry.patiently(lambda: ask(registry, *given, **named))

    return asked


class Registry:
    """A connection to one registry. `Registry.open` is the way to get one."""

    def __init__(self, url: str, engine: Engine, home: Path | None = None) -> None:
        self.url = url
        self._engine = engine
        self._home = home

    @classmethod
    def open(
        cls,
        url: str,
        *,
        home: Path | None = None,
        create: bool = True,
        connected: bool = False,
        patient: bool = False,
    ) -> Self:
        """The registry at `url`, created or migrated where that is needed.

        Files inside `home` (unless given, the folder of a SQLite registry) are recorded by their place in it and read
        back by where it lies now, so that a home can be moved. One that stays `connected` keeps a SQLite file open
        between transactions until it is closed, which halves what a transaction costs. A `patient` one waits for a
        server that is away now: another process has found the registry there.

        Raises `UsageError` when there is nothing at `url` and `create` is false, when what is there is not a registry
        that this version can read (it is left as it was), and when it cannot be reached or written.
        """
        engine = open_engine(url, create=create, connected=connected, patient=patient)
        return cls(url, engine, home or folder_of(url))

    def close(self) -> None:
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def recorded(self, path: str) -> str:
        """A file's path as it is stored."""
        if self._home is None or not Path(path).is_relative_to(self._home):
            return path
        return Path(path).relative_to(self._home).as_posix()

    def located(self, stored: str) -> str:
        """Where the file of a stored path is; a path that was stored absolute stays as it is."""
        return str(self._home / stored) if self._home else stored

    @repeated
    def relocate(self, old: Path) -> None:
        """Files recorded as lying in `old`, where the home was before, become files of the home."""
        with self.write() as connection:
            for table in (Checkpoint, Artifact, Promotion):
                inside = table.c.path.startswith(f"{old}/", autoescape=True)
                shorter = func.substr(table.c.path, len(str(old)) + 2)
                connection.execute(update(table).where(inside).values(path=shorter))

    def patiently(self, work: Callable[[], T]) -> T:
        """The result of `work`, tried again while the server is away. Raises `StoreAway` when it stays away."""
        return outage.ask(label(self.url), work, self._away)

    def _away(self, error: Exception) -> str | None:
        return str(error) if isinstance(error, _Lost) else away(error, self.url)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One consistent view for queries: a server's transaction shows what others commit meanwhile, unless told.

        A server that is away is waited for. It may go away later, in the middle: functions that are `repeated` survive
        that.
        """
        engine = self._engine
        if engine.dialect.name != "sqlite":
            engine = engine.execution_options(isolation_level="REPEATABLE READ")
        with self._failing(), self.patiently(engine.connect) as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction, as `read` is. On SQLite it takes the write lock at once: a reader that turns writer cannot
        wait for it.
        """
        engine = self._engine.execution_options(writes=True)
        with self._failing(), self.patiently(engine.connect) as connection, connection.begin():
            yield connection

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError:
            raise  # a caller's mistake, such as a run of a trial that was never recorded
        except DBAPIError as error:
            reason = away(error, self.url)
            if reason is not None:
                raise _Lost(reason) from error
            raise Failure(f"{label(self.url)}: {discreet(first_line(error), self.url)}") from error

    # ---- a sweep, its trials and its runs

    @repeated
    def sweep(
        self,
        name: str,
        digest: str,
        experiment: Mapping[str, Any],
        objective: str,
        better: Better,
        *,
        source: str | None = None,
        command: Literal["sweep", "train"] = "sweep",
    ) -> str:
        """The id of the sweep of this experiment file, recorded now unless it was before. What may change without
        making it another sweep, such as the number of trials, is that of the last call.
        """
        sweep = f"{name}-{digest[:8]}"
        with self.write() as connection:
            _insert_new(
                connection,
                Sweep,
                id=sweep,
                name=name,
                digest=digest,
                experiment=_plain(experiment),
                objective=objective,
                better=better,
                created_at=_now(),
            )
            if connection.scalar(select(Sweep.c.digest).where(Sweep.c.id == sweep)) != digest:
                raise Failure(f"two experiments share the id {sweep}; rename one of them")
            # A sweep stays one, even if single runs of it are trained besides.
            was = connection.scalar(select(Sweep.c.command).where(Sweep.c.id == sweep))
            latest = {"source": source, "command": was if was == "sweep" else command}
            if was != "sweep" or command == "sweep":
                latest["experiment"] = _plain(experiment)
            connection.execute(update(Sweep).where(Sweep.c.id == sweep).values(latest))
        return sweep

    @repeated
    def set_mlflow_experiment(self, sweep: str, mlflow_experiment_id: str) -> None:
        with self.write() as connection:
            changed = connection.execute(
                update(Sweep).where(Sweep.c.id == sweep).values(mlflow_experiment_id=mlflow_experiment_id)
            )
            _require(changed.rowcount, f"sweep {sweep}")

    @repeated
    def trial(self, sweep: str, number: int, system: str, config: Mapping[str, Any], params: Mapping[str, Any]) -> None:
        """Records a configuration. Raises `Failure` when this number already stands for another one."""
        wanted = (system, _plain(config), _plain(params))
        with self.write() as connection:
            _insert_new(
                connection,
                Trial,
                sweep_id=sweep,
                number=number,
                system=system,
                config=wanted[1],
                params=wanted[2],
                state=RunState.QUEUED.value,
            )
            stored = connection.execute(
                select(Trial.c.system, Trial.c.config, Trial.c.params).where(
                    Trial.c.sweep_id == sweep, Trial.c.number == number
                )
            ).one()
            if tuple(stored) != wanted:
                raise Failure(f"trial {number} of sweep {sweep} is already recorded with another configuration")

    @repeated
    def finish_trial(self, sweep: str, number: int, state: RunState, value: float | None) -> None:
        """What the search made of the trial. A value that is not finite is stored as none."""
        with self.write() as connection:
            changed = connection.execute(
                update(Trial)
                .where(Trial.c.sweep_id == sweep, Trial.c.number == number)
                .values(state=RunState(state).value, value=_finite(value))
            )
            _require(changed.rowcount, f"trial {number} of sweep {sweep}")

    @repeated
    def run(self, sweep: str, trial: int, seed: int, role: Role) -> str:
        """The id of the run of this trial and seed, queued now unless it was recorded before."""
        run = f"{sweep}.{trial}.{seed}"
        with self.write() as connection:
            _insert_new(
                connection,
                Run,
                id=run,
                sweep_id=sweep,
                trial=trial,
                seed=seed,
                role=role,
                state=RunState.QUEUED.value,
                created_at=_now(),
            )
            stored = connection.scalar(select(Run.c.role).where(Run.c.id == run))
            if stored != role:
                raise Failure(f"run {run} is already recorded as {stored}; a {role} run needs a seed of its own")
        return run

    # ---- the life of a run

    def begin(self, run: str, environment: Mapping[str, Any], *, resumes: bool = True) -> int:
        """Starts the next attempt, by this process, and returns its number. One that never ended is closed as KILLED.

        An attempt of a run that was KILLED is of the chain before; when the run had FAILED, a new chain begins, and so
        it does when the attempt `resumes` from nothing, in an environment where the bits of what it has shown may come
        out as others. Raises `Failure` when the run has a result.
        """
        return self._begin(run, environment, resumes, Process.this(), _now())

    @repeated
    def _begin(self, run: str, environment: Mapping[str, Any], resumes: bool, process: Process, now: datetime) -> int:
        with self._living(run) as life:
            number = life.before.newest + 1
            if life.before.writable(life.before.newest) and self._is_mine(life, process, now):
                return life.before.newest  # the answer to its commit was lost
            follows = life.before.state in (RunState.KILLED, RunState.RUNNING)
            if follows and not resumes:
                that = (Attempt.c.run_id == run, Attempt.c.number == life.chain)
                then = life.connection.scalar(select(Attempt.c.environment).where(*that)) or {}
                follows = not then or all(then.get(kind) == environment.get(kind) for kind in _BITS)
            chain = (life.chain if follows else None) or number
            life.save(life.before.begin(), reason=f"never ended; attempt {number} took over")
            life.connection.execute(
                insert(Attempt).values(
                    run_id=run,
                    number=number,
                    state=RunState.RUNNING.value,
                    started_at=now,
                    environment=_plain(environment),
                    host=process.host,
                    boot=process.boot,
                    pid=process.pid,
                    process_started=process.started,
                    heartbeat_at=now,
                    chain=chain,
                    from_step=0,
                )
            )
            life.connection.execute(
                update(Run).where(Run.c.id == run).values(reason=None, seconds=None, finished_at=None)
            )
            self._trial_goes_on(life.connection, run)
        return number

    @repeated
    def describe(self, run: str, attempt: int, described: Mapping[str, Any]) -> None:
        """Stores what MLflow is told of the run beside the environment of an attempt."""
        this = (Attempt.c.run_id == run, Attempt.c.number == attempt)
        with self.write() as connection:
            facts = connection.scalar(select(Attempt.c.environment).where(*this)) or {}
            facts = facts | {DESCRIBED: _plain(described)}
            connection.execute(update(Attempt).where(*this).values(environment=facts))

    def _is_mine(self, life: "_Living", process: Process, began: datetime) -> bool:
        """Whether the newest attempt is the one that this process began at this moment."""
        columns = (Attempt.c.host, Attempt.c.boot, Attempt.c.pid, Attempt.c.process_started, Attempt.c.started_at)
        newest = (Attempt.c.run_id == life.run, Attempt.c.number == life.before.newest)
        row = life.connection.execute(select(*columns).where(*newest)).one()
        return tuple(row) == (process.host, process.boot, process.pid, process.started, began)

    @repeated
    def chain(self, run: str) -> int:
        """The number of the attempt with which the newest attempt's chain began: together they are one MLflow run."""
        newest = select(Attempt.c.chain).where(Attempt.c.run_id == run).order_by(Attempt.c.number.desc()).limit(1)
        with self.read() as connection:
            return connection.scalar(newest) or 1

    def _trial_goes_on(self, connection: Connection, run: str) -> None:
        of_run = select(Run.c.sweep_id, Run.c.trial).where(Run.c.id == run).subquery()
        connection.execute(
            update(Trial)
            .where(
                Trial.c.sweep_id == select(of_run.c.sweep_id).scalar_subquery(),
                Trial.c.number == select(of_run.c.trial).scalar_subquery(),
                Trial.c.state == RunState.QUEUED.value,
            )
            .values(state=RunState.RUNNING.value)
        )

    @repeated
    def beat(self, /, run: str, attempt: int, **facts: int) -> None:
        """Says that this attempt is alive; `facts` are columns that say how far it is (`step`, …). Raises
        `Outdated` when it may not write any more.
        """
        newest = select(func.max(Attempt.c.number)).where(Attempt.c.run_id == run).scalar_subquery()
        this = (Attempt.c.run_id == run, Attempt.c.number == attempt, Attempt.c.number == newest)
        with self.write() as connection:
            changed = connection.execute(
                update(Attempt)
                .where(*this, Attempt.c.state == RunState.RUNNING.value)
                .values(heartbeat_at=_now(), **facts)
            )
            if not changed.rowcount:
                raise Outdated(f"attempt {attempt} of run {run} was given up, or another has taken over")

    @repeated
    def set_mlflow_run(self, run: str, mlflow_run_id: str) -> None:
        with self.write() as connection:
            changed = connection.execute(update(Run).where(Run.c.id == run).values(mlflow_run_id=mlflow_run_id))
            _require(changed.rowcount, f"run {run}")

    @repeated
    def finish(
        self,
        run: str,
        attempt: int,
        state: RunState,
        *,
        reason: str | None = None,
        seconds: float | None = None,
        scores: Iterable[StoredScore] = (),
        scalars: Mapping[str, ScalarLike] | None = None,
        checkpoints: Iterable[StoredCheckpoint] = (),
        artifacts: Iterable[StoredArtifact] = (),
        verdicts: Iterable[StoredVerdict] = (),
    ) -> None:
        """Ends an attempt and its run: whatever was stored for the run before is replaced by what is given here.

        Raises `Failure` when a newer attempt has begun, or when this one already ended in another state.
        """
        with self._living(run) as life:
            after = life.before.end(attempt, RunState(state))
            if after == life.before and state == RunState.KILLED:
                return  # the last words of a process that was given up, or a replay
            life.save(after, reason=reason)
            life.connection.execute(
                update(Run)
                .where(Run.c.id == run)
                .values(
                    reason=_text(reason),
                    seconds=_finite(seconds),
                    finished_at=func.coalesce(Run.c.finished_at, _now()),
                )
            )
            _replace(life.connection, Score, run, [_score(score) for score in scores])
            _replace(life.connection, ScalarSummary, run, [_scalar(*item) for item in (scalars or {}).items()])
            _replace(life.connection, Verdict, run, [_verdict(verdict) for verdict in verdicts])
            for table, files in ((Checkpoint, checkpoints), (Artifact, artifacts)):
                rows = [vars(file) | {"path": self.recorded(file.path)} for file in files]
                _replace(life.connection, table, run, rows)

    @repeated
    def rejudge(
        self, run: str, verdicts: Iterable[StoredVerdict], files: Mapping[str, StoredArtifact | None] | None = None
    ) -> None:
        """Puts verdicts in the place of those of the run, and `files` in the place of those of their names (None: there
        is none now). What it was trained to stays as it is.
        """
        rows = [
            vars(file) | {"path": self.recorded(file.path), "run_id": run} for file in (files or {}).values() if file
        ]
        with self.write() as connection:
            _require(connection.scalar(select(func.count()).select_from(Run).where(Run.c.id == run)), f"run {run}")
            _replace(connection, Verdict, run, [_verdict(verdict) for verdict in verdicts])
            connection.execute(delete(Artifact).where(Artifact.c.run_id == run, Artifact.c.name.in_(files or ())))
            if rows:
                connection.execute(insert(Artifact), rows)

    @repeated
    def lose(self, run: str, state: RunState, reason: str, *, crashed: bool = False) -> tuple[int, RunState]:
        """Ends a run whose process is gone, in `state` (KILLED, or FAILED if it is not to be tried again). A run whose
        result was written down keeps it. Returns the number of the newest attempt (0 for none) and the run's state.

        `crashed` says that the process died of itself: nobody ended it, and no power was cut.
        """
        with self._living(run) as life:
            lost = life.before.lose(state)
            if crashed and life.before.attempts[-1:] == (RunState.RUNNING,):
                newest = (Attempt.c.run_id == run, Attempt.c.number == lost.newest)
                life.connection.execute(update(Attempt).where(*newest).values(crashed=True))
            if lost != life.before:
                life.save(lost, reason=reason)
                values = {"reason": _text(reason), "finished_at": _now()}
                life.connection.execute(update(Run).where(Run.c.id == run).values(values))
        return lost.newest, lost.state

    @repeated
    def crashes(self, run: str) -> int:
        """How often the run's process has crashed since it last made progress, which is a checkpoint stored, or since
        it was begun anew.
        """
        columns = (Attempt.c.state, Attempt.c.crashed, Attempt.c.from_step, Attempt.c.stored_step, Attempt.c.chain)
        wanted = select(*columns).where(Attempt.c.run_id == run).order_by(Attempt.c.number.desc())
        with self.read() as connection:
            attempts = connection.execute(wanted).all()
        count = 0
        for attempt in attempts:
            if attempt.state != RunState.KILLED or attempt.chain != attempts[0].chain:
                break
            count += bool(attempt.crashed)
            if (attempt.stored_step or 0) > (attempt.from_step or 0):
                break
        return count

    @contextmanager
    def _living(self, run: str) -> Iterator["_Living"]:
        """A transaction about one run, which nobody else can change meanwhile."""
        with self.write() as connection:
            state = connection.scalar(select(Run.c.state).where(Run.c.id == run).with_for_update())
            if state is None:
                raise Failure(f"the registry has no run {run}")
            rows = connection.execute(
                select(Attempt.c.state, Attempt.c.chain).where(Attempt.c.run_id == run).order_by(Attempt.c.number)
            ).all()
            before = Life(RunState(state), tuple(RunState(row.state) for row in rows))
            try:
                yield _Living(connection, run, before, rows[-1].chain if rows else None)
            except Failure as error:
                raise type(error)(f"run {run}: {error}") from None

    # ---- who runs a sweep

    def supervise(self, sweep: str, instead_of: Process | None = None) -> bool:
        """Records that this process runs the sweep from now on, `instead_of` one that is gone. False when another one
        was recorded meanwhile.
        """
        return self._supervise(sweep, instead_of, Process.this(), _now())

    @repeated
    def _supervise(self, sweep: str, instead_of: Process | None, process: Process, now: datetime) -> bool:
        with self.write() as connection:
            mine = (*_supervising(sweep, process), Supervisor.c.started_at == now)
            if connection.scalar(select(Supervisor.c.sweep_id).where(*mine)):
                return True  # the answer to its commit was lost
            if instead_of is not None:
                connection.execute(delete(Supervisor).where(*_supervising(sweep, instead_of)))
            made = _insert_new(
                connection,
                Supervisor,
                sweep_id=sweep,
                host=process.host,
                boot=process.boot,
                pid=process.pid,
                process_started=process.started,
                started_at=now,
                heartbeat_at=now,
            )
        return made

    @repeated
    def watch(self, sweep: str) -> str | None:
        """Says that this process still runs the sweep, and returns what somebody wants of it (`Supervisor.wanted`)."""
        mine = _supervising(sweep, Process.this())
        with self.write() as connection:
            connection.execute(update(Supervisor).where(*mine).values(heartbeat_at=_now()))
        return self.wanted(sweep)

    @repeated
    def wanted(self, sweep: str) -> str | None:
        """What somebody wants of the process that runs the sweep: "checkpoint", "finish", or nothing."""
        with self.read() as connection:
            return connection.scalar(select(Supervisor.c.wanted).where(Supervisor.c.sweep_id == sweep))

    @repeated
    def release(self, sweep: str, process: Process | None = None) -> None:
        """Records that the process, this one unless another is given, runs the sweep no more. One that has taken over
        meanwhile stays.
        """
        with self.write() as connection:
            connection.execute(delete(Supervisor).where(*_supervising(sweep, process or Process.this())))

    @repeated
    def want(self, sweep: str, what: str) -> bool:
        """Asks the process that runs the sweep to stop (`Supervisor.wanted`); False when none is recorded."""
        with self.write() as connection:
            asked = connection.execute(update(Supervisor).where(Supervisor.c.sweep_id == sweep).values(wanted=what))
        return bool(asked.rowcount)

    # ---- promoted models

    def promote(self, promotion: StoredPromotion) -> bool:
        """Records a version; False when it was recorded before. Raises `Failure` when its number stands for another."""
        return self._promote(promotion, _now())

    @repeated
    def _promote(self, promotion: StoredPromotion, now: datetime) -> bool:
        with self.write() as connection:
            this = (Promotion.c.model == promotion.model, Promotion.c.version == promotion.version)
            stored = connection.scalar(select(Promotion.c.digest).where(*this))
            if stored is not None and connection.scalar(select(Promotion.c.created_at).where(*this)) == now:
                return True  # the answer to its commit was lost
            if stored not in (None, promotion.digest):
                raise Failure(
                    f"version {promotion.version} of {promotion.model} is another model in this registry;"
                    " promote under another --name"
                )
            if stored is None:
                row = vars(promotion) | {"path": self.recorded(promotion.path), "created_at": now}
                connection.execute(insert(Promotion).values(row))
            elif promotion.reason is not None:  # what is forced again is forced for the new reason
                connection.execute(update(Promotion).where(*this).values(reason=promotion.reason))
        return stored is None

    def point(self, model: str, alias: str, version: int, by: str) -> int | None:
        """Points an alias at a version and returns the one it pointed at before. Where it points already, no event."""
        return self._point(model, alias, version, by, _now())

    @repeated
    def _point(self, model: str, alias: str, version: int, by: str, now: datetime) -> int | None:
        with self.write() as connection:
            # Not the event of this moment: it is this one's, and the answer to its commit was lost.
            newest = (
                select(AliasEvent.c.number, AliasEvent.c.version)
                .where(AliasEvent.c.model == model, AliasEvent.c.alias == alias, AliasEvent.c.at != now)
                .order_by(AliasEvent.c.number.desc())
                .limit(1)
            )
            row = connection.execute(newest).first()
            number, before = (0, None) if row is None else row
            if before != version:
                event = {"model": model, "alias": alias, "number": number + 1, "version": version}
                _insert_new(connection, AliasEvent, **event, at=now, by=by)
        return None if before is None else int(before)


# ---- values


def _now() -> datetime:
    return datetime.now(UTC)


def _finite(value: float | None) -> float | None:
    """NULL stands for every value that is not a number: JSON has no other word for them."""
    return float(value) if value is not None and math.isfinite(value) else None


def _text(reason: str | None) -> str | None:
    return None if reason is None else reason.replace("\x00", "")  # PostgreSQL takes no NUL


def _plain(value: Any) -> Any:
    """The value as it comes back from a JSON column, so that what was stored can be compared with what is given."""

    def clean(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(key): clean(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [clean(item) for item in value]
        return _finite(value) if isinstance(value, float) else value

    return json.loads(json.dumps(clean(value), allow_nan=False))


def _score(score: StoredScore) -> dict[str, Any]:
    numbers = {name: _finite(getattr(score, name)) for name in ("value", "low", "high", "floor", "floor_sd")}
    return vars(score) | numbers


def _verdict(verdict: StoredVerdict) -> dict[str, Any]:
    return vars(verdict) | {"evidence": _plain(verdict.evidence)}


def _scalar(name: str, scalar: ScalarLike) -> dict[str, Any]:
    return {
        "name": name,
        "last": _finite(scalar.last),
        "minimum": _finite(scalar.minimum),
        "maximum": _finite(scalar.maximum),
        "step": scalar.step,
    }


# ---- pieces of a transaction


@dataclass(frozen=True)
class _Living:
    """A run within a transaction: its life as it was found, and how to write down what becomes of it."""

    connection: Connection
    run: str
    before: Life
    chain: int | None

    def save(self, after: Life, *, reason: str | None) -> None:
        """The states of the run and of the attempts that there were; those that have ended now, ended for `reason`."""
        pairs = zip(self.before.attempts, after.attempts, strict=False)
        for number, (old, new) in enumerate(pairs, start=1):
            if old != new:
                ended = {"state": new.value, "reason": _text(reason), "ended_at": _now()}
                this = (Attempt.c.run_id == self.run, Attempt.c.number == number)
                self.connection.execute(update(Attempt).where(*this).values(ended))
        self.connection.execute(update(Run).where(Run.c.id == self.run).values(state=after.state.value))


def _supervising(sweep: str, process: Process) -> list[ColumnElement[bool]]:
    """The row that says that this process runs the sweep."""
    facts = {
        Supervisor.c.sweep_id: sweep,
        Supervisor.c.host: process.host,
        Supervisor.c.boot: process.boot,
        Supervisor.c.pid: process.pid,
        Supervisor.c.process_started: process.started,
    }
    return [column == value for column, value in facts.items()]


def _insert_new(connection: Connection, table: Table, **values: Any) -> bool:
    """Inserts a row unless one with its key is there, and says whether it did. Both databases say it alike, each in its
    own dialect.
    """
    dialect_insert: Callable[..., Any]
    if connection.dialect.name == "sqlite":
        from sqlalchemy.dialects.sqlite import insert as dialect_insert
    else:
        from sqlalchemy.dialects.postgresql import insert as dialect_insert
    done = connection.execute(dialect_insert(table).values(**values).on_conflict_do_nothing())
    return bool(done.rowcount)


def _replace(connection: Connection, table: Table, run: str, rows: list[dict[str, Any]]) -> None:
    connection.execute(delete(table).where(table.c.run_id == run))
    if rows:
        connection.execute(insert(table), [row | {"run_id": run} for row in rows])


def _require(found: object, what: str) -> None:
    if not found:
        raise Failure(f"the registry has no {what}")
