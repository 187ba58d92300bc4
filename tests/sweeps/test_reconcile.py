"""What a lost process costs its run: nothing that its user did, and what the kernel does three times over."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import WriterHere, supervisor
from sqlalchemy import update

from aigc_lab.commands import verify
from aigc_lab.commands.sweep import resume_sweep
from aigc_lab.errors import Failure, UsageError
from aigc_lab.executors.base import Place
from aigc_lab.host import processes
from aigc_lab.host.processes import Process
from aigc_lab.host.settings import Settings
from aigc_lab.registry import liveness
from aigc_lab.registry.run_lifecycle import RETRIES
from aigc_lab.registry.runs import show_run
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry
from aigc_lab.registry.tables import Attempt, Supervisor
from aigc_lab.sweeps import supervision
from aigc_lab.sweeps.reconcile import reconcile
from aigc_lab.sweeps.session import opened
from aigc_lab.tracking import writer

GONE = "1"  # when a process started that is no more: this one has its pid now


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry.open(f"sqlite:///{tmp_path / 'registry.db'}") as registry:
        yield registry


@pytest.fixture
def kills(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What the kernel counts now: its only item."""
    found = [7]
    monkeypatch.setattr(processes, "oom_kills", lambda: found[0])
    return found


class Lost:
    """A run whose process is lost again and again: the one that ran the sweep, or a worker of it."""

    def __init__(self, registry: Registry, home: Path) -> None:
        self.registry, self.settings = registry, Settings.load(home)
        self.sweep = registry.sweep("mine", "0123456789abcdef", {}, "fd", "lower")
        registry.trial(self.sweep, 0, "vae", {}, {})
        self.run = registry.run(self.sweep, 0, 0, "search")

    def lose(self, kills: list[int], more: int, *, stored: int = 0, **other: Any) -> list[str]:
        """An attempt during which the kernel ended `more` processes, in a process that is `other` than the sweep's.
        What is found then.
        """
        self.registry.supervise(self.sweep)
        attempt = self.registry.begin(self.run, {"oom_kills": kills[0]})
        if stored:
            self.registry.beat(self.run, attempt, stored_step=stored)
        worked = replace(Process.this(), started=GONE, **other)
        with self.registry.write() as connection:
            connection.execute(update(Supervisor).values(process_started=GONE))
            values = {"process_started": worked.started, "pid": worked.pid, "boot": worked.boot}
            connection.execute(update(Attempt).where(Attempt.c.number == attempt).values(values))
            if "boot" in other:
                connection.execute(update(Supervisor).values(boot=worked.boot))
        kills[0] += more
        assert reconcile(self.registry, self.settings, dry_run=True)
        found = [str(finding) for finding in reconcile(self.registry, self.settings)]
        assert not liveness.running(self.registry) and not liveness.supervisors(self.registry)
        return found

    @property
    def state(self) -> str:
        row = show_run(self.registry, self.run)
        return str(row["state"])


@pytest.fixture
def lost(registry: Registry, tmp_path: Path) -> Lost:
    return Lost(registry, tmp_path)


def test_a_run_that_eats_the_memory_of_its_sweep_fails_after_its_retries(lost: Lost, kills: list[int]) -> None:
    for _ in range(RETRIES):
        lost.lose(kills, 1)
        assert lost.state == RunState.KILLED
    found = lost.lose(kills, 1)
    reason = f"its process was lost while the machine was out of memory, {RETRIES + 1} times without progress"
    assert f"{lost.run}: {reason}: it has failed; --retry-failed tries it nevertheless" in found
    shown = show_run(lost.registry, lost.run)
    assert (shown["state"], shown["reason"]) == (RunState.FAILED, reason)
    # Told to try again, it has as many retries as before.
    for _ in range(RETRIES):
        lost.lose(kills, 1)
        assert lost.state == RunState.KILLED
    lost.lose(kills, 1)
    assert lost.state == RunState.FAILED


OTHERWISE: dict[str, tuple[int, dict[str, Any]]] = {
    "its user killed it": (0, {}),
    "a worker, whose supervisor died too": (1, {"pid": os.getpid() + 1}),
    "the machine was switched off": (1, {"boot": f"another-boot:{Process.this().boot.partition(':')[2]}"}),
    "it made progress": (1, {"stored": 5}),
}


@pytest.mark.parametrize("why", OTHERWISE)
def test_no_run_fails_for_what_else_may_happen(lost: Lost, kills: list[int], why: str) -> None:
    more, other = OTHERWISE[why]
    for attempt in range(1, RETRIES + 4):
        found = lost.lose(kills, more, **other)
        assert found[0] == f"{lost.run}: the process of attempt {attempt} was lost; the run can be resumed"
        assert lost.state == RunState.KILLED


def test_a_last_loss_of_another_kind_is_no_crash(lost: Lost, kills: list[int]) -> None:
    for _ in range(RETRIES):
        lost.lose(kills, 1)
    for _ in range(3):
        lost.lose(kills, 0)
        assert lost.state == RunState.KILLED
    lost.lose(kills, 1)
    assert lost.state == RunState.FAILED


