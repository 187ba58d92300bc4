"""Comparison of the stores: what the registry records as ended must be in the files, in MLflow and in Optuna.

Weights are compared by their recorded sha256. Other files have none: pictures must be whole, curves must end at the
step and value of the registry, and MLflow's copies must equal the home's. Each file is read once, at about two seconds
a gigabyte.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aigc_lab.archive import contents
from aigc_lab.archive.mlflow_comparison import DigestCache, RunComparison, RunDifferences, is_picture
from aigc_lab.archive.mlflow_gaps import Shown, shown_pictures
from aigc_lab.archive.mlflow_replay import Projection, projections
from aigc_lab.errors import Failure, UsageError
from aigc_lab.host import run_folders, shared_files
from aigc_lab.host.settings import Settings, masked
from aigc_lab.host.store import Damaged
from aigc_lab.registry import audit, liveness
from aigc_lab.registry.audit import RecordedRun
from aigc_lab.registry.find import find_sweep
from aigc_lab.registry.models import list_models
from aigc_lab.registry.run_lifecycle import RESULTS
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry
from aigc_lab.registry.sweeps import list_sweeps, show_sweep
from aigc_lab.serving import restoration
from aigc_lab.sweeps import ownership
from aigc_lab.tracking import backlog, final, spool_log
from aigc_lab.tracking.mlflow import MlflowTracker
from aigc_lab.tracking.mlflow_store import store_exists
from aigc_lab.tracking.writer import spool_folder
from aigc_lab.training import model_code
from aigc_lab.training.model_code import code_of

_SCORED = {(kind, split) for kind in ("last", "selected") for split in ("reference", "holdout")}


@dataclass
class Verification:
    """The number of things checked, by kind; problems, and notes on what is unfinished but right, a sentence each."""

    checked: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return {"checked": dict(self.checked), "problems": self.problems, "notes": self.notes}

    def __str__(self) -> str:
        looked = ", ".join(f"{name}: {count}" for name, count in self.checked.items() if count) or "nothing there yet"
        count = len(self.problems)
        outcome = "all agree" if not count else f"{count} problem{'s' * (count > 1)}"
        return "\n".join([*(f"problem: {text}" for text in self.problems), *self.notes, f"{looked}; {outcome}"])


def verify_sweeps(
    registry: Registry,
    settings: Settings,
    sweep: str | None = None,
    *,
    deep: bool = False,
    report: Callable[[str], object] = lambda doing: None,
) -> Verification:
    """Checks one sweep, or all. A finished run must have its scores, weights as they were written, pictures and curves,
    an MLflow run with the same end, score and files, and a trial in Optuna with its value. Promoted models must be
    whole, and no process of a RUNNING attempt may be gone.

    Sweeps of other homes, whose files are not here, are noted and skipped; a named one raises `UsageError`. With
    `deep`, files that MLflow keeps on another machine are fetched and read, not only measured. `report` is called with
    the current activity.
    """
    verification, digests = Verification(), DigestCache()
    every = [row["sweep"] for row in list_sweeps(registry)]
    names, mine = [find_sweep(registry, sweep)] if sweep else every, []
    for each in names:
        try:
            ownership.refuse_foreign(registry, settings, each, remedy="; verify it there")
        except UsageError as error:
            if sweep:
                raise
            verification.notes.append(str(error))
            continue
        mine.append(each)
        _Sweep(registry, settings, each, verification, digests, report, deep=deep).verify()
    _models(registry, settings, mine, verification, report)
    return verification


def _models(
    registry: Registry,
    settings: Settings,
    sweeps: list[str],
    verification: Verification,
    report: Callable[[str], object],
) -> None:
    """Checks that promoted models have their own files, and their version and aliases in MLflow."""
    rows = [row for row in list_models(registry) if row["sweep"] in sweeps]
    if not rows:
        return
    report("models")
    verification.checked["models"] += len(rows)
    for row in rows:
        if not restoration.is_whole(row):
            remedy = f"aigc-lab promote {row['run']} --name {row['model']} --checkpoint {row['checkpoint']} --no-alias"
            verification.problems.append(f"{row['model']} {row['version']}: its files are not whole; {remedy}")
    if not store_exists(settings.tracking_uri):
        return  # said of the sweeps
    try:
        for row, lacks in restoration.missing_versions(rows, settings):
            remedy = f"aigc-lab reconcile --mlflow {row['sweep']}"
            verification.problems.append(f"{row['model']} {row['version']}: MLflow lacks {lacks}; {remedy}")
    except (Failure, UsageError) as error:
        verification.problems.append(f"models: {_unasked(error, settings)}")


def _unasked(error: Exception, settings: Settings) -> str:
    rebuildable = settings.tracking_uri.startswith("sqlite")
    again = "; if it is damaged, move it away: aigc-lab reconcile --mlflow makes it again" if rebuildable else ""
    return f"{_reason(error, settings)}{again}"


def _reason(error: Exception, settings: Settings) -> str:
    """The error in a sentence, with MLflow's own address where a copy was asked."""
    return f"MLflow cannot be asked: {error}".replace(masked(settings.tracking_uri), settings.mlflow_address)


