"""The queue in the registry, on SQLite and on PostgreSQL: any order of what supervisors and workers do, with workers
that are taken for lost and go on, and answers that are lost; and eight workers at once.
"""

import contextlib
import itertools
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from conftest import Postgres
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from registries import start, url_in
from sqlalchemy import select

from aigc_lab.errors import Failure
from aigc_lab.host import outage
from aigc_lab.registry import database, liveness
from aigc_lab.registry.run_lifecycle import Outdated
from aigc_lab.registry.run_queue import Claimed, Evaluated
from aigc_lab.registry.runs import list_runs, show_run
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry
from aigc_lab.registry.tables import QueuedRun, Worker

FINISHED, KILLED = RunState.FINISHED, RunState.KILLED
_number = itertools.count()


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return url_in(tmp_path)
    server: Postgres = request.getfixturevalue("postgres")
    return server.database()


@pytest.fixture
def registry(url: str) -> Iterator[Registry]:
    with Registry.open(url, connected=True) as opened:
        yield opened


def filled(registry: Registry, runs: int) -> tuple[str, list[str]]:
    """A new sweep with so many runs, none of them offered."""
    number = next(_number)
    sweep = registry.sweep(f"queue{number}", f"{number:08}", {}, "fd", "lower")
    made = []
    for trial in range(runs):
        registry.trial(sweep, trial, "vae", {"lr": trial}, {"lr": trial})
        made.append(registry.run(sweep, trial, 0, "search"))
    return sweep, made


# ---- any order of steps


@dataclass
class Hand:
    """A worker, and what it believes: a process that was taken for lost does not know it."""

    id: str
    claimed: Claimed | None = None
    attempt: int = 0
    done: bool = False
    lost: bool = False


@dataclass
class Place:
    """What must be so of a run."""

    state: str = "ENDED"
    claim: int = 0
    worker: str | None = None
    attempts: list[str] = field(default_factory=list)
    result: bool = False
    wanted: bool = False  # it was offered, and not withdrawn: somebody waits for it


class Lossy:
    """A registry whose next transactions are done and then told as lost."""

    def __init__(self, registry: Registry, patch: pytest.MonkeyPatch) -> None:
        self.left = 0
        original = registry.write

        @contextlib.contextmanager
        def write() -> Iterator[Any]:
            with original() as connection:
                yield connection
            if self.left:
                self.left -= 1
                raise database.ConnectionLost("the connection was lost after the commit")

        patch.setattr(registry, "write", write)
        patch.setattr(outage, "_FIRST", 0.0)


