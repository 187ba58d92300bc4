"""Runs that do nothing, through registry and queue, where many have ended beside where few have."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from aigc_lab.benchmarks.base import Benchmark, Case, Setting, Size, Unmeasured
from aigc_lab.registry.run_queue import Evaluated
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry

_FEW = 10
_MANY: Mapping[Size, int] = {"full": 1_000, "quick": 200, "tiny": 12}
_EACH: Mapping[Size, int] = {"full": 4, "quick": 4, "tiny": 2}
_ROUNDS: Mapping[Size, int] = {"full": 5, "quick": 3, "tiny": 2}


class Runs(Benchmark):
    """A run is offered, claimed, begun, evaluated once, answered and ended, by one process on one SQLite file each. The
    rounds' own runs come on top of the many and of the few.
    """

    seconds: ClassVar[Mapping[Size, float]] = {"full": 10, "quick": 5, "tiny": 2}

    def cases(self, setting: Setting) -> Iterator[Case | Unmeasured]:
        many, each = _MANY[setting.size], _EACH[setting.size]
        with (
            Registry.open(_address(setting.folder, "many"), connected=True) as full,
            Registry.open(_address(setting.folder, "few"), connected=True) as empty,
        ):
            at_many, at_few = _queue(full), _queue(empty)
            at_many(many)
            at_few(_FEW)
            yield Case(
                f"a run of the queue after {many:,} runs",
                f"after {_FEW}",
                run=lambda: at_many(each),
                beside=lambda: at_few(each),
                units=each,
                unit="runs",
                rounds=_ROUNDS[setting.size],
                says="cost",
                clock="cpu",
            )


def _address(folder: Path, name: str) -> str:
    return f"sqlite:///{folder / name}.db"


def _queue(registry: Registry) -> Callable[[int], None]:
    """A call that takes so many new runs of one sweep from their offer to their end."""
    sweep = registry.sweep("bench", "0" * 64, {}, "fd", "lower")
    worker, trial = registry.join(sweep, "cpu"), 0

    def do(count: int) -> None:
        nonlocal trial
        for _ in range(count):
            registry.trial(sweep, trial, "vae", {}, {})
            run = registry.run(sweep, trial, 0, "search")
            trial += 1
            registry.offer(run)
            claimed = registry.claim(sweep, worker)
            assert claimed is not None and claimed.run == run
            attempt = registry.begin(run, {}, claim=claimed.claim)
            registry.evaluated(sweep, Evaluated(run, 1, 0.5, 0.1, None))
            registry.answer(run, 1, stop=False)
            registry.answered(run, 1)
            registry.finish(run, attempt, RunState.FINISHED)
            registry.end_place(run, claimed.claim)

    return do
