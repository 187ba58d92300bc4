"""Signs of memorised training samples: authenticity (Alaa et al. 2022), and a Fréchet distance that is too good."""

import torch
from torch import Tensor

from aigc_lab.config import Strict
from aigc_lab.data.base import Dataset
from aigc_lab.extractors.base import Features
from aigc_lab.frechet import Gaussian, distance
from aigc_lab.metrics import base
from aigc_lab.neighbours import nearest, nearest_others
from aigc_lab.samples import Images
from aigc_lab.statistics import T95_OF_GROUPS, clopper_pearson, groups, jackknife_error


class Memorisation(base.Metric):
    """Flags to read beside a distance, which a copy of real samples wins. Both are near their floor for samples that
    were not copied, and below it for copies; noise passes, and neither is a quality to be optimised.

    `auth_pct`: the percentage of generated samples that are further from their nearest training sample than this is
    from the nearest other one. Copies have 0. Its interval is Clopper and Pearson's, the training set as it is.

    `fd_gap`: FD to training samples minus FD to as many real samples that nobody trained on (the reference). Below 0:
    the training set is nearer than unseen data. Where a dataset's splits are of different populations (MNIST's test
    set has other writers), the floor says how far that alone goes. It has little power where the training set is large:
    copies of 4,000 of MNIST's 50,000 are no nearer to 10,000 of them (and their auth_pct is 0). ±2.09 standard errors
    of a jackknife of 20 groups of all three sets.
    """

    needs = frozenset({"train"})
    tells = "copies"

    class Config(Strict):
        features: str = "classifier"

    @property
    def gives(self) -> dict[str, base.Better]:
        return {"auth_pct": "higher", "fd_gap": "higher"}

    @property
    def extractor(self) -> str:
        name: str = self.config.features
        return name

    def check(self, dataset: Dataset, samples: int) -> None:
        if samples < 100:
            raise ValueError(f"signs of memorisation need at least 100 samples, not {samples}")

    def scores(self, evidence: base.Evidence) -> list[base.Score]:
        generated, reference, floor, against, train = (
            evidence.features(self.extractor, samples).some(self.keeps).vectors
            for samples in (
                evidence.generated,
                evidence.real.reference,
                evidence.real.floor,
                evidence.real.against,
                evidence.train,
            )
        )
        each, n = min(len(train), len(reference), len(against)), len(evidence.generated)
        signature = self.signature(
            evidence,
            evidence.identity(self.extractor),
            f"train:{len(train)} of {len(evidence.train)}",
            f"gap at:{each}",
            f"cap:{self.keeps}",
        )
        known, unseen, unseen_floor = (Features(rows).some(each).vectors for rows in (train, reference, against))
        gap, error = gap_and_error(generated, known, unseen)
        gap_floor, _ = gap_and_error(floor, known, unseen_floor)
        new, new_floor = (authentic(vectors, train).double() for vectors in (generated, floor))
        low, high = clopper_pearson(int(new.sum()), len(new))
        auth = 100 * float(new.mean())
        margin = T95_OF_GROUPS * error
        return [
            base.Score("auth_pct", auth, 100 * low, 100 * high, n, 100 * float(new_floor.mean()), signature, "higher"),
            base.Score("fd_gap", gap, gap - margin, gap + margin, n, gap_floor, signature, "higher"),
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


def gap_and_error(generated: Tensor, train: Tensor, unseen: Tensor) -> tuple[float, float]:
    """FD(generated, train) − FD(generated, unseen), and its standard error by a jackknife that leaves a group out of
    all three sets.
    """
    sets = [rows.double() for rows in (generated, train, unseen)]
    parts = [groups(len(rows)).to(rows.device) for rows in sets]

    def gap(left: int) -> float:
        made, known, other = (Gaussian.of(rows[part != left]) for rows, part in zip(sets, parts, strict=True))
        return distance(made, known) - distance(made, other)

    replicates = [gap(left) for left in range(int(parts[0].max()) + 1)]
    return gap(-1), jackknife_error(torch.tensor(replicates, dtype=torch.float64))


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
