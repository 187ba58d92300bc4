"""The choice of metrics and features for samples without a protocol."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from aigc_lab import plugins
from aigc_lab.data.base import SPLITS, Dataset, Split
from aigc_lab.errors import Failure, UsageError
from aigc_lab.experiment.protocol import AUTO, Protocol, load_protocol
from aigc_lab.extractors.classifier import Classifier
from aigc_lab.extractors.shared import lookup
from aigc_lab.host import content
from aigc_lab.host.weights import WeightsPolicy
from aigc_lab.metrics.base import Metric
from aigc_lab.modalities.base import modality_of
from aigc_lab.samples import Samples
from aigc_lab.scoring.asked_evidence import AskedEvidence
from aigc_lab.scoring.feature_store import FeatureStore
from aigc_lab.scoring.inputs import GivenDataset

# Real samples in each scored split, of which features of 32 dimensions are compared: four times as many.
_SCORED = 4 * Classifier.dimensions
# Of each class, to learn from and to be compared.
_OF_EACH: dict[Split, int] = {"train": 10, "reference": 2, "holdout": 2}


def reads_features(names: Sequence[str] | None, protocol: str | None) -> bool:
    """Whether the features are left to choose: not where a `protocol` names its own, nor where no metric of `names`
    reads any. Raises `UsageError` where both are given.
    """
    if names is not None and protocol is not None:
        raise UsageError("--metrics and --protocol say the same in two ways; give one of them")
    if protocol is not None:
        return _named(protocol).features == AUTO
    return names is None or any(map(metric_reads_features, names))


def chosen_metrics(
    names: Sequence[str] | None,
    protocol: str | None,
    features: str | None,
    evidence: AskedEvidence,
    weights: WeightsPolicy,
    say: Callable[[str], None],
    leave_out: Callable[[str, str], None],
) -> list[Metric]:
    """The metrics of `names` or a `protocol`, else the panel of the modality, by these `features` where they can
    choose. `leave_out` is told of each metric of the panel that cannot be computed. Raises `UsageError` for a metric
    that was asked for and cannot be.
    """
    asked = names is not None or protocol is not None
    if protocol is not None:
        named = _named(protocol)
        specs, asked = named.metrics, not named.fewer
    else:
        specs = [(name, {}) for name in (names or modality_of(evidence.whole.generated).panel(features))]
        if not specs:
            raise UsageError(
                f"no metric that ships measures {evidence.whole.generated.modality}: name yours with --metrics"
            )
    computable, left_out = [], dict[str, str]()
    for name, config in specs:
        options = {"features": features} if features else {}
        try:
            computable.append(_metric(name, config, options, evidence, weights, say))
        except ValueError as error:
            if asked:
                raise UsageError(f"metric {name}: {str(error).removeprefix(f'{name} ')}") from None
            left_out[name] = str(error).removeprefix(f"{name} ")
    if not computable:
        name, reason = next(iter(left_out.items()))
        raise UsageError(f"nothing can be scored: {name} is left out: {reason}")
    for name, reason in left_out.items():
        leave_out(name, reason)
    return computable


def _named(protocol: str) -> Protocol:
    return load_protocol(content.find_file("evaluation", protocol))


def metric_reads_features(name: str) -> bool:
    """Whether a metric has an option for the extractor of its features."""
    return "features" in plugins.find(Metric, name).Config.model_fields  # type: ignore[type-abstract]


def _metric(
    name: str,
    config: Mapping[str, Any],
    options: Mapping[str, Any],
    asked: AskedEvidence,
    weights: WeightsPolicy,
    say: Callable[[str], None],
) -> Metric:
    kind = plugins.find(Metric, name)  # type: ignore[type-abstract]
    options = {key: value for key, value in options.items() if key in kind.Config.model_fields}
    metric = kind(kind.Config.model_validate({**config, **options}))
    evidence = asked.of(metric)
    metric.check_given(evidence, len(evidence.generated))
    metric.refuse_lacking(evidence)
    metric.refuse_few(evidence)
    if metric.extractor:
        extractor = lookup.find_extractor(metric.extractor)
        extractor.check(evidence.dataset, weights)
        extractor.fetch(weights, say)
    return metric


def best_features(
    dataset: Dataset, store: FeatureStore, weights: WeightsPolicy, say: Callable[[str], None]
) -> str | None:
    """The extractor for samples like those of a dataset, which `say` is told with the reason; None where each metric
    has its own. Raises `UsageError` where there is none, with the remedy.
    """
    accuracy = ""

    def unfit() -> str | None:
        nonlocal accuracy
        fault, accuracy = own_classifier(dataset, store)
        return fault

    best = modality_of(dataset.shape).best_features(dataset, weights, unfit)
    if best is None:
        return None
    name, why = best
    say(f"{why}: {accuracy}" if name == "classifier" and accuracy else why)
    return name


def own_classifier(dataset: Dataset, store: FeatureStore) -> tuple[str | None, str]:
    """Why the stored classifier of a dataset cannot serve (None where it can), and what it sorts right, in words (""
    where that is not known). It is trained if there is none and the dataset has enough of each class.
    """
    fault = _too_small(dataset)
    if fault is not None:
        return fault, ""
    try:
        extractor = store.extractor("classifier")
    except Failure as error:
        return str(error).partition("; choose ")[0], ""
    return None, extractor.accuracy if isinstance(extractor, Classifier) else ""


def _too_small(dataset: Dataset) -> str | None:
    """Why no classifier is trained on a dataset; None where there are classes, and enough of each."""
    classes = dataset.shape.classes
    if classes is None:
        return "there are no classes that a classifier could learn"
    # A classifier that is trained on given samples would judge the very samples that it knows.
    if isinstance(dataset, GivenDataset) and not dataset.learns_apart:
        return "a classifier of the samples that were given would know what it judges"
    names = dataset.class_names
    sizes = {split: _sizes(dataset.load(split), classes) for split in SPLITS}
    fewest = min(int(sizes[split].sum()) for split in SPLITS[1:])
    if fewest < _SCORED:
        too_few = f"{fewest} pictures to compare with are fewer than the {_SCORED} that a classifier's features need"
        if not fewest or not getattr(dataset, "by_shares", False):
            return too_few
        needed = math.ceil(sum(int(each.sum()) for each in sizes.values()) * _SCORED / fewest)
        return f"{too_few}: about {needed:,} in all, in these shares"
    for number in torch.stack(list(sizes.values())).sum(0).nonzero().flatten().tolist():
        for split, least in _OF_EACH.items():
            if sizes[split][number] < least:
                called = f"class {number}" if names is None else names[number]
                what = "learn from" if split == "train" else "compare with"
                return f"of {called} there are {sizes[split][number]} pictures to {what}, and {least} are needed"
    return None


def _sizes(samples: Samples, classes: int) -> Tensor:
    """The number of samples of each class [classes]."""
    assert samples.labels is not None
    return torch.bincount(samples.labels, minlength=classes)
