"""How codes relate to true factors of variation: MIG, SAP, and DCI's disentanglement, completeness, informativeness.

Pure functions of NumPy arrays, with the means of the codes in the place of draws of them (Locatello et al. 2019).
"""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

#: bins of equal width of each latent, and of each continuous factor
BINS = 20
#: trees of each of DCI's forests, and the fewest samples of a leaf
TREES, LEAF = 20, 5


@dataclass(frozen=True)
class Coded:
    """Codes [n, d] and true factors [n, F] of n samples; of each factor its number of values (None: continuous) and
    whether its values have no order.
    """

    codes: Numbers
    factors: Numbers
    sizes: tuple[int | None, ...]
    nominal: tuple[bool, ...]

    def __len__(self) -> int:
        return len(self.codes)

    def take(self, rows: Rows) -> Self:
        return replace(self, codes=self.codes[rows], factors=self.factors[rows])

    def mismatched(self, order: Rows) -> Self:
        """Every sample with the code of another: what codes of this distribution get by chance."""
        return replace(self, codes=self.codes[order])


class DCI(NamedTuple):
    disentanglement: float
    completeness: float
    informativeness: float


def mig(coded: Coded) -> float:
    """Mutual information gap (Chen et al. 2018) in [0, 1]: (I(z₁; v) − I(z₂; v)) / H(v), for each factor v of the two
    latents that tell most of it, and the mean over factors. Information is that of the histogram.

    >>> true = np.random.default_rng(0).integers(0, 4, (1000, 2)).astype(float)
    >>> told = Coded(true, true, (4, 4), (False, False))
    >>> mig(told) > 0.98, mig(told.mismatched(np.roll(np.arange(1000), 1))) < 0.02
    (True, True)
    """
    gaps = []
    for joint in _histograms(coded):
        whole, of_factor = _entropy(joint, (1, 2)), _entropy(joint.sum(1), 1)
        information = (_entropy(joint.sum(2), 1) + of_factor - whole) / of_factor[0]
        gaps.append(_gap(information))
    return float(np.mean(gaps))


def sap(coded: Coded) -> float:
    """Separated attribute predictability (Kumar et al. 2018) in [0, 1]: how much better the best latent alone predicts
    a factor than the second best, mean over factors.

    R² of a straight line for a factor with an order. For one without, the balanced accuracy of thresholds at the edges
    of the bins, (K·accuracy − 1) / (K − 1), so that both are 0 by chance and 1 at best.
    """
    gaps = []
    for number, joint in enumerate(_histograms(coded)):
        if coded.nominal[number]:
            of_class = joint[:, :, joint[0].sum(0) > 0]
            of_class = of_class / of_class.sum(1, keepdims=True)
            gaps.append(_gap((of_class.max(2).sum(1) - 1) / (of_class.shape[2] - 1)))
        else:
            gaps.append(_gap(_squared_correlations(coded.codes, coded.factors[:, number])))
    return float(np.mean(gaps))


def dci(fitted: Coded, tested: Coded) -> DCI:
    """Disentanglement, completeness and informativeness (Eastwood & Williams 2018), each in [0, 1].

    A random forest predicts each factor from all latents. One latent is disentangled if it is important for one factor
    only; a factor is complete if one latent only is important for it: 1 − entropy of the shares, in units of its
    maximum, weighted by importance over latents. Informativeness is 1 − error / error of the best constant on `tested`
    (R², and for a factor without an order the share of wrong classes), at least 0, mean over factors.
    """
    importances, explained = zip(*(_forest(fitted, tested, number) for number in _varying(fitted)), strict=True)
    table = np.stack(importances, 1)
    total = max(float(table.sum()), 1e-300)
    disentangled = float((_concentration(table) * table.sum(1)).sum() / total)
    return DCI(disentangled, float(_concentration(table.T).mean()), float(np.mean(explained)))


def _forest(fitted: Coded, tested: Coded, number: int) -> tuple[Numbers, float]:
    """Importance of each latent for one factor [d], which add up to 1 or are all 0, and the informativeness."""
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    kind = RandomForestClassifier if fitted.nominal[number] else RandomForestRegressor
    forest = kind(TREES, max_features=None, min_samples_leaf=LEAF, random_state=0)
    true = tested.factors[:, number]
    forest.fit(fitted.codes, fitted.factors[:, number])
    predicted = forest.predict(tested.codes)
    if fitted.nominal[number]:
        error, most = np.mean(predicted != true), 1 - np.unique(true, return_counts=True)[1].max() / len(true)
    else:
        error, most = np.mean((predicted - true) ** 2), np.var(true)
    return forest.feature_importances_, max(0.0, 1 - float(error / most)) if most > 0 else 0.0


def _concentration(table: Numbers) -> Numbers:
    """1 − entropy of each row's shares, in units of the largest there can be; 0 for a row of zeros."""
    shares = table / np.maximum(table.sum(1, keepdims=True), 1e-300)
    concentration: Numbers = 1 - _entropy(shares, 1) / math.log(table.shape[1])
    return np.where(table.sum(1) > 0, concentration, 0.0)


def _varying(coded: Coded) -> list[int]:
    """Numbers of the factors that take more than one value."""
    return [number for number, values in enumerate(coded.factors.T) if values.min() < values.max()]


def _histograms(coded: Coded) -> list[Numbers]:
    """Joint frequencies of each latent's bins and a factor's values, [d, BINS, K] for each factor."""
    n, d = coded.codes.shape
    first = _bins(coded.codes) + BINS * np.arange(d)
    joints = []
    for number, size in enumerate(coded.sizes):
        values = coded.factors[:, number]
        levels = _bins(values[:, None])[:, 0] if size is None else values.astype(np.int64)
        count = size or BINS
        cells = np.bincount((first * count + levels[:, None]).ravel(), minlength=d * BINS * count)
        joints.append(cells.reshape(d, BINS, count) / n)
    return joints


def _bins(values: Numbers) -> Rows:
    """Number of the bin of equal width between its column's ends that each value lies in; 0 in a constant column."""
    low, high = values.min(0), values.max(0)
    places = (values - low) / np.where(high > low, high - low, 1.0)
    bins: Rows = np.minimum((places * BINS).astype(np.int64), BINS - 1)
    return bins


def _entropy(frequencies: Numbers, axes: int | tuple[int, ...]) -> Numbers:
    logs = np.log(frequencies, out=np.zeros_like(frequencies), where=frequencies > 0)
    return np.asarray(-(frequencies * logs).sum(axes))


def _squared_correlations(codes: Numbers, factor: Numbers) -> Numbers:
    """R² of a straight line from each latent to the factor [d]; 0 for a latent that is constant."""
    codes, factor = codes - codes.mean(0), factor - factor.mean()
    variances = (codes**2).sum(0) * (factor**2).sum()
    return np.where(variances > 0, (factor @ codes) ** 2 / np.where(variances > 0, variances, 1.0), 0.0)


def _gap(values: Numbers) -> float:
    """Difference of the largest and the second largest value."""
    second, first = np.sort(values)[-2:]
    return float(first - second)
