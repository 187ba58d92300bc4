"""The choice of metrics and features for samples without a protocol."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aigc_lab import plugins
from aigc_lab.data.base import Dataset
from aigc_lab.errors import UsageError
from aigc_lab.experiment.protocol import load_protocol
from aigc_lab.extractors.shared import lookup
from aigc_lab.host import content
from aigc_lab.host.weights import WeightsPolicy
from aigc_lab.metrics.base import Evidence, Metric
from aigc_lab.modalities.base import modality_of
from aigc_lab.scoring.inputs import GivenDataset


def chosen_metrics(
    names: Sequence[str] | None,
    protocol: str | None,
    features: str | None,
    evidence: Evidence,
    weights: WeightsPolicy,
    say: Callable[[str], None],
    leave_out: Callable[[str, str], None],
) -> list[Metric]:
    """The metrics of `names` or a `protocol`, else the panel of the modality. `leave_out` is told of each metric of the
    panel that cannot be computed. Raises `UsageError` for a metric that was asked for and cannot be.
    """
    if names is not None and protocol is not None:
        raise UsageError("--metrics and --protocol say the same in two ways; give one of them")
    chosen = features
    best = best_features(evidence.dataset, weights) if chosen is None else None
    if best is not None:
        chosen, why = best
        say(why)
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
        # A protocol says itself which features it reads, unless the user does.
        options = {"features": chosen} if chosen and (features or protocol is None) else {}
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


def best_features(dataset: Dataset, weights: WeightsPolicy) -> tuple[str, str] | None:
    """The extractor for samples like those of a dataset, and why it was chosen; None where each metric has its own."""
    # A classifier that is trained on given samples would judge the very samples that it knows.
    classified = not isinstance(dataset, GivenDataset) and dataset.shape.classes is not None
    return modality_of(dataset.shape).best_features(dataset, weights, classified=classified)
