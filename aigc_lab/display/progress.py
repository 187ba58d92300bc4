"""The progress of a sweep on standard error: bars on a terminal, a line for each run in a log."""

import math
import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from aigc_lab.display.terminal import Text
from aigc_lab.display.wording import duration
from aigc_lab.host import visible
from aigc_lab.runs.job import Job, RunOutcome
from aigc_lab.training.state import Progress

# Where there are no bars, a long run says in so many seconds how it stands.
_SILENCE = 30.0


@dataclass
class _Shown:
    """A run that goes on: its bar, and the texts beside it."""

    name: str
    bar: TaskID
    begun: float
    spoken: float
    share: float = 0.0
    score: str = ""


class SweepDisplay:
    """Trial, step, samples per second, loss, last score, and the time that is left, while runs go on: a bar for each
    run, or lines in a log. Safe to call from several threads.
    """

    def __init__(self, console: Console, steps: int, seconds: float = 0.0, workers: int = 1) -> None:
        self._console = console
        self._steps = steps
        # The time left is guessed from the estimate until runs of this sweep have been timed.
        self._expected = seconds * workers
        self._workers = workers
        self._bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[facts]}", markup=False),
            console=console,
        )
        self._all: TaskID = self._bars.add_task("runs", total=None, facts="")
        self._live = Live(Group(self._bars), console=console, transient=True, refresh_per_second=4)
        self._lock = threading.RLock()
        self._runs: dict[str, _Shown] = {}
        self._durations: list[float] = []
        self._ended = self._total = 0

    def share(self, workers: int) -> None:
        """Expects so many runs at once."""
        self._workers = workers

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
            visible.guard()  # of what is printed meanwhile, which rich would read for colours
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._live.stop()

    def say(self, text: str) -> None:
        with self._lock:
            for run in self._runs.values():
                run.spoken = time.monotonic()
            self._console.print(Text(visible.line(text)), soft_wrap=True)

    def begin(self, job: Job, number: int, total: int) -> None:
        with self._lock:
            name = visible.line(f"trial {job.trial} seed {job.seed} {job.configuration.system}")
            now = time.monotonic()
            self._runs[job.run] = _Shown(name, self._bars.add_task(name, total=self._steps, facts=""), now, now)
            self._ended, self._total = number - 1, total
            self._bars.update(self._all, total=total, completed=self._ended, facts=self._left())

    def progress(self, job: Job, now: Progress) -> None:
        with self._lock:
            run = self._runs[job.run]
            run.share = now.step / self._steps
            loss = next((value for name, value in now.scalars.items() if name.endswith("/total")), math.nan)
            facts = f"step {now.step} · {now.samples_per_second:,.0f} samples/s · loss {loss:.3g}{run.score}"
            self._bars.update(run.bar, completed=now.step, facts=facts)
            left = self._left()
            self._bars.update(self._all, facts=left)
            if not self._console.is_terminal and time.monotonic() - run.spoken > _SILENCE:
                self.say(" · ".join(filter(None, (f"{run.name}  {facts}", left))))

    def scored(self, job: Job, step: int, value: float) -> None:
        self._runs[job.run].score = f" · score {value:.4g}"

    def end(self, job: Job, outcome: RunOutcome) -> None:
        with self._lock:
            run = self._runs.pop(job.run)
            self._durations.append(time.monotonic() - run.begun)
            # Runs that are trained together share the time of their process.
            took = self._durations[-1] if outcome.seconds is None else outcome.seconds
            self._ended += 1
            chosen = " ".join(f"{key}={_short(value)}" for key, value in job.configuration.chosen.items())
            value = "" if outcome.value is None else f"{job.objective.score} {outcome.value:.4g} (reference)"
            reason = f"({outcome.reason})" if outcome.reason else ""
            self._bars.remove_task(run.bar)
            self._bars.update(self._all, completed=self._ended)
            line = "  ".join(filter(None, (run.name, outcome.state.lower(), value, f"{took:.0f} s", chosen, reason)))
            self.say(f"[{self._ended}/{self._total}] {line}")

    @property
    def ended(self) -> int:
        """How many runs have ended while this was shown."""
        return len(self._durations)

    def _left(self) -> str:
        under_way = self._ended + len(self._runs)
        of_total = f"run {under_way} of at most {self._total}" if self._total > 1 else ""
        # These runs' own pace where they have one; for the others, the runs that have been timed, else the estimate.
        shares = [(time.monotonic() - run.begun, run.share) for run in self._runs.values() if run.share]
        pace = sum(took / share for took, share in shares) / len(shares) if shares else 0.0
        each = sum(self._durations) / len(self._durations) if self._durations else self._expected / max(self._total, 1)
        waiting = self._total - under_way
        left = sum(1 - run.share for run in self._runs.values()) * (pace or each) + waiting * (each or pace)
        # All that are under way go on at once: one a worker, or any number that one process trains together.
        left /= max(len(self._runs), min(self._workers, len(self._runs) + waiting), 1)
        return " · ".join(filter(None, (of_total, f"{duration(left)} left" if left else "")))


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
