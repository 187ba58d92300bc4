"""The life of a run, by all ways through it: the rules alone, and the registry under processes that crash anywhere."""

import itertools
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import select

from aigc_lab.errors import Failure, UsageError
from aigc_lab.registry import audit, liveness
from aigc_lab.registry.records import StoredScore
from aigc_lab.registry.run_lifecycle import RESULTS, RETRIES, Life, Outdated
from aigc_lab.registry.runs import show_run
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry
from aigc_lab.registry.tables import Attempt

RUNNING, KILLED, FAILED, FINISHED = RunState.RUNNING, RunState.KILLED, RunState.FAILED, RunState.FINISHED
ENDS = (FINISHED, RunState.PRUNED, RunState.DIVERGED, FAILED, KILLED)
MOST = 3  # attempts of a run, in the small model

Step = Callable[[Life], Life]


def steps(life: Life) -> Iterator[tuple[str, Step]]:
    """All that anybody may try, the newest attempt, an older one, and one that never was."""
    if life.newest < MOST:
        yield "begin", Life.begin
    for attempt, state in itertools.product(range(MOST + 1), ENDS):
        yield f"end {attempt} {state}", partial(Life.end, attempt=attempt, state=state)
    for state in (KILLED, FAILED):
        yield f"lose {state}", partial(Life.lose, state=state)


def lives_reached() -> Iterator[tuple[Life, str, Life | Failure]]:
    """Every step from every life that any order of steps leads to, and what comes of it."""
    seen, left = {Life()}, deque([Life()])
    while left:
        life = left.popleft()
        for name, step in steps(life):
            try:
                after: Life | Failure = step(life)
            except Failure as error:
                after = error
            yield life, name, after
            if isinstance(after, Life) and after not in seen:
                seen.add(after)
                left.append(after)


def test_no_order_of_steps_breaks_a_rule() -> None:
    counted = Counter[str]()
    for life, name, after in lives_reached():
        word, said = name.partition(" ")[::2], f"{name} of {life}"
        counted[word[0]] += 1
        if isinstance(after, Failure):
            assert word[0] != "lose", said
            assert (word[0] == "begin") == (type(after) is Failure), said  # an end is refused to who is outdated
            continue
        assert all(state != RUNNING for state in after.attempts[:-1]), said
        assert (after.state == RUNNING) == (after.attempts[-1:] == (RUNNING,)), said
        assert after.newest == life.newest + (word[0] == "begin"), said
        if after.attempts and after.state != after.attempts[-1]:
            assert (after.state, after.attempts[-1]) == (FAILED, KILLED), said  # lost too often
        if life.state in RESULTS:
            assert after == life, said
        # What has ended keeps how.
        assert all(old in (RUNNING, new) for old, new in zip(life.attempts, after.attempts, strict=False)), said
        assert [after.writable(number) for number in range(MOST + 2)] == [
            number == after.newest > 0 and after.state == RUNNING for number in range(MOST + 2)
        ], said
    assert min(counted.values()) > 20 and sum(counted.values()) > 1000


def test_a_replayed_step_changes_nothing() -> None:
    for life, name, after in lives_reached():
        if isinstance(after, Life) and name != "begin":
            again = dict(steps(after))[name]
            assert again(after) == after, f"{name} of {life}"


def test_a_late_echo_of_an_end_changes_nothing() -> None:
    """The process said that it was KILLED; the run was then given up altogether, and the process says it once more."""
    given_up = Life().begin().end(1, KILLED).lose(FAILED)
    assert given_up.end(1, KILLED) == given_up == Life(FAILED, (KILLED,))


def test_who_may_begin_again() -> None:
    for state in ENDS:
        ended = Life().begin().end(1, state)
        if state in RESULTS:
            with pytest.raises(Failure, match=f"already ended as {state}; its result is kept"):
                ended.begin()
        else:
            assert ended.begin() == Life(RUNNING, (state, RUNNING))
    assert Life().begin().begin() == Life(RUNNING, (KILLED, RUNNING))


# ---- the registry, and processes that die at any step, go on when nobody expects it, or do a step twice

TRIALS, STEPS = 2, 3
_number = itertools.count()


