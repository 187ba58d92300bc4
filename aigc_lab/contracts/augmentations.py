"""What every augmentation must do, whoever wrote it: by itself, and in the loss of a small GAN, for each kind of
samples that it takes.
"""

from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from aigc_lab import noise, plugins
from aigc_lab.augmentations.base import Augmentation
from aigc_lab.contracts import system_case, system_losses, system_replicas, system_state, system_structure
from aigc_lab.contracts.base import Broken, Contracts, borrow
from aigc_lab.data.base import Dataset
from aigc_lab.errors import UsageError
from aigc_lab.noise import Draw
from aigc_lab.systems.base import System

_SAMPLES, _BATCH = 300, 6


class _Gan(NamedTuple):
    """A GAN of one kind of samples that ships, with small options, and its data. `sizes` are those of samples that an
    augmentation is tried on by itself.
    """

    system: str
    options: dict[str, Any]
    dataset: str
    sizes: tuple[tuple[int, ...], ...]


# Sizes of pictures: grey, coloured, not square.
_GANS = {
    "images": _Gan("dcgan", {"width": 8, "latent_size": 6}, "digits", ((1, 16, 16), (3, 12, 20))),
    "points": _Gan("point_gan", {"hidden": 8, "latent_size": 6}, "ring", ((2,), (5,))),
}
# Of a picture that is sampled where its pixels are.
_ROUNDING = 1e-5
# Brightness and contrast go beyond [−1, 1], and no further than a few times.
_FAR = 100.0


@dataclass(frozen=True)
class Case:
    """An augmentation of samples of one modality."""

    kind: type[Augmentation]
    modality: str = "images"

    @property
    def name(self) -> str:
        """What an experiment calls it."""
        file = plugins.file_of(self.kind) if plugins.source_of(self.kind) is not None else None
        return str(file) if file else plugins.name_of(self.kind)

    @cached_property
    def system(self) -> system_case.Case:
        """A small GAN that uses it."""
        gan, dataset = _GANS[self.modality], _dataset(self.modality)
        kind = plugins.find(System, gan.system)  # type: ignore[type-abstract]
        samples = dataset.load("train").take(slice(0, _SAMPLES))
        return system_case.Case(kind, dataset.shape, samples, gan.options | {"augment": self.name})

    @property
    def drawn(self) -> list[Tensor]:
        """Samples in [−1, 1] of several sizes [6, …]."""
        return [_uniform(size) for size in _GANS[self.modality].sizes]

    def memory(self, probability: float) -> dict[str, Tensor]:
        memory = self.kind().memory()
        if self.kind.probability is not None:
            memory[self.kind.probability].fill_(probability)
        return memory

    def changed(self, images: Tensor, *key: int | str, probability: float = 1.0) -> Tensor:
        augmentation = self.kind()
        draws = augmentation.noise("real", len(images))
        drawn = {name: noise.draw(what, *key, name) for name, what in draws.items()}
        return augmentation.changed(images, drawn, "real", self.memory(probability))


def cases(kind: type[Augmentation]) -> dict[str, Case]:
    """A case for each kind of samples that it takes and a GAN of which ships; the first is that of its default. Raises
    `UsageError` where there is none.
    """
    taken = []
    for modality in _GANS:
        with suppress(ValueError):
            kind().check_shape(_dataset(modality).shape)
            taken.append(modality)
    if not taken:
        raise UsageError(
            f"{plugins.name_of(kind)} changes {kind.modality}, and GANs that ship make {' or '.join(_GANS)}: "
            "'aigc-lab check' of your system tries it there"
        )
    return {"" if modality == taken[0] else modality: Case(kind, modality) for modality in taken}


def _dataset(modality: str) -> Dataset:
    kind = plugins.find(Dataset, _GANS[modality].dataset)  # type: ignore[type-abstract]
    return kind(kind.Config(), Path())


def _uniform(size: tuple[int, ...]) -> Tensor:
    return noise.draw(Draw((_BATCH, *size), "uniform"), "pictures")


AUGMENTATION: Contracts[Case] = Contracts()


@AUGMENTATION.add()
def its_noise_is_drawn_for_each_side(case: Case) -> None:
    """Real and made pictures that share their changes tell the critic which belong together."""
    real, fake = (case.kind().noise(which, 4) for which in ("real", "fake"))
    shared = sorted(real.keys() & fake.keys())
    if shared:
        raise Broken(f"noise {shared[0]!r} is drawn for both sides: put `which` into its name")
    for name, what in (real | fake).items():
        if not isinstance(what, Draw):
            raise Broken(f"noise {name!r} is a {type(what).__name__}: describe it as a Draw")
        if name == "latents":
            raise Broken("noise 'latents' is the generator's: give it a name of its own")


@AUGMENTATION.add(its_noise_is_drawn_for_each_side)
def shape_and_range_are_kept(case: Case) -> None:
    """The critic is built for pictures of this shape, in about this range."""
    for images in case.drawn:
        changed = case.changed(images, 0)
        if changed.shape != images.shape:
            raise Broken(f"{case.modality} of {list(images.shape)} become {list(changed.shape)}")
        if not changed.isfinite().all() or changed.abs().max() > _FAR:
            raise Broken(f"{case.modality} in [−1, 1] come to {changed.abs().max().item():.3g}")


@AUGMENTATION.add(shape_and_range_are_kept)
def the_same_key_gives_the_same_bits(case: Case) -> None:
    """A resumed run must see what an uninterrupted one saw, and a picture may not depend on the pictures before it."""
    images = case.drawn[0]
    before = images.clone()
    if not torch.equal(case.changed(images, 1), case.changed(images, 1)):
        raise Broken("the same samples and noise give others: draw nothing but what noise() declares")
    if not torch.equal(images, before):
        raise Broken("it changes its samples in place: use the form without underscore")


@AUGMENTATION.add(shape_and_range_are_kept)
def a_probability_of_zero_changes_nothing(case: Case) -> None:
    """A search begins there, and so does adaptive augmentation: the critic must see the pictures as they are."""
    if case.kind.probability is None:
        return
    for images in case.drawn:
        off = (case.changed(images, 2, probability=0.0) - images).abs().max().item()
        if off > _ROUNDING:
            raise Broken(f"with {case.kind.probability} = 0 a number is {off:.3g} off")


@AUGMENTATION.add(shape_and_range_are_kept)
def gradients_pass_through_it(case: Case) -> None:
    """The generator learns through what the critic sees, and penalties differentiate once more."""
    images = case.drawn[0].requires_grad_()
    changed = case.changed(images, 3)
    if not changed.requires_grad:
        raise Broken("no gradient reaches the samples: nothing may be detached or rounded")
    (gradient,) = torch.autograd.grad(changed.square().sum(), images, create_graph=True)
    if not gradient.isfinite().all() or not gradient.any():
        raise Broken("the gradient of the samples is zero or not finite")


borrow(
    AUGMENTATION,
    lambda case: case.system,
    the_same_key_gives_the_same_bits,
    system_structure.it_can_be_built,
    system_losses.losses_are_finite,
    system_losses.a_loss_draws_only_from_its_noise,
    system_losses.a_loss_leaves_its_arguments_alone,
    system_losses.a_step_asks_the_device_for_no_number,
    system_losses.a_step_makes_its_tensors_where_the_weights_are,
    system_losses.a_loss_is_a_function_of_its_arguments,
    system_state.a_seed_decides_the_weights_to_the_bit,
    system_state.a_restored_run_goes_on_as_if_never_stopped,
    system_replicas.it_stacks_under_vmap_or_says_why_not,
)
