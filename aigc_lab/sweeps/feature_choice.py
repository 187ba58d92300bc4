"""The features of an experiment whose protocol says `features: auto`: the own classifier of its data where that passes
its test, else lite0. They are chosen before the first run and become part of the experiment.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from aigc_lab.experiment.experiment import Experiment
from aigc_lab.experiment.protocol import AUTO
from aigc_lab.scoring.feature_store import FeatureStore
from aigc_lab.scoring.metric_choice import own_classifier

# Inception is no candidate: of some hundred samples its 2,048 features say little, and where its weights lie would
# decide what a sweep is.
_OWN, _ELSE = "classifier", "lite0"


def chosen_features(
    experiment: Experiment, cache: Path, device: str, say: Callable[[str], None]
) -> tuple[Experiment, list[str]]:
    """The experiment with its features chosen, and which they are and why, in a sentence; the experiment itself where
    its protocol names them. Loads the data, and trains and tests the classifier that `cache` does not hold yet.

    Metrics that the experiment itself names keep their features. An objective that the user named decides, where one
    extractor alone gives it; that of the file becomes the same score of the features that are chosen.
    """
    if experiment.protocol.features != AUTO:
        return experiment, []
    named = experiment.document.data["evaluation"]
    given: dict[str, Any] = dict(named) if isinstance(named, Mapping) else {"name": named}
    if "metrics" in given:
        return _changed(experiment, {key: value for key, value in given.items() if key != "features"}), []
    candidates = {each: _changed(experiment, given | {"features": each}) for each in (_OWN, _ELSE)}
    features = _by_objective(experiment, candidates)
    if features is not None:
        reason = f"the objective {experiment.file.objective.score} is theirs"
    else:
        features, reason = _by_test(experiment, cache, device, say)
    scores = _scores(candidates[features])
    what = f"the classifier of {experiment.dataset.name}" if features == _OWN else features
    note = f"features: {what} (scores {', '.join(scores)}): {reason}"
    other = _ELSE if features == _OWN else _OWN
    took = _changed(experiment, given | {"features": features, "chosen": f"{features}: {reason}"})
    return _with_objective(took, scores, _scores(candidates[other])), [note]


def _names_objective(experiment: Experiment) -> bool:
    """Whether the user named the objective, and not the file."""
    return any(path[:1] == ("objective",) for path in experiment.document.overridden)


def _by_objective(experiment: Experiment, candidates: Mapping[str, Experiment]) -> str | None:
    """The features that alone give the objective, if the user named it; None where the data are to decide."""
    if not _names_objective(experiment):
        return None
    giving = [each for each, candidate in candidates.items() if experiment.file.objective.score in _scores(candidate)]
    # That of the classifier has to pass its test all the same.
    return _ELSE if giving == [_ELSE] else None


def _by_test(experiment: Experiment, cache: Path, device: str, say: Callable[[str], None]) -> tuple[str, str]:
    """The features that the data allow, and why."""
    store = FeatureStore(experiment.dataset, cache=cache, weights=experiment.weights, device=device, say=say)
    fault, accuracy = own_classifier(experiment.dataset, store)
    if fault is None:
        return _OWN, f"{accuracy or 'it passed its test'}; --set evaluation.features={_ELSE} takes {_ELSE} instead"
    return _ELSE, fault


def _changed(experiment: Experiment, evaluation: dict[str, Any]) -> Experiment:
    document = experiment.document
    data = copy.deepcopy(document.data) | {"evaluation": evaluation}
    changed = replace(document, data=data, lines=dict(document.lines), overridden=dict(document.overridden))
    return replace(experiment, document=changed)


def _scores(experiment: Experiment) -> list[str]:
    """The names of the scores, in the order of the metrics."""
    return [name for metric in experiment.metrics for name in metric.gives]


def _with_objective(experiment: Experiment, scores: list[str], others: list[str]) -> Experiment:
    """The experiment with its objective among its `scores`, where it stands among `others`, the same scores of other
    features in the same order.
    """
    objective, document = experiment.file.objective, experiment.document
    if _names_objective(experiment) or objective.score not in others or len(scores) != len(others):
        return experiment
    if objective.score in scores:
        return experiment
    verb = "minimize" if objective.minimize else "maximize"
    data = document.data | {"objective": {verb: scores[others.index(objective.score)]}}
    return replace(experiment, document=replace(document, data=data))