@dataclass
class World:
    """What is outside of the registry, and survives a crash: Optuna, MLflow, checkpoints."""

    asked: dict[int, float] = field(default_factory=dict)
    tells: list[tuple[int, float]] = field(default_factory=list)
    shown: dict[str, str] = field(default_factory=dict)  # key of an MLflow run -> status
    checkpoints: dict[str, int] = field(default_factory=dict)  # run -> step
    results: dict[str, float] = field(default_factory=dict)  # run -> the score that was the first to be stored
    crashes: Counter[str] = field(default_factory=Counter)  # run -> since its last checkpoint, or its last failure
    given_up: set[tuple[str, int]] = field(default_factory=set)  # run, attempt: crashed once too often


class Worker:
    """A process that does a run: a program of small steps, of which each may be the last, or be done twice."""

    def __init__(self, registry: Registry, sweep: str, world: World, trial: int) -> None:
        self.registry, self.world, self.sweep, self.trial = registry, world, sweep, trial
        self.run, self.attempt, self.step, self.began, self.dead = f"{sweep}.{trial}.0", 0, 0, 0, False
        train = [self.train, self.store] * STEPS
        self.program = [self.ask, self.begin, self.show, *train, self.result, self.terminated, self.tell]
        self.done = 0

    def advance(self) -> None:
        """The next step. One who is outdated meets that in it, and ends."""
        try:
            self.program[self.done]()
        except Failure:
            self.dead = True
        self.done += 1
        self.dead |= self.done == len(self.program)

    def replay(self) -> None:
        """The last step once more, as by a process that was not told that it had worked."""
        if self.done and self.program[self.done - 1] != self.begin:
            self.done -= 1
            self.step -= self.program[self.done] == self.train
            self.advance()

    def ask(self) -> None:
        value = self.world.asked.setdefault(self.trial, 0.5 + self.trial)
        self.registry.trial(self.sweep, self.trial, "vae", {"beta": value}, {"beta": value})
        self.registry.run(self.sweep, self.trial, 0, "search")

    def begin(self) -> None:
        self.attempt = self.registry.begin(self.run, {})
        if (self.run, self.attempt - 1) in self.world.given_up:
            self.world.crashes[self.run] = 0
        self.step = self.began = self.world.checkpoints.get(self.run, 0)
        self.registry.beat(self.run, self.attempt, from_step=self.step)

    def show(self) -> None:
        self.registry.beat(self.run, self.attempt)
        self.world.shown[f"{self.run}.{self.registry.chain(self.run)}"] = "RUNNING"

    def train(self) -> None:
        self.step += self.step < STEPS
        self.registry.beat(self.run, self.attempt, step=self.step)

    def store(self) -> None:
        self.registry.beat(self.run, self.attempt, stored_step=self.step)
        self.world.checkpoints[self.run] = self.step
        if self.step > self.began:
            self.world.crashes[self.run] = 0

    def result(self) -> None:
        # Each attempt would find another score, were it not that only one is ever stored.
        value = float(self.attempt)
        self.registry.finish(self.run, self.attempt, FINISHED, scores=scores(value))
        self.world.results.setdefault(self.run, value)

    def terminated(self) -> None:
        self.world.shown[f"{self.run}.{self.registry.chain(self.run)}"] = "FINISHED"

    def tell(self) -> None:
        value = self.world.results[self.run]
        self.registry.finish_trial(self.sweep, self.trial, FINISHED, value)
        if self.trial not in dict(self.world.tells):  # Optuna's skip_if_finished
            self.world.tells.append((self.trial, value))


def scores(value: float) -> list[StoredScore]:
    kinds = itertools.product(("last", "selected"), ("reference", "holdout"))
    fixed: dict[str, Any] = {"low": None, "high": None, "n": 10, "floor": None, "signature": "fd|n:10"}
    return [
        StoredScore("fd", value, **fixed, better="lower", checkpoint=kind, step=STEPS, split=split)  # type: ignore[arg-type]
        for kind, split in kinds
    ]


