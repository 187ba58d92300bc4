"""Do the stores agree? The registry says what has ended; files, MLflow and Optuna must show the same."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aigc_lab.errors import Failure
from aigc_lab.files import sha256
from aigc_lab.registry import lives, queries, results
from aigc_lab.registry.life import RESULTS
from aigc_lab.registry.results import Result
from aigc_lab.registry.states import State
from aigc_lab.registry.store import Registry
from aigc_lab.settings import Settings
from aigc_lab.tracking import waiting
from aigc_lab.tracking.base import status_of
from aigc_lab.tracking.writer import spool_folder

_SCORED = {(kind, split) for kind in ("last", "selected") for split in ("reference", "holdout")}


@dataclass
class Verification:
    """What was looked at; what is wrong, a sentence each; and what is no fault, but not at its end."""

    checked: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return {"checked": dict(self.checked), "problems": self.problems, "notes": self.notes}

    def __str__(self) -> str:
        looked = ", ".join(f"{name}: {count}" for name, count in self.checked.items() if count) or "nothing there yet"
        count = len(self.problems)
        found = "all agree" if not count else f"{count} problem{'s' * (count > 1)}"
        return "\n".join([*(f"problem: {text}" for text in self.problems), *self.notes, f"{looked}; {found}"])


def verify(registry: Registry, settings: Settings, sweep: str | None = None) -> Verification:
    """Checks one sweep, or all: every run that finished has its scores, its weights as they were written, its pictures
    and curves, an MLflow run that ended as it did with the same score, and a trial of which Optuna knows the value; and
    nothing says that it is RUNNING whose process is gone.
    """
    verification = Verification()
    known = [row["sweep"] for row in queries.sweeps(registry)]
    for each in [queries.find_sweep(registry, sweep)] if sweep else known:
        _Sweep(registry, settings, each, verification).verify()
    return verification


class _Sweep:
    """A sweep that is looked at."""

    def __init__(self, registry: Registry, settings: Settings, sweep: str, verification: Verification) -> None:
        self._registry, self._settings, self._sweep, self._found = registry, settings, sweep, verification
        self._row = queries.sweep(registry, sweep)
        self._runs = results.results(registry, sweep)

    def verify(self) -> None:
        self._found.checked["sweeps"] += 1
        self._found.checked["runs"] += len(self._runs)
        self._lives()
        for run in self._runs:
            if run.state == State.FINISHED:
                self._scores(run)
            self._files(run)
        self._mlflow()
        if self._row["command"] != "train":
            self._optuna()

    def _problem(self, what: str, text: str) -> None:
        self._found.problems.append(f"{what}: {text}")

    def _lives(self) -> None:
        """Nothing is RUNNING that nobody works on."""
        for row in lives.running(self._registry, self._sweep):
            if not row["alive"]:
                self._problem(row["run"], f"attempt {row['number']} is RUNNING, and its process is gone; reconcile")
        supervisor = lives.supervisor(self._registry, self._sweep)
        left = sum(run.state not in RESULTS | {State.FAILED} for run in self._runs)
        if supervisor is not None and supervisor["alive"]:
            self._found.notes.append(f"{self._sweep} is being run: {left} runs have not ended")
        elif left:
            self._found.notes.append(f"{self._sweep}: {left} runs have not ended; aigc-lab resume goes on with them")

    def _scores(self, run: Result) -> None:
        lacking = [f"{kind} weights on {split}" for kind, split in sorted(_SCORED - run.scored)]
        if lacking:
            self._problem(run.run, f"it lacks scores of the {', the '.join(lacking)}")
        if not {"last", "selected"} <= run.kinds:
            self._problem(run.run, "its weights are not recorded")

    def _files(self, run: Result) -> None:
        for name, digest in run.files.items():
            self._found.checked["files"] += 1
            path = Path(name)
            if not path.is_file():
                self._problem(run.run, f"{path} is missing")
            elif digest is not None and sha256(path) != digest:
                self._problem(run.run, f"{path} is not what was written (sha256)")

    def _mlflow(self) -> None:
        """Each run that ended is one MLflow run, which ended alike and shows the same score."""
        ended = [run for run in self._runs if run.state.ended and run.attempts]
        waits = waiting.of_sweep(spool_folder(self._settings, self._sweep))
        if waits.records:
            self._found.notes.append(
                f"{self._sweep}: MLflow lacks {waits.records} records of {waits.runs} runs; aigc-lab spool --flush"
            )
            return
        if not ended:
            return
        from aigc_lab.tracking.mlflow import MlflowTracker

        try:
            shown = MlflowTracker(self._settings.tracking_uri, self._settings.artifacts).shown(self._sweep)
        except Failure as error:
            self._problem(self._sweep, f"MLflow cannot be asked: {error}")
            return
        score = f"score/{self._row['objective']}"
        for run in ended:
            self._found.checked["MLflow runs"] += 1
            here = shown.get(f"{run.run}.{run.chain}", [])
            if len(here) != 1:
                self._problem(run.run, f"MLflow has {len(here)} runs of it instead of one")
                continue
            if here[0].status != status_of(run.state):
                self._problem(run.run, f"it is {run.state}, and MLflow says {here[0].status}")
            if run.state == State.FINISHED and here[0].metrics.get(score) != run.value:
                self._problem(run.run, f"{score} is {run.value}, and MLflow says {here[0].metrics.get(score)}")
            if here[0].run_id != run.mlflow_run_id:
                self._problem(run.run, f"its MLflow run is {here[0].run_id}, and {run.mlflow_run_id} is recorded")

    def _optuna(self) -> None:
        """Optuna knows every trial that ended, and its value."""
        from aigc_lab import search

        known = search.told(self._settings.optuna_url, self._sweep)
        for number, (state, value) in results.trials(self._registry, self._sweep).items():
            self._found.checked["trials"] += 1
            if state in (State.QUEUED, State.RUNNING, State.KILLED):
                continue
            wanted = ("PRUNED" if state == State.PRUNED else "FAIL" if value is None else "COMPLETE", value)
            if known.get(number, ("", None))[0] in ("FAIL", "COMPLETE") and self._failed_before(number):
                continue  # Optuna's word is final; the registry's is of the run that was done again
            if known.get(number) != wanted:
                self._problem(f"{self._sweep}, trial {number}", f"it is {wanted}, and Optuna says {known.get(number)}")

    def _failed_before(self, trial: int) -> bool:
        """Whether a run of it did, and was done again. One whose process was lost too often has no attempt that says
        so, but its second life is another chain.
        """
        return any(State.FAILED in run.attempts or run.chain > 1 for run in self._runs if run.trial == trial)
