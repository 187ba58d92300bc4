"""MIG (Chen et al. 2018), SAP (Kumar et al. 2018) and DCI (Eastwood & Williams 2018): codes against true factors."""

from collections.abc import Callable
from importlib.metadata import version
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from aigc_lab.config import Count, Strict
from aigc_lab.data.base import SPLITS, Dataset, Factors
from aigc_lab.errors import NotFinite
from aigc_lab.extractors.base import choice
from aigc_lab.metrics import base
from aigc_lab.metrics.shared.conditioning import conditions, given_labels
from aigc_lab.samples import Samples
from aigc_lab.statistics import disentanglement
from aigc_lab.statistics.disentanglement import BINS, LEAF, TREES, Coded
from aigc_lab.statistics.intervals import Z95

# More latents than a few hundred are no code whose single numbers anyone reads, and take minutes.
_MOST_LATENTS = 256
_REPLICATES, _CHANCES = 100, 10
# Forests are grown anew in each replicate, and Student's 97.5 % quantile with 9 degrees of freedom is of ten of them.
_REGROWN, _T95, _REGROWN_BY_CHANCE = 10, 2.2621571627, 3
_DCI = ("dci_disentanglement", "dci_completeness", "dci_informativeness")


class Disentanglement(base.Metric):
    """Scores of a system's code, not of its samples: the means of q(z|x) of n real samples, a seeded choice, against
    the factors that they were drawn from. All lie in [0, 1].

    `mig` and `sap` ask whether one latent alone tells a factor; `dci_disentanglement` whether a latent is of use for
    one factor only, `dci_completeness` whether one latent only is of use for a factor, `dci_informativeness` whether
    all latents together tell it. Means are read whatever their scale: a latent that is hardly active counts in full,
    though draws of it say little. A code rotated by 45° in the plane of two of F factors loses their share of MIG and
    SAP, 2/F, and stays as informative.

    The probabilities of a categorical code (`Coder.one_hot_sizes`) are read as one latent, the number of the likeliest
    class: column by column, two of them tell a factor equally well, and a perfect code has a MIG of 0. More than 20
    classes share the bins of the histogram, and `sap` asks for an order of the classes where a factor has one.

    Here the floor is chance and lies below: the score of the same codes, each given to another sample. Intervals are of
    a bootstrap over samples: ±1.96 standard errors for `mig` and `sap`; for DCI, with new forests each time, ±2.26 of
    ten; they cover the expectation at this n. Histograms of few samples find about (bins − 1)² / 2n nats where there
    are none, which takes a perfect code's MIG to 0.88 at n = 600 and to 0.99 at 10,000.
    """

    needs: ClassVar[frozenset[base.Need]] = frozenset({"codes"})
    fewest: ClassVar[int] = 100

    class Config(Strict):
        limit: Count = Field(10_000, ge=200, description="real samples that mig and sap are of, at most")
        fitted: Count = Field(2000, ge=200, description="of them, those of dci, at most: half fit forests, half test")

    @property
    def gives(self) -> dict[str, base.Better]:
        return dict.fromkeys(("mig", "sap", *_DCI), "higher")

    def check(self, dataset: Dataset, samples: int) -> None:
        if len(dataset.factor_names or ()) < 2:
            raise ValueError(
                f"it compares codes with the factors that samples were drawn from: those of dataset {dataset.name} are "
                "not known (data: shapes has some)"
            )
        super().check(dataset, samples)

    def meaningless(self, evidence: base.Evidence) -> dict[str, str]:
        system = evidence.system
        assert isinstance(system, base.Coder)
        with torch.inference_mode():
            few = evidence.real.reference.take(slice(0, 20)).to(base.device_of(system))
            mean = given_labels(system, few).encode(few.as_inputs())[0]
            latents = gathered(system, mean).shape[1]
        if 2 <= latents <= _MOST_LATENTS:
            return {}
        return dict.fromkeys(self.gives, f"the code has {latents} latents: from 2 to {_MOST_LATENTS} are compared")

    def scores(self, evidence: base.Evidence) -> list[base.Score]:
        reference, system = evidence.real.reference, evidence.system
        assert isinstance(system, base.Coder)
        factors = factors_of(evidence.dataset, reference)
        rows = choice(len(reference), min(self.config.limit, len(reference)))
        codes = gathered(system, means(system, reference.take(rows))).numpy()
        nominal = tuple(name in factors.nominal for name in factors.names)
        coded = Coded(codes, factors.values[rows].numpy(), factors.sizes, nominal)
        count = min(self.config.fitted, len(rows))
        sizes = f"scored:{len(rows)}≤{self.config.limit}", f"forests:{count}≤{self.config.fitted}"
        how = f"bins:{BINS}", f"trees:{TREES}", f"leaf:{LEAF}", f"sklearn:{version('scikit-learn')}"
        classes = ["codes:likeliest-class"] if _one_hot_sizes(system) else []
        signature = self.signature(evidence, *sizes, *how, "codes:means", *classes, "floor:chance", *conditions(system))
        return [*_gaps(coded, signature), *_dci(coded, count, signature)]


