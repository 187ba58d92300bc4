"""What steers the search of a sweep beside its first objective: further objectives, and verdicts that runs may have."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, get_args

from sqlalchemy import ColumnElement, Connection, and_, select

from aigc_lab.registry.columns import FinalCheckpoint, Json
from aigc_lab.registry.database import repeated
from aigc_lab.registry.marks import violations
from aigc_lab.registry.pareto import front
from aigc_lab.registry.records import Better
from aigc_lab.registry.roles import counted_role, is_fresh
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry
from aigc_lab.registry.sweeps import list_trials
from aigc_lab.registry.tables import Run, Score, Sweep
from aigc_lab.registry.verdicts import last_verdicts_where

_TrialKey = tuple[str, int]  # a sweep and the number of a trial
_ENDED = (RunState.FINISHED.value, RunState.DIVERGED.value)


@dataclass(frozen=True)
class Steering:
    """The objectives of a sweep, the first one first, and for kinds of verdicts those that a run may have."""

    objectives: list[tuple[str, Better]]
    subject_to: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, experiment: Json) -> "Steering":
        """That of an experiment as it was stored."""
        section = experiment.get("objective") or {}
        entries = section if isinstance(section, list) else [section]
        objectives: list[tuple[str, Better]] = [
            (entry[verb], better)
            for entry in entries
            for verb, better in (("minimize", get_args(Better)[0]), ("maximize", get_args(Better)[1]))
            if entry.get(verb)
        ]
        return cls(objectives, entries[0].get("subject_to") or {} if entries else {})

    @property
    def steers(self) -> bool:
        return len(self.objectives) > 1 or bool(self.subject_to)


@dataclass
class TrialRuns:
    """The runs of one trial that count, as far as steering cares: verdicts by kind, None where none was given, and the
    values on the reference split by objective, None where they were not finite. Those of a `confirmed` trial have fresh
    seeds.
    """

    confirmed: bool = False
    verdicts: dict[str, list[str | None]] = field(default_factory=lambda: defaultdict(list))
    values: dict[str, list[float | None]] = field(default_factory=lambda: defaultdict(list))

    def violated(self, subject_to: Mapping[str, Sequence[str]]) -> dict[str, Counter[str]]:
        """Kind of verdict -> how many runs have each verdict that they may not have; "no verdict" is one of these."""
        counts = {
            kind: Counter(each or "no verdict" for each in self.verdicts[kind] if each not in allowed)
            for kind, allowed in subject_to.items()
        }
        return {kind: counted for kind, counted in counts.items() if counted}

    def shares(self, subject_to: Mapping[str, Sequence[str]]) -> dict[str, float]:
        """Kind of verdict -> the share of runs that violate the constraint: 0 where none does."""
        violated = self.violated(subject_to)
        runs = {kind: max(len(self.verdicts[kind]), 1) for kind in subject_to}
        return {kind: sum(violated.get(kind, Counter()).values()) / runs[kind] for kind in subject_to}

    def marks(self, subject_to: Mapping[str, Sequence[str]]) -> list[str]:
        """What is said of a trial that violates a constraint."""
        runs = max((len(each) for each in self.verdicts.values()), default=0)
        return violations(self.violated(subject_to), runs)

    def median(self, name: str) -> float | None:
        """The median of an objective; None unless all runs have a value."""
        values = [value for value in self.values[name] if value is not None]
        return median(values) if values and len(values) == len(self.values[name]) else None


def trial_runs(
    connection: Connection,
    condition: ColumnElement[bool],
    steering: Steering,
    checkpoint: FinalCheckpoint = "last",
    *,
    confirmed: bool = True,
) -> dict[_TrialKey, TrialRuns]:
    """Trial -> its runs that ended with a result or diverged: those with fresh seeds where there are any and they count
    (`confirmed`), else those of the search. Pruned runs count as far as they were judged.
    """
    rows = connection.execute(
        select(Run.c.id, Run.c.sweep_id, Run.c.trial, Run.c.role, Run.c.state)
        .where(condition, Run.c.state.in_([*_ENDED, RunState.PRUNED.value]))
        .order_by(Run.c.sweep_id, Run.c.trial, Run.c.seed)
    ).all()
    verdicts = last_verdicts_where(connection, condition, checkpoint) if steering.subject_to else {}
    names = [name for name, _ in steering.objectives]
    values: dict[str, dict[str, float | None]] = defaultdict(dict)
    for run, name, value in connection.execute(
        select(Score.c.run_id, Score.c.name, Score.c.value)
        .join(Run, Run.c.id == Score.c.run_id)
        .where(condition, Score.c.checkpoint == checkpoint, Score.c.split == "reference", Score.c.name.in_(names))
    ):
        values[run][name] = value
    roles: dict[_TrialKey, list[tuple[str, str]]] = defaultdict(list)
    for row in rows:
        roles[row.sweep_id, row.trial].append((row.role, row.state))
    counted = {key: counted_role(each) if confirmed else "search" for key, each in roles.items()}
    trials: dict[_TrialKey, TrialRuns] = {}
    for run, sweep, trial, role, state in rows:
        key = (sweep, trial)
        if role != counted[key]:
            continue
        runs = trials.setdefault(key, TrialRuns(is_fresh(role)))
        for kind in steering.subject_to:
            verdict = verdicts.get(run, {}).get(kind)
            if verdict is not None or state in _ENDED:  # a pruned run may have been stopped before it was judged
                runs.verdicts[kind].append(verdict)
        if state in _ENDED:
            for name in names:
                runs.values[name].append(values[run].get(name))
    return trials


@repeated
def runs_of_trials(
    registry: Registry, sweep: str, steering: Steering, trial: int | None = None
) -> dict[int, TrialRuns]:
    """Trial -> its runs in the search, for one trial or all of a sweep."""
    condition = Run.c.sweep_id == sweep
    if trial is not None:
        condition = and_(condition, Run.c.trial == trial)
    with registry.read() as connection:
        found = trial_runs(connection, condition, steering, confirmed=False)
    return {number: runs for (_, number), runs in found.items()}


def steered(connection: Connection, condition: ColumnElement[bool]) -> dict[str, Steering]:
    """Sweep -> what steers its search, for those of the condition that have constraints or several objectives."""
    rows = connection.execute(select(Sweep.c.id, Sweep.c.experiment).where(condition))
    each = {sweep: Steering.of(experiment) for sweep, experiment in rows}
    return {sweep: steering for sweep, steering in each.items() if steering.steers}


@dataclass(frozen=True)
class SteeredTrials:
    """What a comparison adds to trials of steered sweeps: the marks of those that violate a constraint, and of sweeps
    with several objectives whether a trial is on the Pareto front of those that do not, and the medians over its runs.
    """

    marks: Mapping[_TrialKey, list[str]] = field(default_factory=dict)
    fronts: Mapping[_TrialKey, bool] = field(default_factory=dict)
    objectives: Mapping[_TrialKey, dict[str, float | None]] = field(default_factory=dict)


def steered_trials(
    connection: Connection, condition: ColumnElement[bool], checkpoint: FinalCheckpoint
) -> SteeredTrials:
    """That of the trials of the condition, which may be of several sweeps."""
    marks: dict[_TrialKey, list[str]] = {}
    fronts: dict[_TrialKey, bool] = {}
    objectives: dict[_TrialKey, dict[str, float | None]] = {}
    for sweep, steering in steered(connection, condition).items():
        trials = trial_runs(connection, Run.c.sweep_id == sweep, steering, checkpoint)
        marks |= {key: said for key, runs in trials.items() if (said := runs.marks(steering.subject_to))}
        if len(steering.objectives) > 1:
            sound = {key: runs for key, runs in trials.items() if key not in marks}
            fronts |= dict.fromkeys(trials, False) | on_front(sound, steering)
            # Values that the search chose by flatter: they put no confirmed trial off the front.
            fronts |= on_front({key: runs for key, runs in sound.items() if runs.confirmed}, steering)
            names = [name for name, _ in steering.objectives]
            objectives |= {key: {name: runs.median(name) for name in names} for key, runs in trials.items()}
    return SteeredTrials(marks, fronts, objectives)


def on_front(trials: Mapping[Any, TrialRuns], steering: Steering) -> dict[Any, bool]:
    """Whether each of these trials is on the Pareto front of the medians of their runs."""
    names = [name for name, _ in steering.objectives]
    points = [[runs.median(name) for name in names] for runs in trials.values()]
    return dict(zip(trials, front(points, [better for _, better in steering.objectives]), strict=True))


def candidates(trials: Iterable[Json], runs: Mapping[int, TrialRuns], steering: Steering) -> list[Json]:
    """Finished trials of a sweep in the order in which they are worth confirming: by the first objective, those first
    that violate no constraint; of several objectives those on the Pareto front alone.
    """
    finished = [row for row in trials if row["state"] == RunState.FINISHED and row["value"] is not None]
    sign = 1 if steering.objectives[0][1] == "lower" else -1
    of = {row["trial"]: runs.get(row["trial"], TrialRuns()) for row in finished}
    violated = {trial: sum(each.shares(steering.subject_to).values()) for trial, each in of.items()}
    if len(steering.objectives) > 1:
        fronted = on_front({trial: each for trial, each in of.items() if not violated[trial]}, steering)
        finished = [row for row in finished if fronted.get(row["trial"]) or not any(fronted.values())]
    return sorted(finished, key=lambda row: (violated[row["trial"]], sign * row["value"]))


def feasible(registry: Registry, sweep: str, steering: Steering) -> list[Json]:
    """The finished trials of a sweep in the order in which they are worth confirming: by the first objective, those
    that violate no constraint before others. Of several objectives only the Pareto front is there.
    """
    trials = list_trials(registry, sweep)
    if not steering.steers:
        return candidates(trials, {}, steering)
    return candidates(trials, runs_of_trials(registry, sweep, steering), steering)