def test_what_this_process_has_left_is_not_waited_for(lost: Lost, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a disk was full: the same process, a notebook, goes on with its sweep."""
    monkeypatch.setattr("aigc_lab.sweeps.reconcile.time.sleep", lambda _: pytest.fail("it waits for itself"))
    lost.registry.begin(lost.run, {})
    (found,) = reconcile(lost.registry, lost.settings)
    assert found.what == "the process of attempt 1 was lost; the run can be resumed"
    assert lost.state == RunState.KILLED


# ---- homes that share a registry


def test_a_sweep_that_another_process_runs_is_left_alone(
    lost: Lost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lock is not seen from another machine; until it dies, its row says that it runs."""
    monkeypatch.setattr("aigc_lab.sweeps.reconcile._GRACE", 0.0)
    monkeypatch.setenv("AIGC_LAB_REGISTRY_URL", lost.registry.url)
    registry, sweep, here = lost.registry, lost.sweep, Settings.load(tmp_path / "here")
    (here.artifacts / sweep).mkdir(parents=True)  # the files are here, as of a home that two machines share
    same: Any = SimpleNamespace(
        sweep=sweep,
        name="mine",
        code={},
        own_names=(),
        own_files=(),
        digest="0123456789abcdef",
        document=SimpleNamespace(data={}, file="mine.yaml"),
        file=SimpleNamespace(objective=SimpleNamespace(score="fd", better="lower")),
    )
    with supervisor(registry.url, sweep, lost.run) as there:
        assert reconcile(registry, here) == []
        refused = f"sweep {sweep} is being run by process {there.pid} on .* aigc-lab stop {sweep}"
        with pytest.raises(UsageError, match=refused):
            reconcile(registry, here, mine=sweep)
        with pytest.raises(UsageError, match=refused), supervision.supervised(registry, sweep):
            pass
        with pytest.raises(UsageError, match=refused), opened(same, here, registry, [Place("cpu", 1)], print):
            pass
        assert there.poll() is None
        known = liveness.running(registry) + liveness.supervisors(registry)
        assert [(row["alive"], row["pid"]) for row in known] == [(True, there.pid)] * 2
    with supervision.supervised(registry, sweep):
        (row,) = liveness.supervisors(registry)
        assert row["process"] == Process.this()
        found = [str(finding) for finding in reconcile(registry, here, mine=sweep)]
        assert found == [f"{lost.run}: the process of attempt 1 was lost; the run can be resumed"]
    assert lost.state == RunState.KILLED and not liveness.supervisors(registry)


def test_who_is_overtaken_between_looking_and_writing_is_refused(lost: Lost, monkeypatch: pytest.MonkeyPatch) -> None:
    other, look = replace(Process.this(), pid=1), supervision.refuse_supervised

    def overtaken(registry: Registry, sweep: str) -> Any:
        row = look(registry, sweep)
        with monkeypatch.context() as patch:
            patch.setattr(Process, "this", lambda: other)
            assert registry.supervise(sweep)
        return row

    monkeypatch.setattr(supervision, "refuse_supervised", overtaken)
    refused = pytest.raises(UsageError, match="was begun by another process at this moment")
    with refused, supervision.supervised(lost.registry, lost.sweep):
        pass
    (row,) = liveness.supervisors(lost.registry)
    assert row["process"] == other


# ---- a real sweep, whose process is ended within its only run

TEXT = """\
data: {name: ring, points: 2000}
system: {name: point_gan, hidden: 16, lr: 1e-3}
training: {steps: 20, batch_size: 32, log_every: 10, evaluate_every: 20, threads: 1}
evaluation: {name: points, samples: 400}
objective: {minimize: rkl}
"""
DIES = """
import os, signal, sys
sys.path.insert(0, sys.argv.pop(1))
from conftest import WriterHere
from aigc_lab.runs import rounds
from aigc_lab.tracking import writer
writer.Writer = WriterHere
rounds.train = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
from aigc_lab.cli import main
main()
"""


def test_a_sweep_whose_own_process_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once is enough here: the retries are counted above."""
    for name in list(os.environ):
        if name.startswith("AIGC_LAB_") or name == "MLFLOW_TRACKING_URI":
            monkeypatch.delenv(name)
    monkeypatch.setattr(writer, "Writer", WriterHere)
    monkeypatch.setattr("aigc_lab.registry.attempts.RETRIES", 0)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(TEXT)
    words = [str(Path(__file__).parents[1]), "sweep", "mine.yaml", "--home", "home", "--device", "cpu"]
    done = subprocess.run([sys.executable, "-c", DIES, *words], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    before = processes.oom_kills()
    monkeypatch.setattr(processes, "oom_kills", lambda: (before or 0) + 1)
    if before is None:
        pytest.skip("this kernel does not count")
    with pytest.raises(Failure, match="all 1 runs of mine-.* failed"):
        resume_sweep("mine", device="cpu", json=True, home=tmp_path / "home")
    with Registry.open(f"sqlite:///{tmp_path / 'home' / 'registry.db'}") as registry:
        shown = show_run(registry, "mine.0.0")
        assert (shown["state"], len(shown["attempts"])) == ("FAILED", 1)
        assert shown["reason"] == "its process was lost while the machine was out of memory, 1 times without progress"
        assert not verify.verify_sweeps(registry, Settings.load(tmp_path / "home")).problems
        resume_sweep("mine", device="cpu", json=True, retry_failed=True, home=tmp_path / "home")
        shown = show_run(registry, "mine.0.0")
        assert [attempt["state"] for attempt in shown["attempts"]] == ["KILLED", "FINISHED"]
        assert registry.chain(shown["run"]) == 2
        verified = verify.verify_sweeps(registry, Settings.load(tmp_path / "home"))
        assert not verified.problems and not verified.notes, str(verified)
