"""Optuna asks pruners of ours, among the trials of one system."""

import optuna
from optuna.trial import FrozenTrial, TrialState

from aigc_lab import plugins
from aigc_lab.config import Better
from aigc_lab.pruners.base import Curve, Pruner
from aigc_lab.sweeps.samplers import EVALUATION

# The user attribute of a trial that names its system.
SYSTEM = "system"


class PrunerAdapter(optuna.pruners.BasePruner):
    """An Optuna pruner that asks one of ours, with the curves of the other trials of the same system."""

    def __init__(self, pruner: Pruner) -> None:
        self._pruner = pruner

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        system = trial.user_attrs.get(SYSTEM)
        others = [
            curve_of(other)
            for other in study.get_trials(deepcopy=False)
            if other.number != trial.number and other.user_attrs.get(SYSTEM) == system
        ]
        better: Better = "lower" if study.direction == optuna.study.StudyDirection.MINIMIZE else "higher"
        with plugins.blamed(type(self._pruner)):
            return bool(self._pruner.stops(curve_of(trial), others, better))


def curve_of(trial: FrozenTrial) -> Curve:
    """The objective of a trial with what its evaluations said besides: user attributes, one an evaluation."""
    told = {
        int(key.removeprefix(EVALUATION)): value
        for key, value in trial.user_attrs.items()
        if key.startswith(EVALUATION)
    }
    return Curve(
        trial.intermediate_values,
        trial.state == TrialState.COMPLETE,
        {step: each["error"] for step, each in sorted(told.items()) if each["error"] is not None},
        {step: each["collapse"] for step, each in sorted(told.items()) if each["collapse"] is not None},
        trial.number,
    )
