"""How a sweep shows itself on standard error: bars on a terminal, a line for each run in a log."""

import math
import time
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.text import Text

from aigc_lab.tables import duration
from aigc_lab.trainer import Progress
from aigc_lab.trial import Job, Outcome

# Where there are no bars, a long run says in so many seconds how it stands.
_SILENCE = 30.0


class SweepDisplay:
    """Trial, step, images per second, loss, last score, and the time that is left, while runs go on."""

    def __init__(self, console: Console, steps: int, seconds: float = 0.0) -> None:
        self._console = console
        self._steps = steps
        # The time left is guessed from the estimate until runs of this sweep have been timed.
        self._expected = seconds
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[facts]}"),
            console=console,
        )
        self._all: TaskID = self._bars.add_task("runs", total=None, facts="")
        self._run: TaskID | None = None
        self._live = Live(Group(self._bars), console=console, transient=True, refresh_per_second=4)
        self._durations: list[float] = []
        self._begun = time.monotonic()
        self._number = self._total = 0
        self._score = ""
        self._name = ""
        self._spoken = time.monotonic()

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._live.stop()

    def say(self, text: str) -> None:
        self._spoken = time.monotonic()
        self._console.print(Text(text), soft_wrap=True)

    def begin(self, job: Job, number: int, total: int) -> None:
        self._number, self._total, self._score = number, total, ""
        self._name = f"trial {job.trial} seed {job.seed} {job.configuration.system}"
        self._begun = time.monotonic()
        if self._run is not None:
            self._bars.remove_task(self._run)
        self._run = self._bars.add_task(self._name, total=self._steps, facts="")
        self._bars.update(self._all, total=total, completed=number - 1, facts=self._left(0.0))

    def progress(self, now: Progress) -> None:
        loss = next((value for name, value in now.scalars.items() if name.endswith("/total")), math.nan)
        facts = f"step {now.step} · {now.samples_per_second:,.0f} samples/s · loss {loss:.3g}{self._score}"
        if self._run is not None:
            self._bars.update(self._run, completed=now.step, facts=facts)
        left = self._left(now.step / self._steps)
        self._bars.update(self._all, facts=left)
        if not self._console.is_terminal and time.monotonic() - self._spoken > _SILENCE:
            self.say(" · ".join(filter(None, (f"{self._name}  {facts}", left))))

    def scored(self, step: int, value: float) -> None:
        self._score = f" · score {value:.4g}"

    def end(self, job: Job, outcome: Outcome) -> None:
        took = time.monotonic() - self._begun
        self._durations.append(took)
        chosen = " ".join(f"{key}={_short(value)}" for key, value in job.configuration.chosen.items())
        value = "" if outcome.value is None else f"{job.objective.score} {outcome.value:.4g}"
        reason = f"({outcome.reason})" if outcome.reason else ""
        self._bars.update(self._all, completed=self._number)
        told = "  ".join(filter(None, (self._name, outcome.state.lower(), value, f"{took:.0f} s", chosen, reason)))
        self.say(f"[{self._number}/{self._total}] {told}")

    @property
    def ended(self) -> int:
        """How many runs have ended under these eyes."""
        return len(self._durations)

    def _left(self, share_of_run: float) -> str:
        of_total = f"run {self._number} of at most {self._total}" if self._total > 1 else ""
        # This run's own pace where it has one; for the others, the runs that have been timed, else the estimate.
        pace = (time.monotonic() - self._begun) / share_of_run if share_of_run else 0.0
        each = sum(self._durations) / len(self._durations) if self._durations else self._expected / max(self._total, 1)
        left = (1 - share_of_run) * (pace or each) + (self._total - self._number) * (each or pace)
        return " · ".join(filter(None, (of_total, f"{duration(left)} left" if left else "")))


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
