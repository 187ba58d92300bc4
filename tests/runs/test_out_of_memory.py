"""Out of memory on a GPU that runs share: fewer share it from then on, and the run goes on from its checkpoint.

There is no GPU here: workers meet a fake end of memory on a CPU that is taken for one.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch

from aigc_lab.commands import sweep
from aigc_lab.errors import Failure
from aigc_lab.executors import local
from aigc_lab.executors.base import Place
from aigc_lab.host.settings import Settings
from aigc_lab.registry import liveness
from aigc_lab.registry.runs import list_runs, show_run
from aigc_lab.registry.store import Registry
from aigc_lab.runs.faults import out_of_memory, reason_of
from aigc_lab.sweeps.estimate import Estimate
from aigc_lab.tracking import writer

# A system that meets the end of memory in the middle of a step: in one worker once, or everywhere, always.
SPY = """
import sys
from pathlib import Path
import torch
from aigc_lab.systems import point_gan

HERE, calls = Path(__file__).parent, [0]

class Spy(point_gan.PointGAN):
    uncapturable = "it counts its calls"

    def phases(self, batch_size):
        *others, last = super().phases(batch_size)

        def loss(*given):
            calls[0] += 1
            if calls[0] >= 15 and self.full():
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\\nmore")
            return last.loss(*given)

        return [*others, last._replace(loss=loss)]

    def full(self):
        if (HERE / "always").exists():
            return True
        if "aigc_lab.runs.worker" not in " ".join(sys.orig_argv):
            return False
        try:
            (HERE / "met").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True
"""
TEXT = """\
data: {name: ring, points: 2000}
system: {name: ./spy.py, hidden: 16, lr: {log: [1.0e-4, 1.0e-2]}}
training: {steps: 20, batch_size: 32, log_every: 10, evaluate_every: 10, threads: 1, checkpoint_seconds: 0}
evaluation: {name: points, samples: 400}
objective: {minimize: rkl}
search: {trials: 2, sampler: random}
"""
SAID = "out of memory: CUDA out of memory. Tried to allocate 2.00 GiB."


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine.yaml").write_text(TEXT)
    (tmp_path / "spy.py").write_text(f"{SPY}\n# {tmp_path}\n")
    monkeypatch.setattr(local, "gpus", SimpleNamespace(is_gpu=lambda device: True, alone=lambda device: ({}, device)))
    monkeypatch.setattr(sweep, "estimate", lambda *_: Estimate(2, 2, 1.0, {"spy": 1.0}))
    monkeypatch.setattr(writer, "Writer", lambda *_: mock.Mock(finish=lambda *_: None))
    return tmp_path


def done(folder: Path, home: str, workers: int) -> dict[str, Any]:
    """What is known of each run of the sweep, which may end in failure."""
    with suppress(Failure):
        sweep.sweep_experiment(
            str(folder / "mine.yaml"), [], device="cpu", workers=workers, json=True, home=folder / home
        )
    with Registry.open(f"sqlite:///{folder / home / 'registry.db'}") as registry:
        runs = [run["run"] for run in list_runs(registry)]
        return {run.partition(".")[2]: show_run(registry, run) for run in runs}


def last(run: dict[str, Any]) -> str:
    return next(str(file["sha256"]) for file in run["checkpoints"] if file["kind"] == "last")


@pytest.mark.slow
def test_it_goes_on_from_its_checkpoint_to_the_same_bits(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = done(folder, "full", 2)
    attempts = sorted([attempt["state"] for attempt in run["attempts"]] for run in runs.values())
    assert attempts == [["FINISHED"], ["KILLED", "FINISHED"]]
    (again,) = [run for run in runs.values() if len(run["attempts"]) == 2]
    assert again["attempts"][1]["from_step"] == 10  # not from the middle of a step, nor from the beginning
    said = " ".join(capsys.readouterr().err.split())
    assert "cpu: 1 run at once from now on, and not 2" in said and f"{SAID}; it is tried again" in said
    # Beside the fake, nothing has changed: alone, with nothing of it, the same bits.
    alone = done(folder, "alone", 1)
    assert {key: last(run) for key, run in runs.items()} == {key: last(run) for key, run in alone.items()}


def test_alone_it_fails_and_says_what_to_change(folder: Path) -> None:
    (folder / "always").touch()
    runs = done(folder, "home", 1)
    reason = f"{SAID}; set training.batch_size to less than 32"
    assert {(run["state"], run["reason"]) for run in runs.values()} == {("FAILED", reason)}
    assert {len(run["attempts"]) for run in runs.values()} == {1}


# ---- whom it concerns


class Child:
    """In the place of a worker's process: its worker has joined, and does a run if it is told to."""

    gone = False

    def __init__(self, home: Path, sweep: str, place: Place, log: Path, count: int) -> None:
        self.place, self.pid, self.pids, self.open = place, id(self), {id(self)}, True
        self.worker: str | None = None
        self.run: str | None = None
        self.seen, self.shares = count, count > 1

    def row(self, **more: Any) -> dict[str, Any]:
        process = SimpleNamespace(here=True, pid=self.pid)
        return {"process": process, "worker": self.worker, "error": None, "host": "here", "ready": True} | more

    def see(self, row: dict[str, Any], count: int) -> None: ...