def machine(registry: Registry, lossy: Lossy) -> type[RuleBasedStateMachine]:
    """Three runs, and workers that come, do them, are taken for lost and go on all the same."""

    class Queue(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.sweep, self.runs = filled(registry, 3)
            self.places = {run: Place() for run in self.runs}
            self.line: list[str] = []  # those that wait, the first first
            self.hands: list[Hand] = []

        # ---- who asks

        @rule(run=st.integers(0, 2), lost=st.booleans())
        def offer(self, run: int, lost: bool) -> None:
            name, place = self.runs[run], self.places[self.runs[run]]
            lossy.left = lost
            registry.offer(name)
            if place.result:
                return
            place.wanted = True
            if place.state == "ENDED":
                place.state = "WAITING"
                self.line.append(name)

        @rule(lost=st.booleans())
        def withdraw(self, lost: bool) -> None:
            lossy.left = lost
            registry.withdraw(self.sweep)
            for name in self.line:
                place = self.places[name]
                place.state, place.claim, place.wanted = "ENDED", place.claim + 1, False
            self.line = []

        @precondition(lambda self: self.hands)
        @rule(which=st.integers(0, 9), lost=st.booleans())
        def give_up(self, which: int, lost: bool) -> None:
            """A worker is taken for lost, as the follower does it: with its claim; its row goes."""
            hand = self.hands[which % len(self.hands)]
            claims = [name for name, place in self.places.items() if place.worker == hand.id]
            for name in claims:
                place = self.places[name]
                lossy.left = lost
                found = registry.lose(name, "its worker was lost", claim=place.claim)
                if place.attempts[-1:] == ["RUNNING"]:
                    place.attempts[-1] = "KILLED"
                assert found.again == (not place.result)
                place.state, place.worker = "ENDED", None
                if found.again:
                    registry.offer(name)
                    place.state, place.wanted = "WAITING", True
                    self.line.append(name)
            registry.leave(hand.id)
            hand.lost = True

        # ---- who does it

        @precondition(lambda self: len(self.hands) < 4)
        @rule(lost=st.booleans())
        def join(self, lost: bool) -> None:
            lossy.left = lost
            self.hands.append(Hand(registry.join(self.sweep, "cpu")))

        @precondition(lambda self: self.hands)
        @rule(which=st.integers(0, 9), lost=st.booleans())
        def claim(self, which: int, lost: bool) -> None:
            hand = self.hands[which % len(self.hands)]
            if hand.claimed is not None:
                return
            lossy.left = lost and not hand.lost
            try:
                claimed = registry.claim(self.sweep, hand.id)
            except Outdated:
                assert hand.lost and self.line
                return
            if claimed is None:
                assert not self.line
                lossy.left = 0
                return
            assert not hand.lost and claimed.run == self.line.pop(0)  # who has waited longest
            place = self.places[claimed.run]
            place.state, place.claim, place.worker = "CLAIMED", place.claim + 1, hand.id
            assert (claimed.claim, claimed.values) == (place.claim, {"lr": claimed.trial})
            hand.claimed, hand.attempt, hand.done = claimed, 0, False

        @precondition(lambda self: any(hand.claimed for hand in self.hands))
        @rule(which=st.integers(0, 9), lost=st.booleans())
        def begin(self, which: int, lost: bool) -> None:
            hand, claimed, place = self._busy(which)
            if hand.attempt or hand.done:
                return
            lossy.left = lost and self._holds(hand)
            try:
                hand.attempt = registry.begin(claimed.run, {}, claim=claimed.claim)
            except Outdated:
                assert not self._holds(hand), "it holds the run, and may not begin it"
                hand.claimed = None
                return
            assert self._holds(hand), "a claim that is not in force began the run"
            place.attempts = ["KILLED" if state == "RUNNING" else state for state in place.attempts] + ["RUNNING"]
            assert hand.attempt == len(place.attempts)

        @precondition(lambda self: any(hand.claimed for hand in self.hands))
        @rule(which=st.integers(0, 9), state=st.sampled_from([FINISHED, FINISHED, KILLED]), lost=st.booleans())
        def finish(self, which: int, state: RunState, lost: bool) -> None:
            hand, claimed, place = self._busy(which)
            if not hand.attempt or hand.done:
                return
            mine = hand.attempt == len(place.attempts) and place.attempts[-1] == "RUNNING"
            lossy.left = lost and mine
            try:
                registry.finish(claimed.run, hand.attempt, state)
            except Outdated:
                assert not mine
            else:
                assert mine or state == KILLED
                if mine:
                    place.attempts[-1], place.result = state.value, state == FINISHED
            hand.done = True

        @precondition(lambda self: any(hand.claimed for hand in self.hands))
        @rule(which=st.integers(0, 9), lost=st.booleans())
        def end(self, which: int, lost: bool) -> None:
            hand, claimed, place = self._busy(which)
            if hand.attempt and not hand.done:
                return  # a worker ends its place when its attempt has ended
            holds, lossy.left = self._holds(hand), lost
            registry.end_place(claimed.run, claimed.claim)
            if holds:
                place.state, place.worker = "ENDED", None
                place.wanted = False  # whoever follows it is told, and offers it again if it has no result
            hand.claimed = None

        @precondition(lambda self: any(hand.claimed for hand in self.hands))
        @rule(which=st.integers(0, 9), step=st.integers(1, 2), stop=st.booleans(), lost=st.booleans())
        def evaluate(self, which: int, step: int, stop: bool, lost: bool) -> None:
            _, claimed, _ = self._busy(which)
            lossy.left = lost
            registry.evaluated(self.sweep, Evaluated(claimed.run, step, 0.5, float("nan"), None))
            before = registry.answered(claimed.run, step)
            asked = [(each.run, each.step) for each in registry.news(self.sweep, self.runs).evaluations]
            assert ((claimed.run, step) in asked) == (before is None)
            if before is None:
                registry.answer(claimed.run, step, stop=stop)
                assert registry.answered(claimed.run, step) is stop

        def _busy(self, which: int) -> tuple[Hand, Claimed, Place]:
            busy = [hand for hand in self.hands if hand.claimed]
            hand = busy[which % len(busy)]
            assert hand.claimed is not None
            return hand, hand.claimed, self.places[hand.claimed.run]

        def _holds(self, hand: Hand) -> bool:
            assert hand.claimed is not None
            place = self.places[hand.claimed.run]
            return (place.state, place.claim, place.worker) == ("CLAIMED", hand.claimed.claim, hand.id)

        # ---- what must be so

        @invariant()
        def the_registry_says_so(self) -> None:
            lossy.left = 0
            with registry.read() as connection:
                rows = connection.execute(select(QueuedRun).where(QueuedRun.c.sweep_id == self.sweep)).all()
                busy = connection.execute(select(Worker.c.id, Worker.c.run_id)).all()
            for row in rows:
                place = self.places[row.run_id]
                assert (row.state, row.claim, row.worker_id) == (place.state, place.claim, place.worker)
            held = Counter(place.worker for place in self.places.values() if place.worker)
            assert all(count == 1 for count in held.values()), "one worker holds two runs"
            doing = dict(map(tuple, busy))
            for name, place in self.places.items():
                assert place.worker is None or doing.get(place.worker) == name, "status says something else"
            news = registry.news(self.sweep, self.runs)
            assert {run: claim for run, (_, claim) in news.claimed.items()} == {
                run: place.claim for run, place in self.places.items() if place.state == "CLAIMED"
            }
            assert registry.waiting(self.sweep) == len(self.line)

        def teardown(self) -> None:
            """Whoever holds a run is given up, and a fresh worker does all that anybody waits for."""
            lossy.left = 0
            for which in range(len(self.hands)):
                self.give_up(which, False)
            worker = registry.join(self.sweep, "cpu")
            while (claimed := registry.claim(self.sweep, worker)) is not None:
                attempt = registry.begin(claimed.run, {}, claim=claimed.claim)
                registry.finish(claimed.run, attempt, FINISHED)
                registry.end_place(claimed.run, claimed.claim)
                self.places[claimed.run].result = True
            assert all(place.result for place in self.places.values() if place.wanted), "it waits for ever"

    return Queue


@pytest.fixture
def lossy(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lossy]:
    with outage.reported_to(lambda text: None):
        yield Lossy(registry, monkeypatch)


def explored(registry: Registry, lossy: Lossy, examples: int) -> None:
    run_state_machine_as_test(
        machine(registry, lossy),
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_no_order_of_steps_loses_a_run_or_gives_it_to_two(registry: Registry, lossy: Lossy) -> None:
    explored(registry, lossy, 12)


def test_a_worker_claims_several_runs_which_are_ended_one_by_one(registry: Registry, lossy: Lossy) -> None:
    sweep, runs = filled(registry, 4)
    for run in runs:
        registry.offer(run)
    mine, other = registry.join(sweep, "cpu"), registry.join(sweep, "cpu")
    first, theirs = registry.claim(sweep, mine), registry.claim(sweep, other)
    assert first is not None and theirs is not None
    assert registry.waiting_runs(sweep, 9) == [(runs[2], {"lr": 2}), (runs[3], {"lr": 3})]
    assert registry.waiting_runs(sweep, 1) == [(runs[2], {"lr": 2})]
    lossy.left = 1  # the answer is lost once, and the claims are the same
    also = registry.claim_also(mine, [runs[1], runs[2], runs[3]])
    assert [(each.run, each.trial, each.claim) for each in also] == [(runs[2], 2, 1), (runs[3], 3, 1)]
    assert not registry.waiting(sweep)

    def doing() -> Any:
        with registry.read() as connection:
            return connection.scalar(select(Worker.c.run_id).where(Worker.c.id == mine))

    assert doing() == first.run
    registry.beat_worker(mine, {"at": 1.0, "of": {}})
    registry.end_place(first.run, first.claim)
    assert doing() == runs[2], "it does others still"
    registry.end_place(also[1].run, also[1].claim)
    registry.end_place(also[0].run, also[0].claim)
    assert doing() is None
    registry.offer(runs[3])
    registry.leave(mine)
    with pytest.raises(Outdated, match="taken for lost"):
        registry.claim_also(mine, [runs[3]])


@pytest.mark.slow
def test_many_orders_of_steps(registry: Registry, lossy: Lossy) -> None:
    explored(registry, lossy, 300)


# ---- what was met


def test_who_was_taken_for_lost_cannot_begin_though_nobody_has_claimed_since(registry: Registry) -> None:
    sweep, (run,) = filled(registry, 1)
    worker = registry.join(sweep, "cpu")
    registry.offer(run)
    claimed = registry.claim(sweep, worker)
    assert claimed is not None
    registry.lose(run, "its worker was lost", claim=claimed.claim)
    registry.offer(run)
    with pytest.raises(Outdated, match="claim 1 is outdated: none is in force"):
        registry.begin(run, {}, claim=claimed.claim)
    assert registry.waiting(sweep) == 1


def test_a_run_with_a_result_is_not_offered(registry: Registry) -> None:
    """Its worker wrote the result down and was taken for lost: nobody is to meet that in beginning it."""
    sweep, (run,) = filled(registry, 1)
    registry.finish(run, registry.begin(run, {}), FINISHED)
    registry.offer(run)
    assert registry.waiting(sweep) == 0
    assert registry.news(sweep, [run]).ended == {run: 0}


def test_claims_of_a_worker_that_is_gone_are_undone(registry: Registry) -> None:
    sweep, (run,) = filled(registry, 1)
    registry.offer(run)
    with pytest.raises(Outdated, match="taken for lost"):
        registry.claim(sweep, "nobody")
    with registry.read() as connection:
        assert connection.execute(select(QueuedRun.c.state, QueuedRun.c.claim)).one() == ("WAITING", 0)
    with pytest.raises(Failure, match="no run r"):
        registry.offer("r")


# ---- eight workers at once

# So many processes that claim, begin, finish and end until nothing waits; each says how many runs it did. With "again",
# one that ends or dies is followed by another until the input ends. They are forked: importing takes a second each.
_CREW = """
import os, signal, sys, threading, time
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry
url, sweep, count, again = sys.argv[1:]

def work():
    done = 0
    with Registry.open(url, create=False, connected=True) as registry:
        worker = registry.join(sweep, "cpu")
        while (claimed := registry.claim(sweep, worker)) is not None:
            attempt = registry.begin(claimed.run, {}, claim=claimed.claim)
            time.sleep(0.2 if again else 0)  # so that whoever looks for workers to kill finds them at work
            registry.finish(claimed.run, attempt, RunState.FINISHED)
            registry.end_place(claimed.run, claimed.claim)
            done += 1
        registry.leave(worker)
    os.write(1, f"{done}\\n".encode())

def fork():
    pid = os.fork()
    if not pid:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return pid

def end():
    sys.stdin.read()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    os._exit(0)

pids = [fork() for _ in range(int(count))]
if again:
    threading.Thread(target=end, daemon=True).start()
while pids:
    pid, status = os.wait()
    pids.remove(pid)
    assert again or not status
    if again:
        pids.append(fork())
"""


def all_done_once(registry: Registry, url: str, runs: int) -> None:
    sweep, made = filled(registry, runs)
    for run in made:
        registry.offer(run)
    crew = start(_CREW, url, sweep, 8, "")
    output, errors = crew.communicate(timeout=600)
    counts = [int(line) for line in output.split()]
    assert crew.returncode == 0 and len(counts) == 8, errors
    assert sum(counts) == runs
    shown = list_runs(registry, sweep)
    assert len(shown) == runs and {row["state"] for row in shown} == {"FINISHED"}
    with registry.read() as connection:
        claims = connection.execute(select(QueuedRun.c.state, QueuedRun.c.claim)).all()
    assert Counter(map(tuple, claims)) == {("ENDED", 1): runs}
    assert {len(show_run(registry, run)["attempts"]) for run in made[::20]} == {1}


def test_eight_workers_do_two_hundred_runs_each_once(registry: Registry, url: str) -> None:
    all_done_once(registry, url, 200)


@pytest.mark.slow
def test_eight_workers_do_two_hundred_runs_each(registry: Registry, url: str) -> None:
    all_done_once(registry, url, 1600)


def test_workers_that_die_at_any_moment_hold_nothing_up(registry: Registry, url: str) -> None:
    """Processes are killed and started again while they do runs; whoever is gone is given up, as the follower does."""
    sweep, runs = filled(registry, 30)
    for run in runs:
        registry.offer(run)
    crew = start(_CREW, url, sweep, 2, "again")
    left, killed, until = set(runs), set[str](), time.monotonic() + 100
    try:
        while left and time.monotonic() < until:
            rows = {row["worker"]: row for row in liveness.workers(registry, sweep)}
            news = registry.news(sweep, left)
            for run, (worker, claim) in news.claimed.items():
                row = rows.get(worker)
                if row is None:
                    continue  # it has joined since
                if not row["alive"]:
                    registry.lose(run, "its worker was lost", claim=claim)
                    registry.offer(run)
                elif len(killed) < 5 and len(left) <= 30 - 4 * len(killed):
                    row["process"].signal(9)
                    killed.add(worker)
            for worker, row in rows.items():
                if not row["alive"]:
                    registry.leave(worker)
            left -= {run for run in news.ended if show_run(registry, run)["state"] == "FINISHED"}
            time.sleep(0.02)
    finally:
        crew.communicate(timeout=60)
    assert not left and len(killed) >= 3
