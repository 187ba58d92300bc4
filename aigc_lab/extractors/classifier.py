"""A small classifier of the dataset's own classes, trained once on its train split and stored by hash (`clf:…`)."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor

from aigc_lab import noise
from aigc_lab.data.base import Dataset
from aigc_lab.errors import Failure, UsageError
from aigc_lab.extractors import base
from aigc_lab.extractors.shared.small_classifier import BATCH, DIMENSIONS, LR, VERSION, Network, fit
from aigc_lab.host.files import locked, write_atomically
from aigc_lab.host.weights import WeightsPolicy
from aigc_lab.samples import Images
from aigc_lab.shape import Modality
from aigc_lab.statistics.frechet import frechet_distance

_STEPS = 300
_ACCURACY_GATE = 0.9
# Part of the key of a stored classifier.
_RECIPE = f"{VERSION} d{DIMENSIONS} steps{_STEPS} batch{BATCH} lr{LR}"


class Classifier(base.Extractor):
    """Classifier identified by the sha256 of its stored weights. The same recipe gives other bits on other machines, so
    scores of two files are never compared.
    """

    short = "clf"
    dimensions = DIMENSIONS

    def __init__(self, weights: bytes, dataset: Dataset, device: str) -> None:
        self.identity = f"clf:{dataset.name}:{hashlib.sha256(weights).hexdigest()[:8]}"
        self.network = Network(dataset.shape)
        self.network.load_state_dict(load(weights))
        self.network.to(device).to(memory_format=torch.channels_last).eval().requires_grad_(False)

    @classmethod
    def check(cls, dataset: Dataset, weights: WeightsPolicy) -> None:
        if dataset.shape.modality != Modality.IMAGES or dataset.shape.classes is None:
            raise UsageError(
                f"the classifier features need labelled images, and dataset {dataset.name} holds "
                f"{dataset.shape}, {dataset.shape.classes or 'no'} classes; choose a protocol without them"
            )

    @classmethod
    def prepare(
        cls,
        dataset: Dataset,
        *,
        cache: Path,
        weights: WeightsPolicy,
        device: str,
        say: Callable[[str], None],
        rounds: int = 1,
    ) -> "Classifier":
        """Stored classifier of this dataset; trained, tested and stored first if there is none (a few seconds).

        `rounds` multiplies the training steps for judges that must be better. Raises `Failure` if the classifier fails
        its test.
        """
        folder = cache / "classifiers"
        recipe = _RECIPE if rounds == 1 else f"{_RECIPE} rounds{rounds}"
        key = hashlib.sha256(f"{recipe} {dataset.digest}".encode()).hexdigest()
        index = folder / f"{dataset.name}-{key[:16]}.json"
        stored = base.addressed(index)
        if stored is not None:
            return cls(stored, dataset, device)
        folder.mkdir(parents=True, exist_ok=True)
        lock = index.with_suffix(".lock")
        # Of two processes that find none, one trains and the other reads: two trainings would differ in their bits.
        with locked(lock):
            try:
                stored = base.addressed(index)
                if stored is not None:
                    return cls(stored, dataset, device)
                if index.is_file():
                    say(f"the stored classifier of {index} is missing or damaged")
                say(f"training the classifier that judges {dataset.name}, once")
                content, facts = _train(dataset, device, rounds)
                extractor = cls(content, dataset, device)
                facts |= _probe(extractor, dataset)
                digest = hashlib.sha256(content).hexdigest()
                # The weights first: an index that exists points at a file that exists.
                write_atomically(folder / f"{digest}.safetensors", content)
                facts |= {"dataset": dataset.name, "data": dataset.digest, "recipe": recipe, "sha256": digest}
                write_atomically(index, json.dumps(facts, indent=2).encode())
                return extractor
            finally:
                lock.unlink(missing_ok=True)

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        vectors, logits = self.network(images)
        return vectors, logits


def _train(dataset: Dataset, device: str, rounds: int) -> tuple[bytes, dict[str, object]]:
    """Trained weights as safetensors bytes, and facts about the training."""
    steps = rounds * _STEPS
    network = fit(dataset.load("train"), dataset.shape, steps, device=device)
    weights = {name: tensor.contiguous().cpu() for name, tensor in network.state_dict().items()}
    return save(weights), {"steps": steps}


def _probe(extractor: Classifier, dataset: Dataset) -> dict[str, object]:
    """Facts about a classifier that passed its test: accuracy on the reference, and FD of damaged reference images to
    the holdout, which must rise with noise and with dropped modes. Raises `Failure` for one that does not pass.
    """
    reference, holdout = dataset.load("reference"), dataset.load("holdout")
    assert isinstance(reference, Images) and isinstance(holdout, Images) and reference.labels is not None
    real = extractor.extract(holdout).vectors
    clean = extractor.extract(reference)
    assert clean.logits is not None
    accuracy = (clean.logits.argmax(1) == reference.labels).double().mean().item()

    def noisy(strength: float) -> Images:
        static = noise.draw(noise.Draw(tuple(reference.values.shape)), "probe")
        return Images(reference.unit() + strength * static)

    classes = dataset.shape.classes or 0
    by_noise = [frechet_distance(extractor.extract(noisy(s)).vectors, real) for s in (0.0, 0.2, 0.4, 0.8)]
    by_modes = [
        frechet_distance(clean.vectors[reference.labels >= dropped], real)
        for dropped in sorted({0, classes // 4, classes // 2, classes - 1})  # fewer steps of two or three classes
    ]
    facts = {"accuracy": accuracy, "fd_by_noise": by_noise, "fd_by_modes_dropped": by_modes}
    monotone = all(list(row) == sorted(set(row)) for row in (by_noise, by_modes))
    if accuracy < _ACCURACY_GATE or not monotone:
        raise Failure(
            f"the classifier for {dataset.name} cannot serve as a judge: accuracy {accuracy:.3f} on the reference "
            f"split (at least {_ACCURACY_GATE} wanted), FD under rising noise {_listed(by_noise)}, under dropped "
            f"classes {_listed(by_modes)} (both must rise); choose a protocol with other features"
        )
    return dict(facts)


def _listed(values: list[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)
