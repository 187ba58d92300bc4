"""The test that a trained classifier has to pass before it judges, of datasets with few classes."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F

from aigc_lab import noise
from aigc_lab.data.base import Dataset, Split
from aigc_lab.errors import Failure
from aigc_lab.extractors import classifier
from aigc_lab.samples import Images
from aigc_lab.shape import Modality, Shape


class Greys(Dataset):
    """Pictures of one grey each, about evenly far apart from class to class."""

    classes = 2

    @property
    def shape(self) -> Shape:
        return Shape(Modality.IMAGES, (1, 8, 8), classes=self.classes)

    def load(self, split: Split) -> Images:
        labels = torch.arange(120) % self.classes
        greys = 40 + 160 * labels / (self.classes - 1) + 2 * torch.randn(120, generator=noise.generator(split))
        return Images(greys.round().to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 8, 8).clone(), labels)


def perfect(classes: int) -> Any:
    """In the place of the network: mean and spread of a picture, and the class whose grey is nearest."""

    def extract(images: Images) -> SimpleNamespace:
        pixels = images.unit().flatten(1)
        greys = (40 + 160 * torch.arange(classes) / (classes - 1)) / 255
        nearest = (pixels.mean(1)[:, None] - greys).abs().argmin(1)
        vectors = torch.stack([pixels.mean(1), pixels.std(1)], 1)
        return SimpleNamespace(vectors=vectors, logits=F.one_hot(nearest, classes).float())

    return SimpleNamespace(extract=extract)


def test_its_training_does_not_wait_for_torchs_compiler() -> None:
    code = """
import sys, torch
from aigc_lab.extractors.shared.small_classifier import fit
from aigc_lab.samples import Images
from aigc_lab.shape import Modality, Shape
images = Images(torch.zeros(8, 1, 8, 8, dtype=torch.uint8), torch.arange(8) % 2)
fit(images, Shape(Modality.IMAGES, (1, 8, 8), classes=2), 2)
print([name for name in ("torch._dynamo", "sympy") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("classes", [2, 3, 4, 10])
def test_a_classifier_of_few_classes_can_judge(classes: int) -> None:
    dataset = type("Some", (Greys,), {"classes": classes})(None, Path())
    facts = classifier._probe(perfect(classes), dataset)
    assert facts["accuracy"] == 1.0
    rising = cast(list[float], facts["fd_by_modes_dropped"])
    assert len(rising) == min(classes, 4)
    assert rising == sorted(set(rising))


def test_one_that_sees_no_class_cannot() -> None:
    blind = perfect(2)
    seen = blind.extract
    blind.extract = lambda images: SimpleNamespace(
        vectors=seen(images).vectors[:, 1:].repeat(1, 2), logits=seen(images).logits
    )
    with pytest.raises(Failure, match="cannot serve as a judge"):
        classifier._probe(blind, Greys(None, Path()))
