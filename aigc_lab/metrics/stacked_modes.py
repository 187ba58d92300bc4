"""Captured modes of three stacked digits and reverse KL to equal shares (Metz et al. 2017), judged by a classifier."""

import torch
from pydantic import Field
from torch import Tensor

from aigc_lab import plugins
from aigc_lab.config import Strict, Times
from aigc_lab.data.base import Dataset
from aigc_lab.extractors.base import Extractor
from aigc_lab.host.weights import PUBLISHED
from aigc_lab.metrics import base
from aigc_lab.statistics.intervals import Z95, binomial_tail, bootstrap_standard_error, captured_interval, reverse_kl


class StackedModes(base.Metric):
    """Modes are ordered triples of digits. `modes` counts those with more stacks than the classifier's errors on all
    others explain, at 5 % over all modes; its interval is that of the ring's `modes`. `rkl` (nats, ±1.96 bootstrap
    standard errors) is taken over the classified modes as they are.

    The literature counts a mode with a single stack, so that a misread digit is a mode: its counts are no lower than
    these. A share of high-quality stacks has no meaning here, since the classifier names a digit in everything.
    """

    class Config(Strict):
        replicates: Times = Field(200, ge=20, description="bootstrap replicates behind the interval of rkl")

    @property
    def gives(self) -> dict[str, base.Better]:
        return {"modes": "higher", "rkl": "lower"}

    @property
    def extractor(self) -> str:
        return "stacked_digits"

    def check(self, dataset: Dataset, samples: int) -> None:
        plugins.find(Extractor, self.extractor).check(dataset, PUBLISHED)  # type: ignore[type-abstract]
        needed = 20 * (dataset.shape.classes or 0)
        if samples < needed:
            raise ValueError(f"{dataset.shape.classes} modes need at least {needed:,} samples, not {samples:,}")

    def scores(self, evidence: base.Evidence) -> list[base.Score]:
        count = evidence.dataset.shape.classes
        labels = evidence.real.reference.labels
        assert count is not None and labels is not None
        digits, judged = (
            _digits(evidence.features(self.extractor, samples).logits)
            for samples in (evidence.generated, evidence.real.reference)
        )
        each = round(count ** (1 / 3))
        errors = [confusion(labels // each ** (2 - channel) % each, judged[:, channel], each) for channel in range(3)]
        place = torch.tensor([each**2, each, 1])
        modes, n = (digits * place).sum(1), len(digits)
        hits = torch.bincount(modes, minlength=count)
        captured = captured_modes(hits, errors)
        low, high = captured_interval(hits.tolist(), n)
        rkl = reverse_kl(modes, count)
        margin = Z95 * bootstrap_standard_error(
            lambda rows: reverse_kl(modes[rows], count), n, replicates=self.config.replicates
        )
        signature = self.signature(
            evidence, evidence.identity(self.extractor), f"modes:{count}", f"bootstrap:{self.config.replicates}"
        )

        def of_one(part: base.Part) -> dict[str, float]:
            modes = (_digits(evidence.features(self.extractor, part).logits) * place).sum(1)
            captured = captured_modes(torch.bincount(modes, minlength=count), errors)
            return {"modes": captured, "rkl": reverse_kl(modes, count)}

        floors = self.floors_alone(evidence, signature, of_one)

        def score(name: str, value: float, low: float, high: float) -> base.Score:
            return base.Score(name, value, low, high, n, floors[name], signature, self.gives[name])

        return [
            score("modes", captured, min(low, captured), max(high, captured)),
            score("rkl", rkl, max(rkl - margin, 0.0), rkl + margin),
        ]


def _digits(logits: Tensor | None) -> Tensor:
    """Classified digit of each channel [N, 3], from logits [N, 3K]."""
    assert logits is not None
    return logits.reshape(len(logits), 3, -1).argmax(2)


def confusion(true: Tensor, judged: Tensor, classes: int) -> Tensor:
    """Confusion matrix [classes, classes] float64: the share of each true class (row) that is classified as each
    (column), measured on real samples.
    """
    table = torch.bincount(true * classes + judged, minlength=classes**2).reshape(classes, classes).double()
    return table / table.sum(1, keepdim=True).clamp_min(1)


def captured_modes(hits: Tensor, errors: list[Tensor]) -> int:
    """Number of the K³ modes with more `hits` [K³] than misclassified stacks of all others explain, at 5 % over all
    modes.

    Channels are classified independently, so a stack of (a, b, c) is classified as (i, j, k) with the product of their
    confusions `errors` [K, K]. Ten digits a channel are measured well where a thousand modes would not be. The true
    shares are not known, so the classified ones stand for them.
    """
    each, n = len(errors[0]), int(hits.sum())
    share = hits.double().reshape(each, each, each) / n
    arrive = torch.einsum("abc,ai,bj,ck->ijk", share, *errors)
    stay = share * torch.einsum("i,j,k->ijk", *(table.diagonal() for table in errors))
    strays = (arrive - stay).clamp_min(0).flatten()
    return int((binomial_tail(hits, n, strays) < 0.05 / len(hits)).sum())
