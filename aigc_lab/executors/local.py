"""Processes of this machine, each with its share of the cores or its place on a GPU."""

import contextlib
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from aigc_lab.errors import Failure
from aigc_lab.executors.base import Place
from aigc_lab.executors.shared.queued import Queued, sent
from aigc_lab.experiment.experiment import Experiment
from aigc_lab.host import environment, gpus
from aigc_lab.host.settings import Settings
from aigc_lab.runs import worker_process
from aigc_lab.runs.resources import Resources

Json = dict[str, Any]

_GRACE = 10.0
# Seconds that the last threads of a process which was killed may take.
_DYING = 5.0
# Deaths of a process before it is ready, one after the other, after which it is not started again.
_EARLY = 2


class Local(Queued):
    """One process a place. They start at once and import torch while the caller prepares what they will read. A GPU
    that is out of memory has half as many from then on; its run is tried again from its checkpoint.
    """

    def __init__(
        self,
        experiment: Experiment,
        places: Sequence[Place],
        settings: Settings,
        say: Callable[[str], None],
        config: Any = None,
    ) -> None:
        super().__init__(experiment, places, settings, say, config)
        self.slots = len(places)
        logs = settings.home / "logs"
        devices = [place.device for place in places]
        self._children = [
            _Child(settings.home, experiment.sweep, place, logs / f"worker-{i}.log", devices.count(place.device))
            for i, place in enumerate(places)
        ]

    def open(self, resources: Resources, spool: Path) -> None:
        """Lets the workers open what `resources` has prepared, and returns when they are ready."""
        super().open(resources, spool)
        for child in self._children:
            child.go(self._look)
        # One that dies now is met when there is a run, and then started again.
        while not self._stopped.is_set() and not all(child.ready or child.gone for child in self._children):
            if self._follower is not None and self._follower.error is not None:
                raise self._follower.error
            time.sleep(0.02)

    def _look(self) -> None:
        if self._follower is not None:
            self._follower.look()

    def nudge(self, run: str | None) -> None:
        known = [child for child in self._children if child.run == run]
        for child in known or self._children:  # of a run that has just begun it is not known who does it
            child.nudge()

    # ---- what the follower asks

    def watch(self, workers: Sequence[Json]) -> None:
        rows = {row["process"].pid: row for row in workers if row["process"].here}
        for child in self._children:
            if (row := rows.get(child.pid)) is not None:
                child.see(row, len(self._open_on(child.place.device)))
            if self._stopped.is_set() or not child.gone or not child.open:
                continue
            child.deaths += not child.ready
            if child.deaths == _EARLY:
                raise Failure(f"a worker process cannot go on: {child.how()}")
            child.restart()

    def slots_for(self, workers: Sequence[Json]) -> int:
        """A place counts while its process is started again."""
        joined = [row for row in workers if row["ready"] and self._child_of(row) is None]
        return sum(child.open for child in self._children) + len(joined)

    def fate(self, worker: Json | None) -> str:
        child = None if worker is None or worker["error"] is not None else self._child_of(worker)
        ended = None if child is None or worker is None else child.end_of(worker["process"].pid)
        return ended or super().fate(worker)

    def erred(self, worker: Json) -> None:
        child = self._child_of(worker)
        if child is None:
            super().erred(worker)
        elif worker["error"]["kind"] == "Crowded":
            self._halve(child)
        else:
            raise sent(worker["error"])

    def _child_of(self, worker: Json) -> "_Child | None":
        process = worker["process"]
        return next((child for child in self._children if process.here and process.pid in child.pids), None)

    def _open_on(self, device: str) -> "list[_Child]":
        return [child for child in self._children if child.open and child.place.device == device]

    def _halve(self, full: "_Child") -> None:
        """Closes half of the places on a GPU that is out of memory, the larger half of an odd number: first that of the
        run that has met it, and of the others those that do none. Where fewer are open than when that run began, none:
        several runs meet the same end of memory.
        """
        device = full.place.device
        before = self._open_on(device)
        if len(before) < full.seen or len(before) == 1:
            return
        left = len(before) // 2
        last = sorted(before, key=lambda child: (child is full, child.run is None))
        for child in last[left:]:
            child.open = False
        stay = last[:left] if left == 1 else []
        leaving = [child.worker for child in last[left:] if child is not full and child.worker is not None]
        self._resources.registry.part(leaving, [child.worker for child in stay if child.worker is not None])
        for child in stay:
            child.shares = False
        self._say(f"{device}: {left} run{'s' * (left > 1)} at once from now on, and not {len(before)}")

    # ---- its end

    def stop(self) -> None:
        super().stop()
        for child in self._children:
            child.interrupt()

    def kill(self) -> None:
        """Ends the processes now: one that is in a call that never returns hears neither a signal nor that its channel
        has closed.
        """
        for child in self._children:
            child.kill()

    def __exit__(self, *error: object) -> None:
        self._stopped.set()
        for child in self._children:
            child.interrupt()
        for child in self._children:
            child.end()
        super().__exit__(*error)


