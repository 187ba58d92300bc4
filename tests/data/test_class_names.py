"""Names of the classes of published sets, beside those that torchvision has for the same files."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torchvision

from aigc_lab import plugins
from aigc_lab.data.base import Dataset
from aigc_lab.data.ring import Ring
from aigc_lab.runs.restore import restored
from aigc_lab.shape import Shape
from aigc_lab.systems.point_gan import PointGAN


def shape(name: str, place: Path) -> Shape:
    kind: type[Dataset] = plugins.find(Dataset, name)  # type: ignore[type-abstract]
    return kind(kind.Config(), place).shape


@pytest.mark.parametrize(
    ("name", "published"),
    [("fashion_mnist", torchvision.datasets.FashionMNIST), ("kmnist", torchvision.datasets.KMNIST)],
)
def test_names_are_those_of_torchvision(name: str, published: type, tmp_path: Path) -> None:
    assert list(shape(name, tmp_path).class_names or ()) == published.classes  # type: ignore[attr-defined]


def test_names_of_cifar_are_in_alphabetical_order_but_for_one(tmp_path: Path) -> None:
    ten, hundred = (shape(name, tmp_path).class_names or () for name in ("cifar10", "cifar100"))
    # As the authors' page lists them: animals stand between the vehicles, each part in order.
    assert (
        ten[:2] == ("airplane", "automobile") and ten[-2:] == ("ship", "truck") and list(ten[2:8]) == sorted(ten[2:8])
    )
    assert list(hundred) == sorted(set(hundred)) and len(hundred) == 100
    # Some that are known by their numbers from the files.
    assert {0: "apple", 19: "cattle", 49: "mountain", 88: "tiger", 99: "worm"}.items() <= dict(
        enumerate(hundred)
    ).items()


@pytest.mark.parametrize(
    "name", ["cifar10", "cifar100", "fashion_mnist", "kmnist", "shapes", "mnist", "digits", "stl10"]
)
def test_there_are_as_many_names_as_classes(name: str, tmp_path: Path) -> None:
    of = shape(name, tmp_path)
    assert len(of.names_of_classes) == (of.classes or 0) == len(set(of.names_of_classes))
    assert (of.class_names is None) == (name in ("mnist", "digits", "stl10"))
    assert Shape.load(of.dump()) == of


@pytest.mark.parametrize(("names", "known"), [(("north", "south"), ("north", "south")), (("one",), ("0", "1"))])
def test_a_system_knows_names_that_only_its_dataset_says(
    names: tuple[str, ...], known: tuple[str, ...], tmp_path: Path
) -> None:
    class Poles(Ring):
        @property
        def class_names(self) -> Sequence[str]:
            return names

    dataset = Poles(Poles.Config(modes=2, points=50), tmp_path)
    training = SimpleNamespace(batch_size=8, channels_last=False, ema=0.9)
    plan = SimpleNamespace(
        system_class=PointGAN,
        system_config=PointGAN.Config(hidden=4, conditional="concat"),
        dataset=dataset,
        training=training,
    )
    job: Any = SimpleNamespace(configuration=plan, seed=0)
    state, _ = restored(job, "cpu", [])
    assert state.average.shape.names_of_classes == known
