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

# So many of the generated samples are judged: a percentage is then known to ±1, and 50,000 would take minutes.
_JUDGED = 10_000


class Memorisation(base.FeatureMetric):
    """Flags to read beside a distance, which a copy of real samples wins. Both are near their floor for samples that
    were not copied, and below it for copies; noise passes, and neither is a quality to be optimised.

    `auth_pct`: the percentage of generated samples that are further from their nearest training sample than this is
    from the nearest other one. Copies have 0. Its interval is Clopper and Pearson's, the training set as it is.

    `fd_gap`: FD to training samples minus FD to as many real samples that nobody trained on (the reference). Below 0:
    the training set is nearer than unseen data. Where a dataset's splits are of different populations (MNIST's test
    set has other writers), the floor says how far that alone goes. It has little power where the training set is large:
    copies of 4,000 of MNIST's 50,000 are no nearer to 10,000 of them (and their auth_pct is 0). ±1.96 standard errors
    of the infinitesimal jackknife of all three sets.
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

        def new(samples: Samples | base.Part) -> Tensor:
            """Which samples are authentic."""
            return authentic(Features(vectors(samples)).some(_JUDGED).vectors, train)

        def gap(samples: Samples | base.Part, unseen: Tensor) -> tuple[float, float]:
            return gap_and_error(Features(vectors(samples)).some(_JUDGED).vectors, train, unseen, each)

        def alone(part: base.Part) -> dict[str, float]:
            return {"auth_pct": 100 * float(new(part).double().mean())}

        def between(floor: base.Part, against: base.Part) -> dict[str, float]:
            return {"fd_gap": gap(floor, vectors(against))[0]}

        floors = self.floors_alone(evidence, signature, alone)
        floors |= self.floors(evidence, signature, between, used=lambda made, real: made)
        fresh, (apart, error) = new(evidence.generated), gap(evidence.generated, reference)
        low, high = clopper_pearson(int(fresh.sum()), len(fresh))
        auth, margin = 100 * float(fresh.double().mean()), Z95 * error
        return [
            base.Score(self.named(name), value, *ends, n, floors[name], signature, "higher")
            for name, value, ends in (
                ("auth_pct", auth, (100 * low, 100 * high)),
                ("fd_gap", apart, (apart - margin, apart + margin)),
            )
        ]


def closeness(generated: Tensor, train: Tensor) -> Tensor:
    """[N]: how far each generated vector is from its nearest training vector, over how far that is from the nearest
    other one. 0 for a copy; a copy of a training vector that is there twice too.
    """
    away, index = nearest(generated, train)
    picked, back = torch.unique(index[:, 0], return_inverse=True)
    around = nearest_others(train, picked)[0][:, 0][back]
    return torch.where(away[:, 0] > 0, away[:, 0] / around, 0.0)


def authentic(generated: Tensor, train: Tensor) -> Tensor:
    """Which generated vectors [N] are no noisy copies of their nearest training vector."""
    return closeness(generated, train) > 1


def gap_and_error(generated: Tensor, train: Tensor, unseen: Tensor, each: int | None = None) -> tuple[float, float]:
    """FD(generated, train) − FD(generated, unseen), and its standard error as all three sets vary: of the infinitesimal
    jackknife (`frechet.influences`), in which a generated vector counts by the difference of what it does to both. Of
    the two real sets a seeded choice of `each` is used, or all.
    """
    made = Gaussian.of(generated)

    def compared(rows: Tensor) -> tuple[float, Tensor, Tensor]:
        some = rows if each is None else Features(rows).some(each).vectors
        real = Gaussian.of(some)
        return distance(made, real), *influences(made, generated, real, some)

    to_train, of_made, of_train = compared(train)
    to_unseen, of_made_too, of_unseen = compared(unseen)
    variance = sum(float(part.var()) / len(part) for part in (of_made - of_made_too, of_train, of_unseen))
    return to_train - to_unseen, math.sqrt(variance)


def look_alikes(
    generated: Images, train: Images, made: Features, known: Features, *, rows: int = 10, columns: int = 5
) -> Images:
    """A picture's tiles, row by row: the generated image that is closest to a copy, and the `columns` training images
    nearest to it; then the second closest, and so on. `pictures.grid(…, columns=columns + 1)` draws it.
    """
    order = closeness(made.vectors, known.vectors).argsort()[:rows]
    _, index = nearest(made.vectors[order], known.vectors, columns)
    sources, found = generated.take(made.rows[order]).canonical(), train.take(known.rows[index.flatten()]).canonical()
    size = sources.values.shape[1:]
    found_rows = found.values.reshape(len(order), -1, *size)
    return Images(torch.cat([sources.values[:, None], found_rows], 1).reshape(-1, *size))