def _gaps(coded: Coded, signature: str) -> list[base.Score]:
    """MIG and SAP of all samples."""
    measures: dict[str, Callable[[Coded], float]] = {"mig": disentanglement.mig, "sap": disentanglement.sap}
    n, random = len(coded), np.random.default_rng(0)
    drawn = [coded.take(random.integers(n, size=n)) for _ in range(_REPLICATES)]
    by_chance = [coded.mismatched(random.permutation(n)) for _ in range(_CHANCES)]
    scores = []
    for name, measure in measures.items():
        error = np.std([measure(each) for each in drawn], ddof=1)
        floor = base.Floor.of([measure(each) for each in by_chance])
        scores.append(_score(name, measure(coded), Z95 * float(error), n, floor, signature))
    return scores


def _dci(coded: Coded, n: int, signature: str) -> list[base.Score]:
    """DCI's three of n samples: forests are fitted to one half, and predict the other."""
    random = np.random.default_rng(1)
    rows = random.permutation(len(coded))[:n]
    fitted, tested = coded.take(rows[: n // 2]), coded.take(rows[n // 2 :])

    def resampled(part: Coded) -> Coded:
        return part.take(random.integers(len(part), size=len(part)))

    def mismatched(part: Coded) -> Coded:
        return part.mismatched(random.permutation(len(part)))

    dci = disentanglement.dci
    errors = np.std([dci(resampled(fitted), resampled(tested)) for _ in range(_REGROWN)], axis=0, ddof=1)
    chances = [dci(mismatched(fitted), mismatched(tested)) for _ in range(_REGROWN_BY_CHANCE)]
    return [
        _score(name, value, _T95 * float(error), n, base.Floor.of(list(chance)), signature)
        for name, value, error, chance in zip(
            _DCI, dci(fitted, tested), errors, zip(*chances, strict=True), strict=True
        )
    ]


def _score(name: str, value: float, margin: float, n: int, floor: base.Floor, signature: str) -> base.Score:
    return base.Score(name, value, max(value - margin, 0.0), min(value + margin, 1.0), n, floor, signature, "higher")


@torch.inference_mode()
def means(system: base.Coder, samples: Samples, block: int = 256) -> Tensor:
    """Means of q(z|x), float64 [n, d] on the host. Raises `NotFinite` with the count of those that are no numbers."""
    samples.check()
    device = base.device_of(system)
    parts = (samples.take(slice(first, first + block)).to(device) for first in range(0, len(samples), block))
    codes = torch.cat([given_labels(system, part).encode(part.as_inputs())[0].double().cpu() for part in parts])
    bad = int((~codes.isfinite().all(1)).sum())
    if bad:
        raise NotFinite(f"{bad} of {len(codes)} samples are encoded as NaN or infinity")
    return codes


def gathered(system: base.Coder, codes: Tensor) -> Tensor:
    """Codes [n, d] with the number of the likeliest class, one latent, in the place of the probabilities of each
    categorical code.
    """
    sizes = _one_hot_sizes(system)
    *blocks, rest = torch.split(codes, [*sizes, codes.shape[1] - sum(sizes)], 1)
    return torch.cat([*(block.argmax(1, keepdim=True).to(codes.dtype) for block in blocks), rest], 1)


def _one_hot_sizes(system: base.Coder) -> tuple[int, ...]:
    return tuple(getattr(system, "one_hot_sizes", ()))


def factors_of(dataset: Dataset, samples: Samples) -> Factors:
    """Factors of samples that are a split of the dataset, found by their values. Raises `ValueError` if they are none,
    or if the factors are not known.
    """
    for split in sorted(SPLITS, key="train".__eq__):
        whole = dataset.load(split)
        if whole is samples or torch.equal(whole.values, samples.values):
            factors = dataset.factors(split)
            if factors is not None:
                return factors
    raise ValueError(f"the real samples are no split of dataset {dataset.name} whose factors are known")
