"""What every extractor of features must do, whoever wrote it."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch

from aigc_lab.contracts.base import Broken, Contracts
from aigc_lab.data.base import Dataset
from aigc_lab.data.ring import Ring
from aigc_lab.errors import UsageError
from aigc_lab.extractors.base import Extractor, Features
from aigc_lab.host.weights import WeightsPolicy
from aigc_lab.modalities.base import modality_of
from aigc_lab.samples import Samples
from aigc_lab.statistics.frechet import frechet_distance

# Of the largest number of a set's vectors: other batches are added up in another order, and no further away than that.
_ROUNDING = 1e-4


@dataclass(frozen=True)
class Case:
    """An extractor, a dataset of images that it can serve, and how many of these pass through it."""

    kind: type[Extractor]
    dataset: Dataset
    cache: Path
    weights: WeightsPolicy
    n: int = 64
    say: Callable[[str], None] = lambda text: None

    def another(self) -> Extractor:
        return self.kind.prepare(self.dataset, cache=self.cache, weights=self.weights, device="cpu", say=self.say)

    @cached_property
    def extractor(self) -> Extractor:
        """Prepared once: nothing here may change it."""
        return self.another()

    @cached_property
    def images(self) -> Samples:
        """The first `n` images, or sentences, of the training split; all if there are fewer."""
        return self.dataset.load("train").take(slice(0, self.n))

    def copy(self) -> Samples:
        """The images once more, for whoever may write into them."""
        return replace(self.images, values=self.images.values.clone(), labels=None)

    @cached_property
    def features(self) -> Features:
        return self.extractor.extract(self.copy())


EXTRACTOR: Contracts[Case] = Contracts()


@EXTRACTOR.add()
def its_scores_have_a_name(case: Case) -> None:
    """A score is called fd_<short>: with a space or a bar in it, tables and signatures would come apart."""
    if not re.fullmatch(r"[A-Za-z]\w*", case.kind.short):
        raise Broken(f"short is {case.kind.short!r}: letters, digits and _ only")


@EXTRACTOR.add()
def what_it_cannot_serve_is_refused_before_anything_is_loaded(case: Case) -> None:
    """Otherwise a sweep would train its first run for hours, and fail when it is scored."""
    points = Ring(Ring.Config(), case.cache)
    try:
        case.kind.check(points, case.weights)
    except UsageError:
        return
    raise Broken("check lets points through: leave Extractor.check as it is, or call super().check(dataset, weights)")


@EXTRACTOR.add()
def its_identity_names_its_weights(case: Case) -> None:
    """Features are stored, and scores compared, under the identity: it must be the same for the same, in one line."""
    first, second = case.extractor.identity, case.another().identity
    if not re.fullmatch(r"[^\s|][^|\n]*", first):
        raise Broken(f"identity is {first!r}: one line without |, which parts a signature")
    if first != second:
        raise Broken(f"two objects are {first} and {second}: build the network from stored weights or a fixed seed")


@EXTRACTOR.add(its_identity_names_its_weights)
def every_image_has_one_vector_of_finite_numbers(case: Case) -> None:
    """Distances are computed from these numbers; one NaN makes every score NaN."""
    vectors, logits, n = case.features.vectors, case.features.logits, len(case.images)
    if vectors.ndim != 2:
        raise Broken(f"vectors of {n} images are {list(vectors.shape)}, not [{n}, d]")
    declared = case.kind.dimensions
    if declared is not None and vectors.shape[1] != declared:
        raise Broken(f"vectors have {vectors.shape[1]} numbers, and the class declares dimensions = {declared}")
    if logits is not None and (logits.ndim != 2 or not logits.isfinite().all()):
        raise Broken(f"logits of {n} images are {list(logits.shape)}, not finite numbers [{n}, classes]")


@EXTRACTOR.add(every_image_has_one_vector_of_finite_numbers)
def a_vector_does_not_depend_on_the_images_beside_it(case: Case) -> None:
    """A score would depend on the size of a batch, which nobody chooses. The usual cause is a network in train()."""
    away = _apart(case.features, case.extractor.extract(case.copy(), block=5))
    if away is not None:
        raise Broken(f"in batches of 5 {away}: put the network in eval(), and use no statistics of the batch")


@EXTRACTOR.add(every_image_has_one_vector_of_finite_numbers)
def two_objects_give_the_same(case: Case) -> None:
    """Real samples' features come from the cache of another day: under one identity they must be the same numbers."""
    away = _apart(case.features, case.another().extract(case.copy()))
    if away is not None:
        raise Broken(f"of two objects {away}: build the network from stored weights or a fixed seed")


def _apart(first: Features, second: Features) -> str | None:
    """A sentence on the largest difference of two passes over the same images; None if they are equal."""
    for what, a, b in (("vectors", first.vectors, second.vectors), ("logits", first.logits, second.logits)):
        if a is None or b is None:
            if a is not b:
                return f"{what} are there once and once not"
            continue
        away, size = (a - b).abs().max().item(), a.abs().max().item()
        if away > _ROUNDING * size:
            return f"the {what} are up to {away:.3g} apart (the largest number is {size:.3g})"
    return None


@EXTRACTOR.add(every_image_has_one_vector_of_finite_numbers)
def looking_changes_nothing(case: Case) -> None:
    """A score is taken in the middle of a training: its images and torch's random numbers belong to the run."""
    images = case.copy()
    weights = {name: tensor.clone() for name, tensor in case.extractor.network.state_dict().items()}
    before = torch.get_rng_state()
    case.extractor.extract(images)
    if not torch.equal(images.values, case.images.values):
        raise Broken("it writes into the images that it is given: work on a copy")
    if not torch.equal(torch.get_rng_state(), before):
        raise Broken("it draws from torch's random numbers: use a torch.Generator of its own, or none")
    after = case.extractor.network.state_dict()
    moved = next((name for name, tensor in weights.items() if not torch.equal(after[name], tensor)), None)
    if moved is not None:
        raise Broken(f"{moved} of its network has changed: put the network in eval() and train nothing")


@EXTRACTOR.add(every_image_has_one_vector_of_finite_numbers)
def noise_is_further_from_images_than_other_images_are(case: Case) -> None:
    """The very least that features are for: a distance that cannot see this can see nothing."""
    images = case.images
    static = case.extractor.extract(modality_of(images).noise(images, len(images), "contract")).vectors
    vectors, half = case.features.vectors, len(case.images) // 2
    first, second = vectors[:half], vectors[half : 2 * half]
    real, other = frechet_distance(first, second), frechet_distance(first, static[:half])
    if not other > real:
        raise Broken(
            f"its Fréchet distance of {half} images to {half} others is {real:.4g}, and to noise {other:.4g}: "
            "it sees nothing"
        )
