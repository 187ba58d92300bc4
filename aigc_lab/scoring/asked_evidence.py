"""Evidence of samples that were asked for some classes alone: scores of classes take real samples of these."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from aigc_lab import plugins
from aigc_lab.data.base import Dataset
from aigc_lab.extractors.base import Features
from aigc_lab.metrics.base import Evidence, Metric, Part, Pool, Real
from aigc_lab.metrics.shared.classes import name_of
from aigc_lab.samples import Samples
from aigc_lab.scoring.evidence import evidence_of, pool_of
from aigc_lab.scoring.feature_store import FeatureStore

# More classes are not listed one by one.
_LISTED = 12


@dataclass(frozen=True)
class AskedEvidence:
    """Evidence with all real samples and, where the generated ones are of some of the real classes alone, with the real
    samples of these. `asked` and `left` are the numbers of the classes that were asked for and left out; empty where
    all were asked for.
    """

    whole: Evidence
    narrow: Evidence | None = None
    asked: Sequence[int] = ()
    left: Sequence[int] = ()

    def of(self, metric: Metric) -> Evidence:
        """What a metric scores: a metric of labels, the classes that were asked for."""
        return self.narrow if self.narrow is not None and "labels" in metric.needs else self.whole

    def note(self, metrics: Sequence[Metric]) -> str | None:
        """What those of the metrics that need labels leave out; None where nothing is left out."""
        names = [plugins.name_of(type(metric)) for metric in metrics if self.of(metric) is self.narrow]
        if self.narrow is None or not names:
            return None
        dataset, all_classes = self.whole.dataset, len(self.asked) + len(self.left)
        return (
            f"{', '.join(names)}: of {len(self.asked)} of {all_classes} classes, those that were asked for "
            f"({_listed(dataset, self.asked)}), beside real samples of these; left out: {_listed(dataset, self.left)}"
        )


def asked_evidence(
    generated: Samples,
    real: Real,
    dataset: Dataset,
    store: FeatureStore,
    split: str,
    system: object,
    details: Callable[[Real], Sequence[str]],
) -> AskedEvidence:
    """The evidence of given samples (see `evidence_of`), with the `details` of real samples in its signature. It is of
    some classes alone where both sets have labels, and the reference has classes that the generated samples lack.
    """
    whole = evidence_of(generated, real, dataset, store, split, system, details(real))
    if generated.labels is None or real.reference.labels is None:
        return AskedEvidence(whole)
    labels = torch.unique(generated.labels.cpu())
    has = torch.unique(real.reference.labels.cpu())
    left = has[~torch.isin(has, labels)].tolist()
    if not left or len(left) == len(has):
        return AskedEvidence(whole)
    asked = labels.tolist()
    listed = ",".join(map(str, asked))
    which = listed if len(asked) <= _LISTED else hashlib.sha256(listed.encode()).hexdigest()[:8]
    few = _of_classes(real, labels, len(generated))
    narrow = evidence_of(generated, few, dataset, store, split, system, [*details(few), f"asked:{which}"])

    def features(extractor: str, samples: Samples | Part) -> Features:
        # Generated samples pass through an extractor once.
        return (whole if samples is generated else narrow).features(extractor, samples)

    return AskedEvidence(whole, replace(narrow, features=features), asked, left)


def _of_classes(real: Real, labels: Tensor, n: int) -> Real:
    """The real samples of these classes [k], with a floor of n."""
    reference, train, pool = _chosen(real.reference, labels), real.train, real.pool
    assert pool is not None
    other = pool.wholes[-1]
    if other is real.reference:  # the only set, of which a half is held against the rest
        parts = Pool((reference,), len(reference) // 2)
    else:
        parts = pool_of(reference, _chosen(other, labels), pool.against is None)
    return Real.drawn(reference, parts, n, None if train is None else _chosen(train, labels))


def _chosen(samples: Samples, labels: Tensor) -> Samples:
    if samples.labels is None:
        return samples
    return samples.take(torch.isin(samples.labels.cpu(), labels).nonzero().flatten())


def _listed(dataset: Dataset, numbers: Sequence[int]) -> str:
    named = [name_of(dataset, number) for number in numbers[:_LISTED]]
    more = len(numbers) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")
