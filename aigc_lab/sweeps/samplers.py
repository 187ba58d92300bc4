"""Optuna's samplers as a sweep uses them: one for each trial, with a seed of its own, and without state elsewhere.

What a sampler suggests for a trial is a function of the trials before it, of the search's seed and of the trial's
number, so that a continued sweep goes on as an uninterrupted one would have. Three of Optuna's samplers are not so by
themselves: `cma_es` keeps its state as a pickle in the storage, `qmc` counts the points that it has given out, and `gp`
takes a trial that was interrupted for another one beside it.
"""

import json
import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
from optuna._transform import _SearchSpaceTransform
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from aigc_lab import noise
from aigc_lab.experiment.sections import Search

# The part of a user attribute's key before the step: what an evaluation says beside the value.
EVALUATION = "evaluation:"
# Ten random trials to begin with would be most of a small sweep.
_STARTUP = 10
# Generations of NSGA-II that a sweep should have, and the bounds of their size; Optuna's own default is 50 trials.
_GENERATIONS, _POPULATION = 5, (4, 50)
# The part of a system attribute's key before the number of the part, under which Optuna's GPSampler stores suggestions.
_GP_SUGGESTED = "gp:relative_params:"
# Of the variance of the values at most so much is taken for sampling errors.
_MOST_NOISE = 0.5


def population(search: Search) -> int:
    """Trials of one generation of NSGA-II; those of the first are drawn at random."""
    low, high = _POPULATION
    return min(max(search.trials // _GENERATIONS, low), high)


def startup(search: Search, systems: int) -> int:
    """Trials that are drawn at random before a model is made of them."""
    return min(_STARTUP, max(2 * systems, search.trials // 4))


def sampler(search: Search, number: int, systems: int) -> optuna.samplers.BaseSampler:
    """The sampler of trial `number` in a sweep over so many systems."""
    seed = noise.generator(search.seed, "sampler", number).initial_seed() % 2**32
    match search.sampler:
        case "tpe":
            # Conditional choices need group.
            first = startup(search, systems)
            return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, n_startup_trials=first)
        case "gp":
            return _Gp(search.seeds, seed=seed, n_startup_trials=startup(search, systems))
        case "cma_es":
            return _CmaEs(seed=seed, warn_independent_sampling=False)
        case "nsga2":
            return optuna.samplers.NSGAIISampler(seed=seed, population_size=population(search))
        case "qmc":
            return _Qmc(number, seed=noise.generator(search.seed, "sampler").initial_seed() % 2**32)
        case _:
            return optuna.samplers.RandomSampler(seed=seed)


class _CmaEs(optuna.samplers.CmaEsSampler):
    """CMA-ES whose state is computed anew from the trials: Optuna's is a pickle, and what an archive brings along would
    be run.
    """

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        self._space, self._direction = search_space, study.direction
        return super().sample_relative(study, trial, search_space)

    def _restore_optimizer(self, completed_trials: list[FrozenTrial]) -> Any:
        """The optimizer after all generations that are complete: Optuna tells it nothing, and stores nothing."""
        space = _SearchSpaceTransform(self._space, transform_step=True, transform_0_1=True)
        optimizer, sign = self._init_optimizer(space, self._direction), 1
        if self._direction == StudyDirection.MAXIMIZE:
            sign = -1
        while True:
            solved = self._get_solution_trials(completed_trials, optimizer.generation)
            solved = [trial for trial in solved if self._space.keys() <= trial.params.keys()]
            if len(solved) < optimizer.population_size:
                return optimizer
            best = solved[: optimizer.population_size]
            optimizer.tell([(space.transform(_only(trial, self._space)), sign * float(trial.value)) for trial in best])  # type: ignore[arg-type]


def _only(trial: FrozenTrial, names: dict[str, BaseDistribution]) -> dict[str, Any]:
    return {name: trial.params[name] for name in names}


class _Qmc(optuna.samplers.QMCSampler):
    """A scrambled Sobol' sequence (Owen 1998), of which a trial gets the point of its number."""

    def __init__(self, number: int, *, seed: int) -> None:
        draws = optuna.samplers.RandomSampler(seed=(seed + number) % 2**32)
        super().__init__(scramble=True, seed=seed, independent_sampler=draws, warn_independent_sampling=False)
        self._number = number

    def _find_sample_id(self, study: optuna.Study, search_space: dict[str, BaseDistribution]) -> int:
        return self._number


class _Gp(optuna.samplers.GPSampler):
    """A Gaussian process that estimates the noise of the values, and takes for the least that there is what the
    standard errors of the evaluations say. Optuna has one noise for all trials, and none for constraints.
    """

    def __init__(self, seeds: int, *, seed: int, n_startup_trials: int) -> None:
        super().__init__(seed=seed, n_startup_trials=n_startup_trials, warn_independent_sampling=False)
        self._seeds = seeds

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        finished = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
        if not any(each.constraints for each in finished):
            self._minimum_noise = max(self._minimum_noise, least_noise(finished, self._seeds))
        # An interrupted trial keeps what it was given: asked again, Optuna would take it for a trial beside it.
        parts = [trial.system_attrs[key] for key in sorted(trial.system_attrs) if key.startswith(_GP_SUGGESTED)]
        given = json.loads("".join(parts)) if parts else {}
        if given:
            return given
        with warnings.catch_warnings():
            # All points of equal worth: Optuna divides by their sum of 0, and goes on with the best of them.
            warnings.filterwarnings("ignore", "invalid value encountered in divide", RuntimeWarning, r"optuna\._gp\.")
            return super().sample_relative(study, trial, search_space)


def least_noise(finished: Sequence[FrozenTrial], seeds: int = 1) -> float:
    """Mean squared standard error of the values of trials, in units of the variance of these values; 0 where no error
    is known. That of one seed is stored; the median of several has no less than its square over their number.
    """
    errors = [error for trial in finished if (error := _error(trial)) is not None]
    spread = float(np.var([trial.values[0] for trial in finished])) if len(finished) > 1 else 0.0
    if not errors or not spread > 0:
        return 0.0
    return min(float(np.mean(np.square(errors))) / seeds / spread, _MOST_NOISE)


def _error(trial: FrozenTrial) -> float | None:
    """The standard error of the last evaluation of a trial."""
    steps = [int(key.removeprefix(EVALUATION)) for key in trial.user_attrs if key.startswith(EVALUATION)]
    error = trial.user_attrs[f"{EVALUATION}{max(steps)}"].get("error") if steps else None
    return error if error is not None and math.isfinite(error) else None