class Shared:
    """Places on one device, with a worker each, of which some do runs."""

    def __init__(self, registry: Registry, home: Path, count: int, busy: int) -> None:
        self.registry, self.said = registry, list[str]()
        experiment: Any = SimpleNamespace(sweep=registry.sweep("mine", "0123456789abcdef", {}, "fd", "lower"))
        places = [Place("cuda:0", 1)] * count
        self.executor = local.Local(experiment, places, Settings.load(home), self.said.append)
        resources: Any = SimpleNamespace(registry=registry, replicas={})
        self.executor._resources = resources
        self.children: list[Any] = self.executor._children
        for i, child in enumerate(self.children):
            child.worker = registry.join(experiment.sweep, "cuda:0", child=True, shares=count > 1)
            child.run = f"run {i}" if i < busy else None

    def full(self, at: int) -> None:
        child = self.children[at]
        self.executor.erred(child.row(error={"kind": "Crowded", "text": SAID}))

    def rows(self) -> list[tuple[str | None, bool]]:
        """What is wanted of each worker, and whether it shares the GPU."""
        rows = {row["worker"]: row for row in liveness.workers(self.registry)}
        return [(rows[child.worker]["wanted"], rows[child.worker]["shares"]) for child in self.children]

    def open(self) -> list[bool]:
        return [child.open for child in self.children]


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, int], Shared]]:
    monkeypatch.setattr(local, "_Child", Child)
    with Registry.open(f"sqlite:///{tmp_path / 'registry.db'}") as registry:
        yield lambda count, busy: Shared(registry, tmp_path, count, busy)


def test_the_larger_half_leaves_and_those_that_do_nothing_first(shared: Callable[[int, int], Shared]) -> None:
    device = shared(5, 3)
    device.full(1)  # of those that are busy 0 and 2 stay
    assert device.open() == [True, False, True, False, False]
    assert device.rows() == [(None, True), (None, True), (None, True), ("leave", True), ("leave", True)]
    assert device.said == ["cuda:0: 2 runs at once from now on, and not 5"]
    assert device.executor.slots_for([child.row() for child in device.children]) == 2


def test_several_that_meet_the_same_end_halve_it_once(shared: Callable[[int, int], Shared]) -> None:
    device = shared(4, 4)
    device.full(3)
    device.full(0)  # it began when four were open
    assert device.open().count(True) == 2 and len(device.said) == 1
    stays = device.open().index(True)
    device.children[stays].seen = 2
    device.full(stays)
    assert device.open().count(True) == 1 and device.said[1] == "cuda:0: 1 run at once from now on, and not 2"


def test_one_that_is_alone_shares_no_more_and_stays(shared: Callable[[int, int], Shared]) -> None:
    device = shared(2, 1)
    device.full(0)
    assert device.open() == [False, True] and device.rows()[1] == (None, False)
    device.full(1)  # its run had begun before
    assert device.open() == [False, True] and len(device.said) == 1


def test_a_run_is_told_whether_others_share_its_gpu(tmp_path: Path) -> None:
    with Registry.open(f"sqlite:///{tmp_path / 'registry.db'}") as registry:
        sweep_id = registry.sweep("mine", "0123456789abcdef", {}, "fd", "lower")
        registry.trial(sweep_id, 0, "vae", {}, {})
        worker = registry.join(sweep_id, "cuda:0", shares=True)
        for seed, crowded in ((0, True), (1, False)):
            registry.offer(registry.run(sweep_id, 0, seed, "search"))
            claimed = registry.claim(sweep_id, worker)
            assert claimed is not None and claimed.crowded == crowded
            registry.end_place(claimed.run, claimed.claim)
            registry.part([], [worker])


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("CUDA error: out of memory"), False),
    ],
)
def test_what_is_out_of_memory(error: Exception, is_one: bool) -> None:
    assert out_of_memory(error) == is_one
    assert reason_of(error, 64).endswith("set training.batch_size to less than 64") == is_one