class _Child:
    """A place and the process that holds it now."""

    def __init__(self, home: Path, sweep: str, place: Place, log: Path, count: int) -> None:
        self._variables, device = gpus.alone(place.device)
        self._arguments = (str(home), sweep, device, place.threads)
        self.place = place
        self._log = log
        #: whether it is used, and whether it is one of several on a GPU
        self.open, self.shares = True, count > 1 and gpus.is_gpu(place.device)
        #: its worker's id and run, and how many places were open on its device when that run began
        self.worker: str | None = None
        self.run: str | None = None
        self.seen = count
        self._nudged: Callable[[], object] | None = None  # what is called when the worker nudges, as soon as it may go
        self.deaths = 0  # one after the other, before it was ready
        self.pids: set[int] = set()
        self.ends: dict[int | None, str] = {}  # pid -> how that process ended
        self._start()

    def _start(self) -> None:
        self.ready = False
        share = min(environment.threads(), self.place.threads)
        self._process = worker_process.start(*self._arguments, self._log, self._variables, share, shares=self.shares)
        self.pids.add(self.pid)
        if self._nudged is not None:
            self.go(self._nudged)

    @property
    def pid(self) -> int:
        return self._process.pid

    def see(self, row: Json, count: int) -> None:
        """Notes what the registry says of its worker, while `count` places are open on its device."""
        self.worker = row["worker"]
        if row["ready"]:
            self.ready, self.deaths = True, 0
        if row["run"] != self.run:
            self.run, self.seen = row["run"], count

    @property
    def gone(self) -> bool:
        """Whether the process has ended; then `ends` says how."""
        code = self._process.poll()
        if code is not None and self.pid not in self.ends:
            self.ends[self.pid] = worker_process.how(code, self._log)
        return code is not None

    def end_of(self, pid: int) -> str | None:
        """How a process of this place that is no more has ended: at once, or when its last thread has."""
        if pid == self.pid and not self.gone:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_DYING)
        return self.ends.get(pid) if pid != self.pid or self.gone else None

    def go(self, nudged: Callable[[], object]) -> None:
        """Lets it open what was prepared; `nudged` is called when there is something to be looked at."""
        self._nudged = nudged
        worker_process.go(self._process)
        threading.Thread(target=worker_process.hear, args=(self._process, nudged), daemon=True).start()

    def nudge(self) -> None:
        worker_process.nudge(self._process)

    def how(self) -> str:
        return self.ends.get(self.pid, "its worker process does not answer")

    def restart(self) -> None:
        worker_process.close(self._process)
        self._start()

    def interrupt(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()

    def end(self) -> None:
        """Waits for the end of the process, which was interrupted and may still record that its run was."""
        try:
            self._process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        worker_process.close(self._process)
