"""What steers a search: what Optuna is told of a trial, which trials are confirmed, and what a sampler cannot do."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from aigc_lab.experiment.experiment import Experiment
from aigc_lab.registry.steering import Steering, TrialRuns, runs_of_trials
from aigc_lab.registry.store import Registry
from aigc_lab.scoring.collapse_judge import judgeable
from aigc_lab.sweeps.samplers import population
from aigc_lab.verdicts.stability import FEWEST, Stability


@dataclass(frozen=True)
class Worth:
    """The value of a trial, one for each objective where there are several, and None without any; and by constraint the
    share of its runs that violate it.
    """

    values: float | Sequence[float] | None
    violations: dict[str, float]


def worth(registry: Registry, sweep: str, trial: int, value: float | None, steering: Steering) -> Worth:
    """What Optuna is told of a trial whose first objective is worth `value`. Of further objectives it is the median
    over the seeds, too; one that is not finite counts as the worst that had been seen by then.
    """
    if not steering.steers:
        return Worth(value, {})
    runs = runs_of_trials(registry, sweep, steering, trial).get(trial, TrialRuns())
    shares = runs.shares(steering.subject_to)
    if value is None or len(steering.objectives) == 1:
        return Worth(value, shares)
    values: list[float] = [value]
    for name, better in steering.objectives[1:]:
        median = runs.median(name)
        if median is None:
            before = runs_of_trials(registry, sweep, steering)
            seen = [each for number in before if number <= trial for each in before[number].values[name]]
            finite = [each for each in seen if each is not None]
            if not finite:
                return Worth(None, shares)
            worst = max(finite) if better == "lower" else min(finite)
            runs.values[name] = [worst if each is None else each for each in runs.values[name] or [None]]
            median = runs.median(name)
        assert median is not None
        values.append(median)
    return Worth(values, shares)


def check_steering(experiment: Experiment) -> None:
    """Raises `UsageError` for a constraint on a verdict that no run of the experiment would be given, and for a sampler
    whose package is missing, which Optuna would import in the middle of the sweep.
    """
    file, fail = experiment.file, experiment.document.fail
    if file.search.sampler == "cma_es" and find_spec("cmaes") is None:
        fail(("search", "sampler"), "cma_es needs the package cmaes: pip install cmaes")
    allowed = file.objective.subject_to
    listed = isinstance(experiment.document.data["objective"], list)
    at = (*(("objective", 0) if listed else ("objective",)), "subject_to")
    if "collapse" in allowed:
        extractor = next((metric.extractor for metric in experiment.metrics if metric.extractor), None)
        if not judgeable(experiment.dataset, extractor, experiment.protocol.samples):
            fail(
                (*at, "collapse"),
                f"no collapse verdict is given under protocol {experiment.protocol.name} on "
                f"{experiment.dataset.name}: leave the constraint out",
            )
    steady = not any(hole.path in (("training", "steps"), ("training", "evaluate_every")) for hole in experiment.holes)
    evaluations = -(-file.training.steps // file.training.evaluate_every)
    withheld = str(Stability.WITHHELD)
    if "stability" in allowed and withheld not in allowed["stability"] and steady and evaluations < FEWEST:
        fail(
            (*at, "stability"),
            f"a run has {evaluations} evaluations, and a stability verdict takes {FEWEST}: allow {withheld}, or set "
            "training.evaluate_every to less",
        )


def search_notes(experiment: Experiment) -> list[str]:
    """What a sampler does not do with this search, a sentence each."""
    search = experiment.file.search
    holes = [hole for hole in experiment.holes if not (hole.path == ("system",) and search.per_system)]
    if not holes:
        return []
    conditional = [hole.name for hole in holes if hole.given]
    choices = [hole.name for hole in holes if hole.kind == "choice" and not hole.given]
    notes = []
    if search.sampler == "cma_es" and (conditional or choices):
        drawn = ", ".join([*choices, *conditional])
        rest = "" if len(conditional) + len(choices) < len(holes) else ", which is all of them; tpe learns there"
        notes.append(f"sampler cma_es moves numbers that every trial has; drawn at random: {drawn}{rest}")
    if search.sampler in ("gp", "nsga2", "qmc") and conditional:
        notes.append(
            f"sampler {search.sampler} goes by what every trial has; drawn at random: {', '.join(conditional)}; "
            "tpe learns there too"
        )
    if search.sampler == "nsga2":
        notes.append(
            f"sampler nsga2 goes by generations of {population(search)} trials; those of the first are drawn at random"
        )
    if search.sampler in ("cma_es", "qmc", "random", "grid") and experiment.file.objective.subject_to:
        notes.append(
            f"sampler {search.sampler} does not look at constraints (tpe, gp and nsga2 do); ranking and confirmation do"
        )
    return notes