class _Sweep:
    """The checks of one sweep."""

    def __init__(
        self,
        registry: Registry,
        settings: Settings,
        sweep: str,
        verification: Verification,
        digests: DigestCache,
        report: Callable[[str], object],
        *,
        deep: bool,
    ) -> None:
        self._registry, self._settings, self._sweep, self._found = registry, settings, sweep, verification
        self._digests, self._told, self._deep = digests, report, deep
        self._row = show_sweep(registry, sweep)
        self._runs = audit.results(registry, sweep)

    def verify(self) -> None:
        self._found.checked["sweeps"] += 1
        self._found.checked["runs"] += len(self._runs)
        self._lives()
        run_folders.fetch_results(self._settings, self._sweep)
        chains = {run.run: run.chain for run in self._runs}
        rows = contents.rows(self._registry, self._sweep)
        expected = {each.run: each for each in projections(self._settings, rows, chains)}
        compared = self._compared(expected)
        for number, run in enumerate(self._runs, 1):
            self._told(f"{self._sweep}: run {number} of {len(self._runs)}")
            if run.state == RunState.FINISHED:
                self._scores(run)
            self._files(run, expected.get(run.run), compared(run))
        if self._row["command"] != "train":
            self._optuna()

    def _problem(self, what: str, text: str) -> None:
        self._found.problems.append(f"{what}: {text}")

    def _lives(self) -> None:
        """Checks that every RUNNING attempt has a living process, and notes runs that have not ended."""
        for row in liveness.running(self._registry, self._sweep):
            if not row["alive"]:
                self._problem(row["run"], f"attempt {row['number']} is RUNNING, and its process is gone; reconcile")
        supervisor = liveness.supervisor(self._registry, self._sweep)
        left = sum(run.state not in RESULTS | {RunState.FAILED} for run in self._runs)
        if supervisor is not None and supervisor["alive"]:
            self._found.notes.append(f"{self._sweep} is being run: {left} runs have not ended")
        elif left:
            self._found.notes.append(f"{self._sweep}: {left} runs have not ended; aigc-lab resume goes on with them")

    def _scores(self, run: RecordedRun) -> None:
        lacking = [f"{kind} weights on {split}" for kind, split in sorted(_SCORED - run.scored)]
        if lacking:
            self._problem(run.run, f"it lacks scores of the {', the '.join(lacking)}")
        if not {"last", "selected"} <= run.kinds:
            self._problem(run.run, "its weights are not recorded")

    def _files(self, run: RecordedRun, expected: Projection | None, compared: RunDifferences | None) -> None:
        """Checks the files of a run in the home, then MLflow's copies."""
        for name, digest in run.files.items():
            self._found.checked["files"] += 1
            fault = self._fault(Path(name), digest)
            if (
                fault is None
                and expected is not None
                and run.state == RunState.FINISHED
                and Path(name).name == "curves.json"
            ):
                fault = expected.fault_of_curves(_parsed(Path(name)))
            if fault is not None:
                self._problem(run.run, f"{name} {fault}; {self._again(run, Path(name), digest, compared)}")
        for text in compared.differs if compared is not None else ():
            remedy = f"aigc-lab reconcile --mlflow {self._sweep}{' --deep' * self._deep}"
            if compared is not None and compared.many:
                remedy = f"keep {run.mlflow_run_id}, and delete the others in MLflow's pages"
            self._problem(run.run, f"{text}; {remedy}")
        for text in compared.unlike if compared is not None else ():
            self._problem(run.run, text)

    def _fault(self, path: Path, digest: str | None) -> str | None:
        """The fault of a file of the home; None of a sound one."""
        try:
            model_code.fetch(path, digest) if path.suffix == ".safetensors" else shared_files.at_hand(path, digest)
        except Damaged as error:
            return f"is damaged in the store ({error})"
        if not path.is_file():
            return "is missing"
        if digest is not None and self._digests.of(path) != digest:
            return "is not what was written (sha256)"
        if path.suffix == ".safetensors":
            return _fault_beside(path, self._digests)
        if path.suffix == ".png" and not is_picture(path):
            return "is cut off, or damaged"
        return "is damaged" if path.suffix == ".json" and _parsed(path) is None else None

    def _again(self, run: RecordedRun, path: Path, digest: str | None, compared: RunDifferences | None) -> str:
        """The remedy for a file of the home that is lost or damaged."""
        held = compared.files.get(f"{final.FOLDER}/{path.name}") if compared is not None else None
        copy = held.path if held is not None else None
        if path.stem.isdecimal() and compared is not None:
            shown_at = Shown(path.parent.name, int(path.stem))
            place, _ = shown_pictures(compared.files).get(shown_at, {}).get(path.suffix, ("", 0))
            shown = compared.files[place].path if place else None
            if shown is not None and is_picture(shown):
                return f"MLflow's is whole: cp --remove-destination {shown} {path}"
        if copy is not None and digest is not None and self._digests.of(copy) == digest:
            return f"MLflow's is whole: cp {copy} {path}"
        return (
            f"import its archive again if there is one, or do the run again: "
            f"aigc-lab delete {run.run}, and then aigc-lab resume {self._sweep}"
        )

    def _compared(self, expected: Mapping[str, Projection]) -> Callable[[RecordedRun], RunDifferences | None]:
        """A function of a run that returns how MLflow's copy differs, None for one that is not compared."""
        nothing: Callable[[RecordedRun], RunDifferences | None] = lambda run: None  # noqa: E731 -- it answers like the other
        folder = spool_folder(self._settings, self._sweep)
        waits = {run.name for run in spool_log.logged_runs(folder) if backlog.run_backlog(run).records}
        if waits:
            counted = backlog.sweep_backlog(folder)
            self._found.notes.append(
                f"{self._sweep}: MLflow lacks {counted.records} records of {counted.runs} runs, which wait here;"
                " aigc-lab spool --flush"
            )
        ended = [run for run in self._runs if run.state.ended and run.attempts]
        ended = [run for run in ended if f"{run.run}.{run.chain}" not in waits]
        remedy = f"aigc-lab reconcile --mlflow {self._sweep}"
        if not ended:
            return nothing
        if not store_exists(self._settings.tracking_uri):
            self._problem(self._sweep, f"MLflow's database {self._settings.mlflow_address} is lost; {remedy}")
            return nothing
        tracker = MlflowTracker(self._settings.tracking_uri, self._settings.artifacts)
        try:
            shown = tracker.runs_by_key(self._sweep)
        except (Failure, UsageError) as error:
            self._problem(self._sweep, _unasked(error, self._settings))
            return nothing
        keys = {run.run: f"{run.run}.{run.chain}" for run in ended}
        if not any(key in shown for key in keys.values()):
            self._problem(self._sweep, f"MLflow has none of its {len(ended)} runs; {remedy}")
            return nothing
        comparison = RunComparison(tracker, self._digests, deep=self._deep)

        def compared(run: RecordedRun) -> RunDifferences | None:
            if run.run not in keys:
                return None
            self._found.checked["MLflow runs"] += 1
            try:
                differences = comparison.of(
                    run, expected[run.run], shown.get(keys[run.run], []), f"score/{self._row['objective']}"
                )
            except Failure as error:
                return RunDifferences([_reason(error, self._settings)])
            self._found.checked["MLflow files"] += len(differences.files)
            return differences

        return compared

    def _optuna(self) -> None:
        """Checks that Optuna has every trial that ended, with its value."""
        from aigc_lab.sweeps import optuna_storage

        states = optuna_storage.trial_states(self._settings.optuna_url, self._sweep)
        for number, (state, value) in audit.trials(self._registry, self._sweep).items():
            self._found.checked["trials"] += 1
            if state in (RunState.QUEUED, RunState.RUNNING, RunState.KILLED):
                continue
            expected = ("PRUNED" if state == RunState.PRUNED else "FAIL" if value is None else "COMPLETE", value)
            if states.get(number, ("", None))[0] in ("FAIL", "COMPLETE") and self._failed_before(number):
                continue  # Optuna's word is final; the registry's is of the run that was done again
            if states.get(number) != expected:
                self._problem(
                    f"{self._sweep}, trial {number}", f"it is {expected}, and Optuna says {states.get(number)}"
                )

    def _failed_before(self, trial: int) -> bool:
        """Whether a run of the trial failed and was repeated. A run whose process was lost too often has no failed
        attempt; its repetition is another chain.
        """
        return any(RunState.FAILED in run.attempts or run.chain > 1 for run in self._runs if run.trial == trial)


def _parsed(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except ValueError:
        return None


def _fault_beside(weights: Path, digests: DigestCache) -> str | None:
    """The fault of the description beside weights, or of the code that it names; None of sound ones."""
    description = weights.with_suffix(".json")
    stored = _parsed(description) if description.is_file() else None
    if not isinstance(stored, dict):
        return f"has no description: {description.name} is {'damaged' if description.is_file() else 'missing'}"
    for source in code_of(stored):
        code = weights.with_name(Path(source.file).name)
        if not code.is_file() or digests.of(code) != source.sha256:
            return f"has lost its code: {code.name} is missing, or another"
    return None