class Lab(RuleBasedStateMachine):
    """One sweep, the processes that work on it, and those that were given up and go on all the same."""

    registry: Registry

    def __init__(self) -> None:
        super().__init__()
        digest = f"{next(_number):08x}".ljust(16, "0")
        self.sweep = self.registry.sweep("life", digest, {}, "fd", "lower")
        self.world = World()
        self.workers: dict[int, Worker] = {}
        self.zombies: list[Worker] = []

    # ---- what may happen

    @rule(trial=st.integers(0, TRIALS - 1))
    def start(self, trial: int) -> None:
        """Somebody does the run, as a sweep does that begins or is resumed. Who did it before is a zombie at most."""
        before = self.workers.pop(trial, None)
        if before is not None and not before.dead:
            self.zombies.append(before)
        worker = Worker(self.registry, self.sweep, self.world, trial)
        if worker.run in self.world.results:
            worker.done = worker.program.index(worker.terminated)  # its result is there; only what follows is done
        self.workers[trial] = worker

    @rule(trial=st.integers(0, TRIALS - 1), count=st.integers(1, 8))
    def advance(self, trial: int, count: int) -> None:
        for _ in range(count):
            worker = self.workers.get(trial)
            if worker is not None and not worker.dead:
                worker.advance()

    @rule(trial=st.integers(0, TRIALS - 1))
    def replay(self, trial: int) -> None:
        worker = self.workers.get(trial)
        if worker is not None and not worker.dead:
            worker.replay()

    @precondition(lambda self: self.zombies)
    @rule(data=st.data())
    def zombie(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(self.zombies))
        writable = self.newest(worker.run) == (worker.attempt, RUNNING)
        before = self.stored(worker.run)
        begins = worker.program[worker.done] in (worker.ask, worker.begin)
        worker.advance()
        if not writable and not begins:
            assert self.stored(worker.run) == before
        if worker.dead:
            self.zombies.remove(worker)

    @rule(trial=st.integers(0, TRIALS - 1))
    def crash(self, trial: int) -> None:
        """The process dies, and whoever started it notices."""
        worker = self.workers.pop(trial, None)
        if worker is not None and worker.attempt and not worker.dead:
            ran = self.newest(worker.run)[1] == RUNNING
            self.world.crashes[worker.run] += ran
            lost = self.registry.lose(worker.run, "it crashed", crashed=True)
            assert (lost.attempt, lost.state) == self.newest(worker.run) and lost.state != RUNNING
            if ran:
                assert lost.again == (self.world.crashes[worker.run] <= RETRIES)
                if not lost.again:
                    assert (lost.state, lost.reason) == (FAILED, f"it crashed, {RETRIES + 1} times without progress")
                    self.world.given_up.add((worker.run, lost.attempt))
                    self.world.checkpoints.pop(worker.run, None)  # collected

    @rule(trial=st.integers(0, TRIALS - 1))
    def power_cut(self, trial: int) -> None:
        """The process dies, and whoever started it with it: nobody writes anything down."""
        self.workers.pop(trial, None)

    @rule(trial=st.integers(0, TRIALS - 1))
    def give_up(self, trial: int) -> None:
        """The process is alive and taken for dead."""
        worker = self.workers.pop(trial, None)
        if worker is not None and worker.attempt and not worker.dead:
            self.registry.lose(worker.run, "it was lost")
            self.zombies.append(worker)

    @rule(trial=st.integers(0, TRIALS - 1))
    def fail(self, trial: int) -> None:
        """The training raises."""
        worker = self.workers.pop(trial, None)
        if worker is not None and worker.attempt and not worker.dead and worker.run not in self.world.results:
            try:
                self.registry.finish(worker.run, worker.attempt, FAILED, reason="out of luck")
            except Outdated:
                return
            self.world.crashes[worker.run] = 0
            self.world.checkpoints.pop(worker.run, None)  # collected

    @rule()
    def reconcile(self) -> None:
        """Twice: the second time finds nothing."""
        for _ in range(2):
            at_work = {worker.run for worker in self.workers.values() if not worker.dead}
            lost = [row["run"] for row in liveness.running(self.registry, self.sweep) if row["run"] not in at_work]
            for run in lost:
                self.registry.lose(run, "its process was lost")
            for key, status in self.world.shown.items():
                run = key.rpartition(".")[0]
                state = self.newest(run)[1]
                if status == "RUNNING" and state != RUNNING:
                    self.world.shown[key] = state.value
        assert not lost

    # ---- what always holds

    def newest(self, run: str) -> tuple[int, RunState]:
        row = liveness.ended(self.registry, run)
        return (0, RunState.QUEUED) if row is None else (row["attempt"] or 0, RunState(row["state"]))

    def stored(self, run: str) -> Any:
        try:
            page = show_run(self.registry, run)
        except UsageError:
            return None
        return page["state"], page["reason"], page["scores"], page["attempts"]

    def rows(self) -> dict[str, list[Any]]:
        columns = (Attempt.c.run_id, Attempt.c.number, Attempt.c.state, Attempt.c.chain)
        wanted = select(*columns).where(Attempt.c.run_id.startswith(f"{self.sweep}.")).order_by(*columns[:2])
        with self.registry.read() as connection:
            rows = connection.execute(wanted).all()
        return {run: list(found) for run, found in itertools.groupby(rows, lambda row: row.run_id)}

    @invariant()
    def attempts_are_in_order(self) -> None:
        of = {result.run: result for result in audit.results(self.registry, self.sweep)}
        for run, rows in self.rows().items():
            assert [row.number for row in rows] == list(range(1, len(rows) + 1))
            assert all(row.state != RUNNING for row in rows[:-1])
            assert (of[run].state == RUNNING) == (rows[-1].state == RUNNING)
            assert rows[0].chain == 1
            for before, after in itertools.pairwise(rows):
                goes_on = before.state == KILLED and (run, before.number) not in self.world.given_up
                assert after.chain == (before.chain if goes_on else after.number)
            if rows[-1].state == KILLED:
                assert self.registry.crashes(run) == self.world.crashes[run]

    @invariant()
    def a_result_is_whole_and_stays(self) -> None:
        for result in audit.results(self.registry, self.sweep):
            assert (result.state in RESULTS) == (result.run in self.world.results)
            assert result.value == self.world.results.get(result.run)
            assert len(result.scored) == (4 if result.state in RESULTS else 0)

    @invariant()
    def who_is_outdated_may_not_write(self) -> None:
        for worker in self.zombies:
            if worker.attempt and self.newest(worker.run) != (worker.attempt, RUNNING):
                with pytest.raises(Outdated):
                    self.registry.beat(worker.run, worker.attempt)
                if self.newest(worker.run)[0] != worker.attempt:
                    with pytest.raises(Outdated):
                        self.registry.finish(worker.run, worker.attempt, FINISHED)

    def teardown(self) -> None:
        """The same command until it has nothing left to do: then nothing is lost, and nothing was done twice."""
        for trial in range(TRIALS):
            self.start(trial)
            while not self.workers[trial].dead:
                self.workers[trial].advance()
        for worker in self.zombies:
            while not worker.dead:
                worker.advance()
        self.reconcile()
        self.attempts_are_in_order()
        self.a_result_is_whole_and_stays()
        found = audit.results(self.registry, self.sweep)
        assert [result.trial for result in found] == list(range(TRIALS))
        assert sorted(self.world.tells) == [(result.trial, result.value) for result in found]
        assert audit.trials(self.registry, self.sweep) == {result.trial: (FINISHED, result.value) for result in found}
        for result in found:
            assert result.state == FINISHED
            chains = {row.chain for row in self.rows()[result.run]}
            shown = {key: status for key, status in self.world.shown.items() if key.startswith(f"{result.run}.")}
            assert shown.pop(f"{result.run}.{result.chain}") == "FINISHED"
            assert {int(key.rpartition(".")[2]) for key in shown} <= chains
        super().teardown()


def test_the_registry_under_processes_that_die_anywhere(tmp_path: Path) -> None:
    with Registry.open(f"sqlite:///{tmp_path / 'registry.db'}") as registry:
        machine = type("Lab", (Lab,), {"registry": registry})
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=12,
                stateful_step_count=40,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                phases=(Phase.generate,),  # shrinking would take minutes: each step is a transaction or several
                database=None,
            ),
        )
