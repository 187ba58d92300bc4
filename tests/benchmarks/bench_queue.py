"""How fast the queue is: `uv run python tests/benchmarks/bench_queue.py [--runs 256] [--workers 4 64] [--store …]`.

Runs that do nothing, by worker processes without torch: each claims, begins, reports one evaluation and waits for its
answer, finishes and ends its place. The sweep's process offers runs, as many at once as there are workers, follows them
with its own follower and answers, by as many threads. Counted from the first offer to the last end, once all workers
have joined: runs per second, and the seconds of CPU that a run costs, of workers and sweep's process and of the server.

Cores are shared by all of them: what coordination costs a run at 64 workers, of that at 4, is CPU time by CPU time.
PostgreSQL is started for this, from the package of the tests.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from aigc_lab.executors.shared.follower import Ended, Follower
from aigc_lab.registry.run_queue import Evaluated
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry

sys.path.append(str(Path(__file__).parents[1]))

# Forked workers: what they import is imported once. They look as `runs/worker.py` does, and beat.
_CREW = """
import os, sys, time
from aigc_lab.registry.run_queue import Evaluated
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry
from aigc_lab.runs.pulse import Pulse
from aigc_lab.runs.reporter import Pause

def warm(registry, sweep):
    worker = registry.join(sweep, "cpu")
    claimed = registry.claim(sweep, worker)
    attempt = registry.begin(claimed.run, {}, claim=claimed.claim)
    registry.evaluated(sweep, Evaluated(claimed.run, 1, 0.5, 0.1, None))
    registry.answered(claimed.run, 1)
    registry.beat_worker(worker, {})
    registry.finish(claimed.run, attempt, RunState.FINISHED)
    registry.end_place(claimed.run, claimed.claim)
    registry.leave(worker)

def work(url, sweep, first):
    with Registry.open(url, create=False, connected=True, connections=1) as registry:
        warm(registry, first)
        worker, pause = registry.join(sweep, "cpu"), Pause()
        with Pulse(registry, worker) as pulse:
            registry.ready(worker)
            while True:
                claimed = registry.claim(sweep, worker)
                if claimed is None:
                    if pulse.told_to_stop:
                        break
                    pause.wait()
                    continue
                attempt = registry.begin(claimed.run, {}, claim=claimed.claim)
                registry.evaluated(sweep, Evaluated(claimed.run, 1, 0.5, 0.1, None))
                look = Pause()
                while registry.answered(claimed.run, 1) is None:
                    look.wait()
                registry.finish(claimed.run, attempt, RunState.FINISHED)
                registry.end_place(claimed.run, claimed.claim)
                pulse.end(claimed.run)
                pause.reset()
        registry.leave(worker)

url, sweep, first, count = sys.argv[1:]
pids = []
for _ in range(int(count)):
    if not (pid := os.fork()):
        try:
            work(url, sweep, first)
        finally:
            os._exit(0)
    pids.append(pid)
for pid in pids:
    os.waitpid(pid, 0)
"""


class Keeper:
    """Of workers that look after themselves."""

    def __init__(self) -> None:
        self.ready = 0

    def watch(self, workers: Sequence[dict[str, Any]]) -> None:
        self.ready = sum(bool(row["ready"]) for row in workers)

    def fate(self, worker: dict[str, Any] | None) -> str:
        return "its worker was lost"

    def erred(self, worker: dict[str, Any]) -> None: ...

    def resized(self, workers: Sequence[dict[str, Any]]) -> None: ...


@contextlib.contextmanager
def store(kind: str) -> Iterator[tuple[str, int | None]]:
    """The address of a new registry, and the server's process."""
    with tempfile.TemporaryDirectory(prefix="lab-") as folder:
        if kind == "sqlite":
            yield f"sqlite:///{folder}/registry.db", None
            return
        from conftest import Postgres

        server = Postgres(Path(folder) / "pg")
        try:
            pid = int((Path(folder) / "pg" / "postmaster.pid").read_text().splitlines()[0])
            yield server.database(), pid
        finally:
            server.stop()


def _cpu_of(server: int | None) -> float:
    """Seconds of CPU of a server's process and of all its children, those that have ended included."""
    if server is None:
        return 0.0
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(stat.parent.name) == server:
                ticks += sum(map(int, fields[11:15]))
            elif int(fields[1]) == server:
                ticks += sum(map(int, fields[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _filled(registry: Registry, name: str, runs: int) -> tuple[str, list[str]]:
    """A new sweep with so many runs."""
    sweep = registry.sweep(name, "0" * 64, {}, "fd", "lower")
    for trial in range(runs):
        registry.trial(sweep, trial, "vae", {}, {})
    return sweep, [registry.run(sweep, trial, 0, "search") for trial in range(runs)]


def measured(kind: str, workers: int, runs: int) -> tuple[float, float, float]:
    """Runs per second; seconds of CPU a run, of our processes and of the server."""
    keeper = Keeper()
    with store(kind) as (url, server), Registry.open(url, connected=True) as registry:
        # Each worker does one run before: statements are compiled once in a process.
        first, names = _filled(registry, "first", workers)
        for run in names:
            registry.offer(run)
        sweep, names = _filled(registry, "queue", runs)
        follower, left, done = Follower(registry, sweep, keeper), iter(names), []
        crew = subprocess.Popen([sys.executable, "-c", _CREW, url, sweep, first, str(workers)])
        while keeper.ready < workers:
            time.sleep(0.1)
        lock = threading.Lock()

        def drive() -> None:
            while True:
                with lock:
                    run = next(left, None)
                if run is None:
                    return
                registry.offer(run)
                with follower.following(run) as news:
                    while not isinstance(happened := news.get(), Ended):
                        if isinstance(happened, BaseException):
                            raise happened
                        if isinstance(happened, Evaluated):
                            registry.answer(run, happened.step, stop=False)
                    done.append(registry.lose(run, "never").state == RunState.FINISHED)

        used, of_server = sum(os.times()[:2]), _cpu_of(server)
        of_crew = _cpu_of_group(crew.pid)
        begun = time.perf_counter()
        threads = [threading.Thread(target=drive) for _ in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - begun
        ours = sum(os.times()[:2]) - used + _cpu_of_group(crew.pid) - of_crew
        of_server = _cpu_of(server) - of_server
        assert len(done) == runs and all(done)
        registry.want_of_workers(sweep, "stop")
        crew.wait()
        follower.close()
    return runs / seconds, ours / runs, of_server / runs


def _cpu_of_group(parent: int) -> float:
    """Seconds of CPU of a living process's children."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:13])) if int(fields[1]) == parent else 0
    return ticks / os.sysconf("SC_CLK_TCK")


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--runs", type=int, default=256)
    arguments.add_argument("--workers", type=int, nargs="+", default=[4, 64])
    arguments.add_argument("--store", nargs="+", default=["sqlite", "postgres"], choices=["sqlite", "postgres"])
    options = arguments.parse_args()
    for kind in options.store:
        first = 0.0
        for workers in options.workers:
            speed, ours, servers = measured(kind, workers, options.runs)
            first = first or ours + servers
            print(
                f"{kind:8} {workers:3} workers: {speed:6.1f} runs/s; CPU a run {ours * 1e3:5.1f} ms, the server's "
                f"{servers * 1e3:5.1f} ms; together {(ours + servers) / first:.2f} × the first",
                flush=True,
            )
    print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, {options.runs} runs")


if __name__ == "__main__":
    main()
