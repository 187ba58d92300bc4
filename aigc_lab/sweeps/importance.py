"""Importance of a search's parameters, by Optuna's fANOVA on the stored trials."""

import logging
import math
import warnings
from collections import defaultdict
from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from aigc_lab.errors import UsageError
from aigc_lab.pictures.importance import Importance
from aigc_lab.pictures.rows import count
from aigc_lab.registry.roles import is_fresh
from aigc_lab.registry.seed_runs import SeedGroup, SeedRun, group_runs

# Trials of a system below which no importance is given.
FEWEST = 10
# Trees of a forest, and how often the scores are dealt anew to see what chance gives.
_TREES, _DEALS = 32, 40


def importances(runs: Sequence[SeedRun]) -> list[Importance]:
    """The importance of the parameters of each system with enough trials. Raises `UsageError` where none has."""
    trials = [group for group in group_runs([run for run in runs if not is_fresh(run.role)]) if group.ended]
    by_system: dict[tuple[str | None, str | None], list[SeedGroup]] = defaultdict(list)
    for group in trials:
        by_system[group.system, group.signature].append(group)
    parts = [(system, part, _space(part)) for (system, _), part in by_system.items()]
    told = [
        _importance(str(system), part, space)
        for system, part, space in parts
        if len(part) >= FEWEST and len(space) >= 2 and len({_value(group) for group in part}) > 1
    ]
    if not told:
        raise UsageError(f"--kind importance: {_why(parts)}")
    return told


def _why(parts: Sequence[tuple[str | None, list[SeedGroup], dict[str, BaseDistribution]]]) -> str:
    if not parts:
        return "no trial has ended yet"
    system, largest, space = max(parts, key=lambda part: len(part[1]))
    if len(largest) < FEWEST:
        return (
            f"{system} has {count(len(largest), 'finished trial')}, too few to part a parameter from chance; "
            f"it takes {FEWEST}; raise search.trials"
        )
    if len(space) < 2:
        chosen = f"only {next(iter(space))} differs" if space else "nothing differs"
        return f"{chosen} between the trials of {system}, and the importance of one is all; search two or more"
    return f"all trials of {system} ended alike, so no parameter explains a difference"


def _space(trials: Sequence[SeedGroup]) -> dict[str, BaseDistribution]:
    """The parameters that all trials have and that differ between them, with the range of what was tried."""
    names = [name for name in trials[0].config if all(name in trial.config for trial in trials)]
    values = {name: [trial.config[name] for trial in trials] for name in names}
    return {name: _distribution(told) for name, told in values.items() if len({repr(value) for value in told}) > 1}


def _distribution(values: Sequence[Any]) -> BaseDistribution:
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    if not numbers or len({*values}) <= 2:
        return CategoricalDistribution(list(dict.fromkeys(map(_label, values))))
    low, high = min(values), max(values)
    log = low > 0 and high / low > 5
    if all(isinstance(value, int) for value in values):
        return IntDistribution(low, high, log=log)
    return FloatDistribution(float(low), float(high), log=log)


def _label(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)


def _importance(system: str, trials: Sequence[SeedGroup], space: dict[str, BaseDistribution]) -> Importance:
    sign = 1 if trials[0].better == "lower" else -1
    # Ranks: a score that spans decades, or is infinite, would be explained by its largest values alone.
    ranks = _ranks([sign * _value(group) for group in trials])
    settings = [
        {
            name: _label(group.config[name]) if isinstance(kind, CategoricalDistribution) else group.config[name]
            for name, kind in space.items()
        }
        for group in trials
    ]
    shares = _fanova(settings, space, ranks)
    source = np.random.default_rng(0)
    dealt = [_fanova(settings, space, source.permutation(ranks).tolist()) for _ in range(_DEALS)]
    chance = {name: float(np.quantile([each[name] for each in dealt], 0.95)) for name in space}
    first = trials[0]
    return Importance(system, len(trials), first.objective, shares, chance, first.signature)


def _value(group: SeedGroup) -> float:
    """The median over the seeds on the reference split; a seed without a score is the worst."""
    worst = math.inf if group.better == "lower" else -math.inf
    told = [run.last if run.reference is None else run.reference for run in group.ended]
    return median(worst if value is None or math.isnan(value) else value for value in told)


def _ranks(values: Sequence[float]) -> list[float]:
    """Mean ranks from 1; equal values share theirs."""
    x = np.array(values)
    return [float((x < value).sum() + ((x == value).sum() + 1) / 2) for value in values]


def _fanova(
    settings: Sequence[dict[str, Any]], space: dict[str, BaseDistribution], values: Sequence[float]
) -> dict[str, float]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(storage=optuna.storages.InMemoryStorage())
        study.add_trials(
            optuna.trial.create_trial(params=chosen, distributions=space, value=value)
            for chosen, value in zip(settings, values, strict=True)
        )
        evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=_TREES, max_depth=16, seed=0)
        told = optuna.importance.get_param_importances(study, evaluator=evaluator, normalize=False)
    return {name: float(told.get(name, 0.0)) for name in space}
