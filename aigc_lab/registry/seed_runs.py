"""Runs of several sweeps, put together by trial, system or parameter: what statistics over seeds are computed from.

Runs of different signatures never stand in one group: numbers that were computed differently do not compare.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from aigc_lab.config import Better
from aigc_lab.errors import UsageError
from aigc_lab.host.content import unknown_name
from aigc_lab.registry.columns import Json
from aigc_lab.registry.database import repeated
from aigc_lab.registry.roles import counted_role, is_fresh
from aigc_lab.registry.runs import list_runs
from aigc_lab.registry.states import RunState, counted_state
from aigc_lab.registry.store import Registry
from aigc_lab.registry.sweeps import final_scores, list_trials, objective_histories, run_outcomes, show_sweep
from aigc_lab.registry.verdicts import last_verdicts, verdicts_by_run

_ENDED = (RunState.FINISHED, RunState.DIVERGED)


@dataclass(frozen=True)
class SeedRun:
    """A run as statistics see it. `last` and `selected` are the objective of these checkpoints, on the holdout where
    it was scored there; `reference` is that of the last one on the reference split. `scores` are all of the last
    checkpoint by name, `stability` is the newest verdict on its history with the evidence. The `state` of one that
    FAILED by NaN of its own is DIVERGED. `drawn` says that its trial is an independent draw: of a random search, but
    for the first trial of a system, which has its paper's defaults.
    """

    run: str
    sweep: str
    trial: int
    seed: int
    role: str
    system: str
    state: str
    config: Json
    dataset: str
    objective: str
    better: Better
    signature: str | None
    last: float | None
    selected: float | None
    reference: float | None
    scores: dict[str, Json]
    collapse: str | None
    stability: Json | None
    history: list[Json]
    sampler: str
    drawn: bool

    @property
    def ended(self) -> bool:
        """Whether it ended by itself, well or not."""
        return self.state in _ENDED

    @property
    def floor(self) -> float | None:
        score = self.scores.get(self.objective)
        return None if score is None else score["floor"]


@dataclass
class SeedGroup:
    """The runs that one row is about. `runs` are those that count: of a confirmed trial the fresh seeds alone. Only
    what all of them share is named: `sweep`, `trial`, `system` or `config`, the values that were chosen.
    """

    signature: str | None
    objective: str
    better: Better
    runs: list[SeedRun] = field(default_factory=list)
    sweep: str | None = None
    trial: int | None = None
    system: str | None = None
    config: Json = field(default_factory=dict)
    confirmed: bool = False

    @property
    def ended(self) -> list[SeedRun]:
        return [run for run in self.runs if run.ended]

    @property
    def sweeps(self) -> list[str]:
        return list(dict.fromkeys(run.sweep for run in self.runs))

    @property
    def trials(self) -> int:
        return len({(run.sweep, run.trial) for run in self.runs})

    @property
    def pruned(self) -> int:
        return sum(run.state == RunState.PRUNED for run in self.runs)


# ---- reading


@repeated
def read_seed_runs(registry: Registry, sweeps: Sequence[str]) -> list[SeedRun]:
    """All runs of these sweeps, by id or name, in the order of trials and seeds; a sweep that is named twice is read
    once. Raises `UsageError` for an unknown one.
    """
    rows = [show_sweep(registry, sweep) for sweep in sweeps]
    return [run for row in {row["id"]: row for row in rows}.values() for run in _of_sweep(registry, row)]


def _of_sweep(registry: Registry, sweep: Json) -> list[SeedRun]:
    name, objective = sweep["id"], sweep["objective"]
    configs = {trial["trial"]: trial["config"] for trial in list_trials(registry, name)}
    last, selected = (final_scores(registry, name, objective, kind) for kind in ("last", "selected"))
    outcomes = {row["run"]: row for row in run_outcomes(registry, name)}
    verdicts, words = verdicts_by_run(registry, name), last_verdicts(registry, name)
    histories = objective_histories(registry, name)
    runs, rows = [], list_runs(registry, name)
    sampler, first = _sampler(sweep["experiment"]), {row["system"]: row["trial"] for row in reversed(rows)}
    for row in rows:
        run, scores = row["run"], {score["name"]: score for score in row["scores"]}
        told = [each for each in verdicts.get(run, []) if each["kind"] == "stability"]
        runs.append(
            SeedRun(
                **{key: row[key] for key in ("run", "sweep", "trial", "seed", "role", "system")},
                state=counted_state(row["state"], outcomes[run]["reason"]),
                config=configs[row["trial"]],
                dataset=_dataset(sweep["experiment"]),
                objective=objective,
                better=sweep["better"],
                signature=scores[objective]["signature"] if objective in scores else None,
                last=last.get(run),
                selected=selected.get(run),
                reference=outcomes[run]["value"],
                scores=scores,
                collapse=words.get(run, {}).get("collapse"),
                stability=told[-1] if told else None,
                history=histories.get(run, []),
                sampler=sampler,
                drawn=sampler == "random" and row["trial"] != first[row["system"]] and not is_fresh(row["role"]),
            )
        )
    return runs


def _dataset(experiment: Json) -> str:
    data = experiment.get("data")
    return str(data.get("name", "data")) if isinstance(data, dict) else "data"


def _sampler(experiment: Json) -> str:
    search = experiment.get("search")
    return str(search.get("sampler", "tpe")) if isinstance(search, dict) else "tpe"


# ---- grouping


def group_runs(runs: Sequence[SeedRun], by: str = "trial") -> list[SeedGroup]:
    """The runs by `trial`, by `system`, or by the value that a parameter such as `lr` has, and by signature; in the
    order in which they come. A run without a score belongs to the signature of its trial, else of its sweep.

    Raises `UsageError` for a parameter that no run has.
    """
    if by not in ("trial", "system"):
        require_parameter(runs, by)
    roles: dict[tuple[str, int], list[tuple[str, str]]] = defaultdict(list)
    for run in runs:
        roles[run.sweep, run.trial].append((run.role, run.state))
    counted = {trial: counted_role(each) for trial, each in roles.items()}
    signatures = _signatures(runs)
    groups: dict[tuple[Any, ...], SeedGroup] = {}
    for run in runs:
        trial = run.sweep, run.trial
        if run.role != counted[trial]:
            continue
        signature = signatures[run.run]
        key = (_key(run, by), run.objective, signature)
        group = groups.setdefault(key, SeedGroup(signature, run.objective, run.better))
        group.runs.append(run)
        group.confirmed |= is_fresh(run.role)
    for group in groups.values():
        _name(group, by)
    return list(groups.values())


def require_parameter(runs: Sequence[SeedRun], name: str) -> None:
    """Raises `UsageError` with the nearest names where no run was given a value for it."""
    names = sorted({key for run in runs for key in run.config})
    if name not in names:
        raise UsageError(f"--by {name}: {unknown_name('parameter', name, [*names, 'system', 'trial'])}")


def _signatures(runs: Sequence[SeedRun]) -> dict[str, str | None]:
    """Run -> its signature, or of a run without a score the one that it would have had."""
    by_trial: dict[tuple[str, int], Counter[str]] = {}
    by_sweep: dict[str, Counter[str]] = {}
    for run in runs:
        if run.signature is not None:
            by_trial.setdefault((run.sweep, run.trial), Counter())[run.signature] += 1
            by_sweep.setdefault(run.sweep, Counter())[run.signature] += 1
    likely: dict[str, str | None] = {}
    for run in runs:
        counts = by_trial.get((run.sweep, run.trial)) or by_sweep.get(run.sweep)
        likely[run.run] = run.signature or (counts.most_common(1)[0][0] if counts else None)
    return likely


def _key(run: SeedRun, by: str) -> Any:
    if by == "trial":
        return run.sweep, run.trial
    return run.system if by == "system" else json.dumps(run.config.get(by), sort_keys=True)


def _name(group: SeedGroup, by: str) -> None:
    first = group.runs[0]

    def shared(attribute: str) -> Any:
        values = {getattr(run, attribute) for run in group.runs}
        return getattr(first, attribute) if len(values) == 1 else None

    group.sweep, group.system = shared("sweep"), shared("system")
    if by == "trial":
        group.trial, group.config = first.trial, first.config
    elif by != "system":
        group.config = {by: first.config.get(by)}
