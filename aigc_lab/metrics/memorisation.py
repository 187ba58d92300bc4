"""Signs of memorised training samples: authenticity (Alaa et al. 2022), and a Fréchet distance that is too good."""

import math

import torch
from torch import Tensor

from aigc_lab.data.base import Dataset
from aigc_lab.extractors.base import Features
from aigc_lab.metrics import base
from aigc_lab.samples import Images, Samples
from aigc_lab.statistics.frechet import Gaussian, distance, influences
from aigc_lab.statistics.intervals import Z95, clopper_pearson
from aigc_lab.statistics.neighbours import nearest, nearest_others

# Largest number of generated samples judged: it gives a percentage to ±1, and 50,000 would take minutes.
_JUDGED = 10_000


class Memorisation(base.FeatureMetric):
    """Signs of copying, to read beside a distance, which copies of real samples win. Both scores are near their floor
    for new samples and below it for copies. Noise passes, and neither is a quality to optimise.

    `auth_pct`: percentage of generated samples whose distance to the nearest training sample exceeds that sample's
    distance to its own nearest neighbour. Copies have 0. The interval is Clopper and Pearson's, the training set taken
    as fixed.

    `fd_gap`: FD to training samples minus FD to as many unseen real samples (the reference). Below 0 the generated
    samples are nearer to the training set than to unseen data. If the splits are of different populations (MNIST's test
    set has other writers), the floor shows the gap due to that alone. Power is low for large training sets: copies of
    4,000 of MNIST's 50,000 are no nearer to 10,000 of them, while their auth_pct is 0. ±1.96 standard errors of the
    infinitesimal jackknife of all three sets.
    """

    version = 2  # the gap's interval
    needs = frozenset({"train"})
    describes = frozenset({"auth_pct", "fd_gap"})
    tells = "copies"
    draws = 5  # a Fréchet distance with its influences twice each

    @property
    def gives(self) -> dict[str, base.Better]:
        return {self.named("auth_pct"): "higher", self.named("fd_gap"): "higher"}

    def check(self, dataset: Dataset, samples: int) -> None:
        if samples < 100:
            raise ValueError(f"signs of memorisation need at least 100 samples, not {samples}")

    def meaningless(self, evidence: base.Evidence) -> dict[str, str]:
        return {self.named("fd_gap"): f"it is 0 by construction: {base.SEEN}"} if base.seen(evidence) else {}

    def scores(self, evidence: base.Evidence) -> list[base.Score]:
        real = evidence.real

        def vectors(samples: Samples | base.Part) -> Tensor:
            return self.vectors(evidence, samples)

        train, reference = vectors(evidence.train), vectors(real.reference)
        each = min(len(train), len(reference), min(len(real.against), self.keeps))
        n = len(evidence.generated)
        signature = self.signature(
            evidence,
            evidence.identity(self.extractor),
            f"train:{len(train)} of {len(evidence.train)}",
            f"gap at:{each}",
            f"cap:{_JUDGED},{self.keeps}",
        )

        def authenticity(samples: Samples | base.Part) -> Tensor:
            """Authenticity of each sample."""
            return authentic(Features(vectors(samples)).some(_JUDGED).vectors, train)

        def gap(samples: Samples | base.Part, unseen: Tensor) -> tuple[float, float]:
            return gap_and_error(Features(vectors(samples)).some(_JUDGED).vectors, train, unseen, each)

        def alone(part: base.Part) -> dict[str, float]:
            return {"auth_pct": 100 * float(authenticity(part).double().mean())}

        def between(floor: base.Part, against: base.Part) -> dict[str, float]:
            return {"fd_gap": gap(floor, vectors(against))[0]}

        floors = self.floors_alone(evidence, signature, alone)
        floors |= self.floors(evidence, signature, between, used=lambda n, m: n)
        authentic_samples, (apart, error) = authenticity(evidence.generated), gap(evidence.generated, reference)
        low, high = clopper_pearson(int(authentic_samples.sum()), len(authentic_samples))
        auth, margin = 100 * float(authentic_samples.double().mean()), Z95 * error
        return [
            base.Score(self.named(name), value, *ends, n, floors[name], signature, "higher")
            for name, value, ends in (
                ("auth_pct", auth, (100 * low, 100 * high)),
                ("fd_gap", apart, (apart - margin, apart + margin)),
            )
        ]


def closeness(generated: Tensor, train: Tensor) -> Tensor:
    """Distance of each generated vector [N, d] to its nearest training vector, over the distance of that one to its
    nearest other: [N]. It is 0 for copies, also of a training vector that occurs twice.
    """
    away, index = nearest(generated, train)
    picked, back = torch.unique(index[:, 0], return_inverse=True)
    around = nearest_others(train, picked)[0][:, 0][back]
    return torch.where(away[:, 0] > 0, away[:, 0] / around, 0.0)


def authentic(generated: Tensor, train: Tensor) -> Tensor:
    """Whether each generated vector [N] is no noisy copy of its nearest training vector (Alaa et al. 2022)."""
    return closeness(generated, train) > 1


def gap_and_error(generated: Tensor, train: Tensor, unseen: Tensor, each: int | None = None) -> tuple[float, float]:
    """FD(generated, train) − FD(generated, unseen) of vectors [n, d], and its standard error as all three sets vary.

    The error is that of the infinitesimal jackknife (`frechet.influences`): a generated vector counts by the difference
    of its influences on both distances. `each` is the size of a seeded choice from both real sets, None for all.
    """
    gaussian = Gaussian.of(generated)

    def compared(rows: Tensor) -> tuple[float, Tensor, Tensor]:
        vectors = rows if each is None else Features(rows).some(each).vectors
        real = Gaussian.of(vectors)
        return distance(gaussian, real), *influences(gaussian, generated, real, vectors)

    to_train, to_train_influence, of_train = compared(train)
    to_unseen, to_unseen_influence, of_unseen = compared(unseen)
    variance = sum(
        float(part.var()) / len(part) for part in (to_train_influence - to_unseen_influence, of_train, of_unseen)
    )
    return to_train - to_unseen, math.sqrt(variance)


def look_alikes(
    generated: Images,
    train: Images,
    generated_features: Features,
    train_features: Features,
    *,
    rows: int = 10,
    columns: int = 5,
) -> Images:
    """Tiles of a picture, row by row: a generated image and the `columns` training images nearest to it, the `rows`
    images closest to a copy first. `pictures.grid(…, columns=columns + 1)` draws it.
    """
    order = closeness(generated_features.vectors, train_features.vectors).argsort()[:rows]
    _, index = nearest(generated_features.vectors[order], train_features.vectors, columns)
    sources, neighbours = (
        generated.take(generated_features.rows[order]).canonical(),
        train.take(train_features.rows[index.flatten()]).canonical(),
    )
    size = sources.values.shape[1:]
    neighbour_rows = neighbours.values.reshape(len(order), -1, *size)
    return Images(torch.cat([sources.values[:, None], neighbour_rows], 1).reshape(-1, *size))
