"""The features of an experiment whose protocol says `features: auto`: the own classifier of its data where that passes
its test, else lite0. They are chosen before the first run and become part of the experiment.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
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
_VERBS = ("minimize", "maximize")


def chosen_features(
    experiment: Experiment, cache: Path, device: str, say: Callable[[str], None]
) -> tuple[Experiment, list[str]]:
    """The experiment with its features chosen, and which they are and why, in a sentence; nothing is said where the
    experiment or its protocol names them. Loads the data, and trains and tests the classifier that `cache` does not
    hold yet.

    Metrics that the experiment itself names keep their features. An objective that the user named decides, where it is
    of lite0; that of the file becomes the same score of the features that are chosen.
    """
    named = experiment.document.data["evaluation"]
    given: dict[str, Any] = dict(named) if isinstance(named, Mapping) else {"name": named}
    features, without = experiment.protocol.features, {key: given[key] for key in given.keys() - {"features"}}
    if features is None:
        return experiment, []
    if features != AUTO:
        return _with_objective(experiment, [_changed(experiment, without)]), []
    if "metrics" in given:
        return _changed(experiment, without), []
    candidates = {each: _changed(experiment, given | {"features": each}) for each in (_OWN, _ELSE)}
    if _names_objective(experiment) and _only(experiment.file.objective.score, candidates) == _ELSE:
        features, reason = _ELSE, f"the objective {experiment.file.objective.score} is theirs"
    else:
        features, reason = _by_test(experiment, cache, device, say)
    scores = ", ".join(_scores(candidates[features]))
    called = f"the classifier of {experiment.dataset.name}" if features == _OWN else features
    took = _changed(experiment, given | {"features": features, "chosen": f"{features}: {reason}"})
    others = [*candidates.values(), _changed(experiment, without)]
    return _with_objective(took, others), [f"features: {called} ({scores}): {reason}"]


def _names_objective(experiment: Experiment) -> bool:
    """Whether the user named the objective, and not the file."""
    return any(path[:1] == ("objective",) for path in experiment.document.overridden)


def _only(score: str, candidates: Mapping[str, Experiment]) -> str | None:
    """The features that alone give a score; None where both do, or none."""
    giving = [features for features, candidate in candidates.items() if score in _scores(candidate)]
    return giving[0] if len(giving) == 1 else None


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


def _with_objective(experiment: Experiment, others: Sequence[Experiment]) -> Experiment:
    """The experiment with objectives among its scores: the file may name each as one of the `others` calls it, which
    has the same metrics of other features. Objectives that the user named stay.
    """
    document, scores = experiment.document, _scores(experiment)
    if _names_objective(experiment):
        return experiment
    renamed: dict[str, str] = {}
    for names in map(_scores, others):
        if len(names) == len(scores):
            renamed |= {name: score for name, score in zip(names, scores, strict=True) if name not in scores}
    data = document.data | {"objective": _renamed(document.data.get("objective"), renamed)}
    return replace(experiment, document=replace(document, data=data))


def _renamed(section: Any, scores: Mapping[str, str]) -> Any:
    """The section of the objective, or of several in a list, with other names of scores."""
    if isinstance(section, list):
        return [_renamed(each, scores) for each in section]
    if not isinstance(section, dict):
        return section
    return {
        key: scores.get(value, value) if key in _VERBS and isinstance(value, str) else value
        for key, value in section.items()
    }
