"""The choice of metrics and features for samples without a protocol."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aigc_lab import plugins
from aigc_lab.data.base import Dataset
from aigc_lab.errors import Failure, UsageError
from aigc_lab.experiment.protocol import load_protocol
from aigc_lab.extractors.shared import lookup
from aigc_lab.host import content
from aigc_lab.host.weights import WeightsPolicy
from aigc_lab.metrics.base import Evidence, Metric
from aigc_lab.modalities.base import modality_of
from aigc_lab.scoring.feature_store import FeatureStore
from aigc_lab.scoring.inputs import GivenDataset


def chosen_metrics(
    names: Sequence[str] | None,
    protocol: str | None,
    features: str | None,
    evidence: Evidence,
    store: FeatureStore,
    weights: WeightsPolicy,
    say: Callable[[str], None],
    leave_out: Callable[[str, str], None],
) -> list[Metric]:
    """The metrics of `names` or a `protocol`, else the panel of the modality. `leave_out` is told of each metric of the
    panel that cannot be computed. Raises `UsageError` for a metric that was asked for and cannot be.
    """
    if names is not None and protocol is not None:
        raise UsageError("--metrics and --protocol say the same in two ways; give one of them")
    # A protocol says itself which features it reads, unless the user does; and many metrics read none.
    reads = protocol is None and (names is None or any(map(reads_features, names)))
    chosen = features or (best_features(evidence.dataset, store, weights, say) if reads else None)
    asked = names is not None or protocol is not None
    if protocol is not None:
        named = load_protocol(content.find_file("evaluation", protocol))
        specs, asked = named.metrics, not named.fewer
    else:
        specs = [(name, {}) for name in (names or modality_of(evidence.generated).panel(chosen))]
        if not specs:
            raise UsageError(f"no metric that ships measures {evidence.generated.modality}: name yours with --metrics")
    computable, left_out = [], dict[str, str]()
    for name, config in specs:
        options = {"features": chosen} if chosen else {}
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


def reads_features(name: str) -> bool:
    """Whether a metric has an option for the extractor of its features."""
    return "features" in plugins.find(Metric, name).Config.model_fields  # type: ignore[type-abstract]


def _metric(
    name: str,
    config: Mapping[str, Any],
    options: Mapping[str, Any],
    evidence: Evidence,
    weights: WeightsPolicy,
    say: Callable[[str], None],
) -> Metric:
    kind = plugins.find(Metric, name)  # type: ignore[type-abstract]
    options = {key: value for key, value in options.items() if key in kind.Config.model_fields}
    metric = kind(kind.Config.model_validate({**config, **options}))
    metric.check(evidence.dataset, len(evidence.generated))
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
    best = modality_of(dataset.shape).best_features(dataset, weights, lambda: _unfit(dataset, store))
    if best is None:
        return None
    name, why = best
    say(why)
    return name


def _unfit(dataset: Dataset, store: FeatureStore) -> str | None:
    """Why the stored classifier of a dataset cannot serve, which is trained if there is none; None where it can."""
    if dataset.shape.classes is None:
        return "there are no classes that a classifier could learn"
    # A classifier that is trained on given samples would judge the very samples that it knows.
    if isinstance(dataset, GivenDataset):
        return "a classifier of the samples that were given would know what it judges"
    try:
        store.extractor("classifier")
    except Failure as error:
        return str(error).partition("; choose ")[0]
    return None
