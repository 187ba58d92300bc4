"""A small classifier of the dataset's own classes, trained once on its train split and stored by hash (`clf:…`)."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

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

    def __init__(self, weights: bytes, dataset: Dataset, device: str, facts: Mapping[str, Any] | None = None) -> None:
        self.facts = facts or {}
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
        its test, which is stored too: the next call says so at once.
        """
        folder = cache / "classifiers"
        recipe = _RECIPE if rounds == 1 else f"{_RECIPE} rounds{rounds}"
        key = hashlib.sha256(f"{recipe} {dataset.digest}".encode()).hexdigest()
        index = folder / f"{dataset.name}-{key[:16]}.json"
        stored = base.addressed(index)
        if stored is not None:
            return cls(stored, dataset, device, _facts(index))
        folder.mkdir(parents=True, exist_ok=True)
        refused = index.with_suffix(".refused")
        lock = index.with_suffix(".lock")
        # Of two processes that find none, one trains and the other reads: two trainings would differ in their bits.
        with locked(lock):
            try:
                stored = base.addressed(index)
                if stored is not None:
                    return cls(stored, dataset, device, _facts(index))
                if fault := _facts(refused).get("fault"):
                    raise Failure(fault)
                if index.is_file():
                    say(f"the stored classifier of {index} is missing or damaged")
                say(f"training the classifier that judges {dataset.name}, once")
                begun = time.perf_counter()
                content, facts = _train(dataset, device, rounds)
                extractor = cls(content, dataset, device)
                try:
                    facts |= _probe(extractor, dataset)
                except Failure as error:
                    write_atomically(refused, json.dumps(facts | {"fault": str(error)}, indent=2).encode())
                    raise
                facts["seconds"] = round(time.perf_counter() - begun, 1)
                facts |= {"dataset": dataset.name, "data": dataset.digest, "recipe": recipe}
                first = base.keep_addressed(index, content, facts)
                if first != content:
                    return cls(first, dataset, device, _facts(index))
                extractor.facts = _facts(index)
                return extractor
            finally:
                lock.unlink(missing_ok=True)

    @property
    def accuracy(self) -> str:
        """How much of the reference it sorts right, how much is needed and what the training took, in words; "" where
        that was not stored.
        """
        right, count, seconds = map(self.facts.get, ("right", "of", "seconds"))
        if right is None or count is None or seconds is None:
            return ""
        return f"{_accuracy(right, count)}, trained once in {seconds:.0f} s"

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
    right, count = int((clean.logits.argmax(1) == reference.labels).sum()), len(reference)

    def noisy(strength: float) -> Images:
        static = noise.draw(noise.Draw(tuple(reference.values.shape)), "probe")
        return Images(reference.unit() + strength * static)

    present = torch.unique(reference.labels)  # given ones may have gaps in their numbers
    classes = len(present)
    by_noise = [frechet_distance(extractor.extract(noisy(s)).vectors, real) for s in (0.0, 0.2, 0.4, 0.8)]
    by_modes = [
        frechet_distance(clean.vectors[reference.labels >= present[dropped]], real)
        for dropped in sorted({0, classes // 4, classes // 2, classes - 1})  # fewer steps of two or three classes
    ]
    monotone = all(list(row) == sorted(set(row)) for row in (by_noise, by_modes))
    if right < _ACCURACY_GATE * count or not monotone:
        distances = (
            f", FD under rising noise {_listed(by_noise)}, under dropped classes {_listed(by_modes)} (both must rise)"
        )
        raise Failure(
            f"the classifier for {dataset.name} cannot serve as a judge: {_accuracy(right, count)}"
            f"{'' if monotone else distances}; choose a protocol with other features"
        )
    facts = {"accuracy": right / count, "right": right, "of": count}
    return {**facts, "fd_by_noise": by_noise, "fd_by_modes_dropped": by_modes}


def _accuracy(right: int, count: int) -> str:
    return (
        f"it sorts {right:,} of {count:,} reference pictures right ({right / count:.1%}; {_ACCURACY_GATE:.0%} needed)"
    )


def _facts(path: Path) -> dict[str, Any]:
    """The facts beside stored weights, or beside none that passed; none where there is no such file."""
    try:
        facts = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _listed(values: list[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)
