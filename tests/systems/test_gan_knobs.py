"""What every GAN can be told: packing, clipping, step ratios, noise and augmentation, and BEGAN's control.

What a critic saw and said is recorded by hooks, and what should have come of it is computed anew.
"""

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
import scipy.ndimage
import scipy.spatial.transform
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from aigc_lab import noise
from aigc_lab.data.shared.batches import Batches
from aigc_lab.nets import augmentation
from aigc_lab.samples import Images, Points, Samples
from aigc_lab.shape import Modality, Shape
from aigc_lab.systems.base import Phase, System
from aigc_lab.systems.began import BEGAN
from aigc_lab.systems.dcgan import DCGAN
from aigc_lab.systems.dirac import DiracGAN
from aigc_lab.systems.maxout_gan import MaxoutGAN
from aigc_lab.systems.point_gan import PointGAN
from aigc_lab.systems.wgan import WGAN
from aigc_lab.training.loop import train_one
from aigc_lab.training.state import TrainingState

Array = npt.NDArray[Any]

BATCH, SEED = 8, 3
PICTURES = Images(torch.randint(256, (40, 2, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8))
POINTS = Points(torch.randn(40, 3, generator=torch.Generator().manual_seed(0)))
SMALL: dict[type[System], dict[str, Any]] = {
    DCGAN: {"width": 4, "latent_size": 5},
    WGAN: {"width": 4, "latent_size": 5},
    PointGAN: {"hidden": 6, "latent_size": 5},
    MaxoutGAN: {"hidden": 6, "critic_hidden": 6, "layers": 1, "critic_layers": 1},
    BEGAN: {"width": 2, "latent_size": 5},
}


def data_of(kind: type[System]) -> Samples:
    return PICTURES if kind.modality == Modality.IMAGES else POINTS


def fresh(kind: type[System], **config: Any) -> TrainingState:
    shape = Shape(kind.modality, tuple(data_of(kind).values.shape[1:]))
    return TrainingState.fresh(
        kind, kind.Config(**SMALL[kind], **config), shape, seed=SEED, batch_size=BATCH, device="cpu"
    )


def train(state: TrainingState, steps: int) -> list[dict[str, float]]:
    """The scalars of each step, up to `steps` from the beginning."""
    batches = Batches(data_of(type(state.system)), BATCH, SEED)
    return [
        dict(progress.scalars)
        for progress in train_one(state, batches, seed=SEED, steps=steps, every=1, precision="fp32")
    ]


class Call(NamedTuple):
    seen: Tensor
    said: Tensor


def recorded(module: nn.Module) -> list[Call]:
    """All that goes in and comes out from now on."""
    calls: list[Call] = []
    module.register_forward_hook(
        lambda _, given, result: calls.append(Call(given[0].detach().clone(), result.detach().clone()))
    )
    return calls


def drawn(phase: Phase, step: int = 0, repeat: int = 0) -> dict[str, Tensor]:
    """The noise of a step of the loop."""
    return {
        name: noise.draw(what, SEED, step, phase.name, repeat, name, device="cpu") for name, what in phase.noise.items()
    }


def unit(*size: int, seed: int = 1) -> Tensor:
    return torch.rand(size, generator=torch.Generator().manual_seed(seed))


def normal(*size: int, seed: int = 1) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def range_of(batch: Any) -> Tensor:
    """A batch as a generator would make it."""
    values: Tensor = batch.signed() if isinstance(batch, Images) else batch.values
    return values


# ---- packing


@pytest.mark.parametrize("packing", [1, 2, 4])
@pytest.mark.parametrize("kind", [PointGAN, DCGAN, MaxoutGAN])
def test_a_critic_sees_consecutive_samples_together(kind: type[System], packing: int) -> None:
    state = fresh(kind, packing=packing)
    system: Any = state.system
    made, seen = recorded(system.generator), recorded(system.critic)
    train(state, 1)
    real = range_of(Batches(data_of(kind), BATCH, SEED)[0])
    # The critic's phase judges real and made samples, the generator's made ones.
    assert len(made) == 2 and len(seen) == 3
    for call, samples in zip(seen, (real, made[0].said, made[1].said), strict=True):
        assert call.seen.shape == (BATCH // packing, packing * samples.shape[1], *samples.shape[2:])
        assert call.said.shape == (BATCH // packing, 1)
        for row, pack in enumerate(call.seen):
            together = torch.cat([samples[packing * row + place] for place in range(packing)])
            torch.testing.assert_close(pack, together, rtol=0, atol=0)


@pytest.mark.parametrize("kind", [PointGAN, DCGAN])
def test_packs_must_fill_the_batch(kind: type[System]) -> None:
    system = fresh(kind, packing=2).system
    for size in (1, 7):
        with pytest.raises(ValueError, match="packing 2 does not divide the batch"):
            system.phases(size)
    with pytest.raises(ValueError, match=r"training\.batch_size to 6"):
        system.phases(7)


# ---- updates


def test_a_critic_may_be_updated_more_often() -> None:
    state = fresh(PointGAN, n_critic=3)
    system: Any = state.system
    critic, generator = state.phases
    assert (critic.name, critic.repeat, generator.name, generator.repeat) == ("critic", 3, "generator", 1)
    calls = recorded(system.critic)
    train(state, 2)
    assert len(calls) == 2 * (3 * 2 + 1)
    # Each of its updates has a batch of its own.
    batches = Batches(POINTS, BATCH, SEED)
    for number, call in enumerate([calls[index] for index in (0, 2, 4, 7, 9, 11)]):
        assert call.seen.equal(batches[number].values)


@pytest.mark.parametrize("kind", [DCGAN, PointGAN, WGAN])
def test_the_critics_step_is_a_multiple_of_the_generators(kind: type[System]) -> None:
    state = fresh(kind, lr=1e-3, critic_lr_ratio=4.0)
    rates = {name: optimizer.param_groups[0]["lr"] for name, optimizer in state.optimizers.items()}
    assert rates == {"critic": pytest.approx(4e-3), "generator": pytest.approx(1e-3)}
    rates = {phase.name: phase.optimizer.lr for phase in fresh(kind, lr=1e-3).phases}
    assert rates == {"critic": 1e-3, "generator": 1e-3}


def test_the_weights_of_wgan_stay_within_their_bound() -> None:
    state = fresh(WGAN, n_critic=2)
    system: Any = state.system
    assert max(weight.abs().max().item() for weight in system.critic.parameters()) > 0.5
    generator = max(weight.abs().max().item() for weight in system.generator.parameters())
    for steps in (1, 2):
        train(state, steps)
        sizes = [weight.abs().max().item() for weight in system.critic.parameters()]
        assert max(sizes) == pytest.approx(0.01, rel=1e-6)
    assert max(weight.abs().max().item() for weight in system.generator.parameters()) > 0.9 * generator > 0.5


@pytest.mark.parametrize("kind", [DCGAN, PointGAN, MaxoutGAN])
def test_a_critic_whose_loss_sees_no_constant_has_no_last_bias(kind: type[System]) -> None:
    for loss in ("minimax", "nonsaturating", "least_squares", "wasserstein", "hinge", "relativistic"):
        system: Any = fresh(kind, loss=loss).system
        *_, last = [part for part in system.critic.modules() if isinstance(part, nn.Linear | nn.Conv2d)]
        assert (last.bias is None) == (loss in ("wasserstein", "relativistic"))
        train(fresh(kind, loss=loss), 1)


# ---- what is refused


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"augment": "diffaugment"}, "augment.*images.*points"),
        ({"augment": "adaptive"}, "augment.*images.*points"),
        ({"penalty": "consistency"}, "consistency.*pictures.*points"),
    ],
)
def test_points_are_no_pictures(config: dict[str, Any], words: str) -> None:
    for kind in (PointGAN, MaxoutGAN):
        with pytest.raises(ValueError, match=words):
            fresh(kind, **config)


JITTER = """
from aigc_lab.augmentations.base import Augmentation
from aigc_lab.noise import Draw
from aigc_lab.shape import Modality

class Jitter(Augmentation):
    def check_shape(self, shape):
        if shape.modality != Modality.POINTS:
            raise ValueError(f"augment: jitter moves points, not {shape.modality}")

    def noise(self, which, count):
        return {f"augment_{which}": Draw((count, 1))}

    def changed(self, points, noise, which, memory):
        return points + STRENGTH * noise[f"augment_{which}"]
"""


def test_an_augmentation_says_itself_what_it_changes(tmp_path: Path) -> None:
    path, losses = tmp_path / "jitter.py", []
    for strength in ("0", "9"):
        path.write_text(JITTER.replace("STRENGTH", strength))
        losses.append(train(fresh(PointGAN, augment=str(path)), 1))
    plain = train(fresh(PointGAN), 1)
    assert losses[0] == plain and losses[1] != plain
    with pytest.raises(ValueError, match="augment: jitter moves points, not images"):
        fresh(DCGAN, augment=str(path))


def test_what_does_not_go_together_is_refused_with_a_reason() -> None:
    for kind in (DCGAN, PointGAN):
        with pytest.raises(ValidationError, match="clip.*minimax.*wasserstein"):
            kind.Config(loss="minimax", clip=0.01)
        kind.Config(loss="nonsaturating", clip=0.01)
        with pytest.raises(ValidationError, match="simultaneous.*n_critic is 2"):
            kind.Config(update="simultaneous", n_critic=2)
        for field in ("clip", "critic_lr_ratio", "packing", "n_critic"):
            with pytest.raises(ValidationError, match=field):
                kind.Config.model_validate({field: 0})
        with pytest.raises(ValidationError, match="penalty_weight"):
            kind.Config.model_validate({"penalty_weight": -1})
    # WGAN clips by default.
    with pytest.raises(ValidationError, match="clip"):
        WGAN.Config(loss="minimax")
    with pytest.raises(ValidationError, match="clip"):
        DiracGAN.Config(clip=0.1)


# ---- penalties in a system


@pytest.mark.parametrize(
    ("kind", "config"), [(PointGAN, {}), (PointGAN, {"packing": 2, "loss": "relativistic"}), (DCGAN, {})]
)
@pytest.mark.parametrize("weight", [None, 0.7])
def test_instance_noise_changes_what_the_critic_sees_by_as_much(
    kind: type[System], config: dict[str, Any], weight: float | None
) -> None:
    noisy, plain = (fresh(kind, penalty=name, penalty_weight=weight, **config) for name in ("instance_noise", "none"))
    seen = []
    for state in (noisy, plain):
        system: Any = state.system
        calls = recorded(system.critic)
        batch = Batches(data_of(kind), BATCH, SEED)[0]
        for phase in state.phases:
            phase.loss(batch, drawn(phase), 0)
        seen.append(calls)
    critic, generator = noisy.phases
    # The default is a tenth; the generator's phase adds noise of its own, to real samples too where it reads them.
    size = 0.1 if weight is None else weight
    order = [(critic, "real"), (critic, "fake"), (generator, "fake")]
    order += [(generator, "real")] if config.get("loss") == "relativistic" else []
    for (phase, which), here, there in zip(order, *seen, strict=True):
        added = drawn(phase)[f"instance_{which}"]
        assert added.shape == (BATCH, *data_of(kind).values.shape[1:])
        torch.testing.assert_close(here.seen, there.seen + size * added.reshape(there.seen.shape), rtol=0, atol=1e-6)


def test_lecam_keeps_moving_averages_of_what_the_critic_said() -> None:
    state = fresh(PointGAN, penalty="lecam", penalty_weight=0.5)
    system: Any = state.system
    calls = recorded(system.critic)
    scalars = train(state, 3)
    of_real = of_fake = 0.0
    for step, logged in enumerate(scalars):
        real, fake = (calls[3 * step + which].said.double().numpy() for which in (0, 1))
        penalty = ((real - of_fake) ** 2).mean() + ((fake - of_real) ** 2).mean()
        assert logged["loss/critic/penalty"] == pytest.approx(penalty, rel=1e-5)
        adversarial = np.logaddexp(0, -real).mean() + np.logaddexp(0, fake).mean()
        assert logged["loss/critic/total"] == pytest.approx(adversarial + 0.5 * penalty, rel=1e-5)
        of_real, of_fake = 0.99 * of_real + 0.01 * real.mean(), 0.99 * of_fake + 0.01 * fake.mean()
    assert system.real_anchor.item() == pytest.approx(of_real, rel=1e-5)
    assert system.fake_anchor.item() == pytest.approx(of_fake, rel=1e-5)
    assert abs(of_real) > 1e-5 and abs(of_fake) > 1e-5


def test_consistency_compares_real_pictures_with_their_changes() -> None:
    state = fresh(DCGAN, penalty="consistency", critic_norm="none")
    system: Any = state.system
    calls = recorded(system.critic)
    batch, critic = Batches(PICTURES, BATCH, SEED)[0], state.phases[0]
    loss = critic.loss(batch, drawn(critic), 0)
    real, _, changed = calls
    units = drawn(critic)["changes"]
    for index in range(BATCH):
        picture = range_of(batch)[index]
        picture = picture.flip(2) if units[index, 0] < 0.5 else picture
        # An eighth of 16 pixels: −2 to 2, alike likely.
        down, right = (math.floor(5 * units[index, place].item()) - 2 for place in (1, 2))
        torch.testing.assert_close(changed.seen[index], rolled(picture, down, right), rtol=0, atol=0)
    truth = (real.said - changed.said).square().mean()
    torch.testing.assert_close(loss.parts["penalty"], truth)
    torch.testing.assert_close(loss.total, loss.parts["adversarial"] + 10 * truth)


@pytest.mark.parametrize("loss", ["nonsaturating", "relativistic"])
def test_consensus_is_that_of_plain_autograd(loss: str) -> None:
    """½ ‖v‖² of both players, and what it does to each, by autograd on both losses at once."""
    state = fresh(PointGAN, penalty="consensus", penalty_weight=0.5, loss=loss)
    system: Any = state.system
    batch, noises = Batches(POINTS, BATCH, SEED)[0], {"latents": normal(BATCH, 5)}
    of_critic, of_generator = (list(part.parameters()) for part in (system.critic, system.generator))
    real, fake = system.critic(batch.values), system.critic(system.generator(noises["latents"]))
    softplus = nn.functional.softplus
    if loss == "relativistic":
        values = softplus(fake - real).mean(), softplus(real - fake).mean()
    else:
        values = softplus(-real).mean() + softplus(fake).mean(), softplus(-fake).mean()
    field = [
        gradient
        for value, weights in zip(values, (of_critic, of_generator), strict=True)
        for gradient in torch.autograd.grad(value, weights, create_graph=True)
    ]
    penalty = 0.5 * torch.cat([part.flatten() for part in field]).square().sum()
    for phase, value, weights in zip(state.phases, values, (of_critic, of_generator), strict=True):
        found = phase.loss(batch, noises, 0)
        torch.testing.assert_close(found.parts["penalty"], penalty, rtol=1e-4, atol=1e-8)
        here = torch.autograd.grad(found.total, weights)
        there = torch.autograd.grad(value + 0.5 * penalty, weights, retain_graph=True)
        for mine, truth in zip(here, there, strict=True):
            torch.testing.assert_close(mine, truth, rtol=1e-4, atol=1e-6)


# ---- BEGAN


@pytest.mark.parametrize(
    ("gamma", "control", "start", "reached"),
    [(0.7, 0.4, 0.0, None), (0.3, 0.2, 0.5, None), (1.0, 50.0, 0.2, 1.0), (0.0, 50.0, 0.6, 0.0)],
)
def test_the_control_of_began(gamma: float, control: float, start: float, reached: float | None) -> None:
    state = fresh(BEGAN, gamma=gamma, control=control, lr=3e-3)
    system: Any = state.system
    system.k.fill_(start)
    calls = recorded(system.critic)
    scalars = train(state, 3)
    k = start
    for step, logged in enumerate(scalars):
        # The critic on real pictures and on made ones, and then on made ones for the generator.
        seen = [(call.seen.double().numpy(), call.said.double().numpy()) for call in calls[3 * step : 3 * step + 3]]
        real, fake, later = (float(np.abs(picture - copy).mean()) for picture, copy in seen)
        np.testing.assert_allclose(seen[0][0], range_of(Batches(PICTURES, BATCH, SEED)[step]).numpy())
        assert logged["dynamics/k"] == pytest.approx(k, abs=1e-6)
        assert logged["loss/critic/total"] == pytest.approx(real - k * fake, rel=1e-5)
        assert logged["loss/generator/total"] == pytest.approx(later, rel=1e-5)
        assert logged["dynamics/convergence"] == pytest.approx(real + abs(gamma * real - fake), rel=1e-5)
        k = min(max(k + control * (gamma * real - fake), 0.0), 1.0)
        assert reached is None or k == reached
    assert system.k.item() == pytest.approx(k, abs=1e-6)
    assert reached is not None or (0 < k < 1 and abs(k - start) > 0.01)


# ---- augmentations that move and cut


def rolled(picture: Tensor, down: int, right: int) -> Tensor:
    """[C, H, W] moved by torch.roll, with 0 where that brings in the other side."""
    moved = picture.roll((down, right), (1, 2))
    for dimension, by in ((1, down), (2, right)):
        if by:
            moved.transpose(0, dimension)[slice(0, by) if by > 0 else slice(by, None)] = 0
    return moved


def test_a_shift_moves_by_whole_pixels_and_brings_in_nought() -> None:
    moves = [(0, 0), (1, 0), (0, -1), (3, 2), (-4, 5), (7, -11), (8, 0), (0, -12), (9, 20)]
    images = normal(len(moves), 2, 8, 12)
    down, right = torch.tensor(moves).T
    moved = augmentation.shift(images, down, right)
    for picture, found, by in zip(images, moved, moves, strict=True):
        assert found.equal(rolled(picture, *by))


def test_every_whole_shift_is_as_likely() -> None:
    """−4 to 4 of 32 pixels, of numbers in the middle and at the ends of nine equal stretches of [0, 1]."""
    picture = normal(1, 1, 32, 32)
    for index, by in enumerate(range(-4, 5)):
        numbers = torch.tensor([[0.9, (index + inside) / 9, 4.5 / 9] for inside in (0.01, 0.5, 0.99)])
        moved = augmentation.flip_and_shift(picture.expand(3, -1, -1, -1), numbers)
        sideways = augmentation.flip_and_shift(picture.expand(3, -1, -1, -1), numbers[:, [0, 2, 1]])
        mirrored = augmentation.flip_and_shift(picture.expand(3, -1, -1, -1), numbers - torch.tensor([0.5, 0, 0]))
        for down, right, mirror in zip(moved, sideways, mirrored, strict=True):
            assert down.equal(rolled(picture[0], by, 0)) and right.equal(rolled(picture[0], 0, by))
            assert mirror.equal(rolled(picture[0].flip(2), by, 0))


def cut_out(side: int, number: float) -> Array:
    """Which places lie in a stretch of half the side around a place that may be anywhere, and one beyond."""
    middle, half = math.floor(number * (side + 1 - side // 2 % 2)), side // 2
    return np.array([middle - half // 2 <= place < middle - half // 2 + half for place in range(side)])


@pytest.mark.parametrize("side", [16, 12])
def test_neutral_numbers_change_nothing_but_a_square(side: int) -> None:
    """Brightness + 0, saturation · 1, contrast · 1, no move: all that is left is the cut-out, which is always there."""
    places = [(i + 0.5) / (side + 1) for i in range(side + 1)]
    numbers = torch.full((len(places), augmentation.DIFFERENTIABLE), 0.5)
    numbers[:, 5], numbers[:, 6] = torch.tensor(places), torch.tensor(places[::-1])
    images = normal(len(places), 3, side, side)
    changed = augmentation.differentiable(images, numbers)
    sizes = set()
    for picture, found, row, column in zip(images, changed, places, reversed(places), strict=True):
        inside = torch.from_numpy(np.outer(cut_out(side, row), cut_out(side, column)))
        assert found[:, inside].eq(0).all()
        torch.testing.assert_close(found[:, ~inside], picture[:, ~inside], rtol=1e-5, atol=1e-6)
        sizes.add(int(inside.sum()))
    # A square of half the side where it fits, and less of it at the edges.
    assert max(sizes) == (side // 2) ** 2 and min(sizes) >= (side // 4) ** 2


@pytest.mark.parametrize("channels", [1, 3])
def test_the_colours_of_differentiable_augmentation(channels: int) -> None:
    """Brightness, then saturation about each pixel's grey, then contrast about each picture's mean."""
    images, numbers = normal(5, channels, 16, 16), torch.full((5, augmentation.DIFFERENTIABLE), 0.5)
    numbers[:, :3] = unit(5, 3, seed=2)
    numbers[:, 5:] = 0.001
    changed = augmentation.differentiable(images, numbers)
    for picture, found, (brightness, saturation, contrast, *_) in zip(images, changed, numbers.tolist(), strict=True):
        truth = picture.double().numpy() + brightness - 0.5
        grey = truth.mean(axis=0, keepdims=True)
        truth = grey + (truth - grey) * 2 * saturation
        truth = truth.mean() + (truth - truth.mean()) * (contrast + 0.5)
        np.testing.assert_allclose(found[:, 4:].numpy(), truth[:, 4:], rtol=1e-4, atol=1e-5)


def test_differentiable_augmentation_moves_by_an_eighth() -> None:
    images, numbers = normal(5, 1, 16, 16), torch.full((5, augmentation.DIFFERENTIABLE), 0.5)
    numbers[:, 3] = (torch.arange(5) + 0.5) / 5
    numbers[:, 4] = numbers[:, 3].flip(0)
    changed = augmentation.differentiable(images, numbers)
    inside = torch.from_numpy(np.outer(cut_out(16, 0.5), cut_out(16, 0.5)))
    for by, picture, found in zip(range(-2, 3), images, changed, strict=True):
        truth = rolled(picture, by, -by)
        torch.testing.assert_close(found[:, ~inside], truth[:, ~inside], rtol=1e-5, atol=1e-6)


# ---- adaptive augmentation

# A change is made where its number is below p.
P, YES, NO = torch.tensor(0.6), 0.1, 0.9
CHANGES = ("flip", "quarter", "whole", "size", "stretch", "before", "after", "move", "colour")


def numbers_for(count: int, *changes: str, value: float = 0.5) -> tuple[Tensor, Tensor]:
    """Uniform and normal numbers with which only these changes are made, of middling size."""
    numbers = torch.full((count, augmentation.ADAPTIVE_UNIFORM), value)
    numbers[:, :9] = torch.tensor([YES if name in changes else NO for name in CHANGES])
    numbers[:, 18:] = YES if "colour" in changes else NO
    return numbers, torch.zeros(count, augmentation.ADAPTIVE_NORMAL)


@pytest.mark.parametrize("size", [(3, 16, 16), (1, 28, 28), (2, 12, 20)])
def test_without_a_chance_nothing_is_changed(size: tuple[int, ...]) -> None:
    images = unit(6, *size) * 2 - 1
    drawn = unit(6, augmentation.ADAPTIVE_UNIFORM, seed=2), normal(6, augmentation.ADAPTIVE_NORMAL, seed=3)
    same = augmentation.adaptive(images, *drawn, torch.tensor(0.0))
    torch.testing.assert_close(same, images, rtol=0, atol=1e-5)
    changed = augmentation.adaptive(images, *drawn, torch.tensor(1.0))
    assert changed.shape == images.shape and changed.isfinite().all()
    assert ((changed - images).abs().flatten(1).mean(1) > 0.1).all()
    # Numbers above p say no as well.
    same = augmentation.adaptive(images, *numbers_for(6), P)
    torch.testing.assert_close(same, images, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("side", "p"), [(28, 0.0), (32, 1.0)])
def test_geometry_is_as_exact_under_autocast(side: int, p: float) -> None:
    images = unit(6, 3, side, side) * 2 - 1
    numbers = unit(6, augmentation.ADAPTIVE_UNIFORM, seed=2), normal(6, augmentation.ADAPTIVE_NORMAL, seed=3)
    truth = augmentation.adaptive(images, *numbers, torch.tensor(p))
    with torch.autocast("cpu", torch.bfloat16):
        found = augmentation.adaptive(images, *numbers, torch.tensor(p))
    torch.testing.assert_close(found.float(), truth, rtol=0, atol=0.01)


def test_flips_turns_and_whole_shifts_are_exact() -> None:
    images = normal(4, 3, 16, 16)
    numbers, zeros = numbers_for(4, "flip")
    numbers[:, 9] = torch.tensor([0.1, 0.49, 0.51, 0.9])
    flipped = augmentation.adaptive(images, numbers, zeros, P)
    torch.testing.assert_close(flipped, torch.cat([images[:2].flip(3), images[2:]]), rtol=0, atol=1e-5)
    numbers, zeros = numbers_for(4, "quarter")
    numbers[:, 10] = (torch.arange(4) + 0.5) / 4
    turned = augmentation.adaptive(images, numbers, zeros, P)
    truth = torch.stack([image.rot90(times, (1, 2)) for times, image in enumerate(images)])
    torch.testing.assert_close(turned, truth, rtol=0, atol=1e-4)
    # An eighth of 16 pixels each way, mirrored beyond the edge.
    numbers, zeros = numbers_for(25, "whole")
    moves = list(itertools.product(range(5), repeat=2))
    numbers[:, 11:13] = (torch.tensor(moves) + 0.5) / 5
    images = normal(25, 2, 16, 16)
    moved = augmentation.adaptive(images, numbers, zeros, P).numpy()
    wide = np.pad(images.numpy(), ((0, 0), (0, 0), (2, 2), (2, 2)), mode="symmetric")
    for index, (right, down) in enumerate(moves):
        window = wide[index, :, down : down + 16, right : right + 16]
        np.testing.assert_allclose(moved[index], window, rtol=0, atol=1e-4)


def geometry(number: list[float], bell: list[float], side: int) -> Array:
    """Karras et al. 2020, appendix B: from a place in the result, in [−1, 1]², to where it is looked up."""

    def stretched(x: float, y: float) -> Array:
        return np.diag([x, y, 1.0])

    def turned(angle: float) -> Array:
        matrix = np.eye(3)
        matrix[:2, :2] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
        return matrix

    def moved(x: float, y: float) -> Array:
        matrix = np.eye(3)
        matrix[:2, 2] = x, y
        return matrix

    most = side // 8
    pixels = [math.floor(number[index] * (2 * most + 1)) - most for index in (2, 3)]
    size, stretch = 2 ** (0.2 * bell[0]), 2 ** (0.2 * bell[1])
    steps = [
        stretched(-1 if number[0] < 0.5 else 1, 1),
        turned(math.floor(4 * number[1]) * math.pi / 2),
        moved(*(2 * by / side for by in pixels)),
        stretched(size, size),
        turned((2 * number[5] - 1) * math.pi),
        stretched(stretch, 1 / stretch),
        turned((2 * number[6] - 1) * math.pi),
        moved(*(2 * 0.125 * by for by in bell[2:4])),
    ]
    result: Array = np.linalg.multi_dot(steps)
    return result


def test_geometry_is_one_bilinear_look_up() -> None:
    side = 16
    images = normal(8, 1, side, side)
    numbers, bells = unit(8, augmentation.ADAPTIVE_UNIFORM), normal(8, augmentation.ADAPTIVE_NORMAL)
    numbers[:, :8], numbers[:, 8], numbers[:, 18:] = YES, NO, NO
    changed = augmentation.adaptive(images, numbers, bells, P).numpy()
    rows, columns = np.mgrid[:side, :side]
    places = np.stack([(2 * columns + 1) / side - 1, (2 * rows + 1) / side - 1, np.ones((side, side))])
    for index in range(8):
        matrix = geometry(numbers[index, 9:].tolist(), bells[index].tolist(), side)
        x, y, _ = np.tensordot(matrix, places, 1)
        pixels = [((y + 1) * side - 1) / 2, ((x + 1) * side - 1) / 2]
        picture = images[index, 0].double().numpy()
        truth = scipy.ndimage.map_coordinates(picture, pixels, order=1, mode="reflect")
        np.testing.assert_allclose(changed[index, 0], truth, atol=2e-4)


def test_two_turns_together_are_as_likely_as_another_change() -> None:
    """Each with 1 − √(1 − p), so that there is none with 1 − p: at p = 0.6 below 0.3675."""
    images = normal(1, 1, 16, 16)
    for column, number, turns in ((5, 0.367, True), (6, 0.367, True), (5, 0.368, False), (6, 0.368, False)):
        numbers, zeros = numbers_for(1, value=0.8)
        numbers[:, column] = number
        changed = (augmentation.adaptive(images, numbers, zeros, P) - images).abs().max() > 0.1
        assert changed.item() == turns


def coloured(images: Tensor, *, inverted: bool = False, hue: float = 0.0, **sizes: float) -> Tensor:
    """Only the colours changed, by normal numbers of these sizes; the hue by so many half turns."""
    numbers, bells = numbers_for(len(images), "colour")
    numbers[:, 17] = 0.4 if inverted else 0.6
    numbers[:, 13] = (1 + hue) / 2
    for name, size in sizes.items():
        bells[:, 4 + ("brightness", "contrast", "saturation").index(name)] = size
    return augmentation.adaptive(images, numbers, bells, P)


def test_colours_one_by_one() -> None:
    images = normal(4, 3, 8, 8)
    pixels = images.double().permute(0, 2, 3, 1).reshape(-1, 3).numpy()

    def check(found: Tensor, truth: Array) -> None:
        np.testing.assert_allclose(found.permute(0, 2, 3, 1).reshape(-1, 3).numpy(), truth, rtol=1e-4, atol=1e-4)

    check(coloured(images), pixels)
    check(coloured(images, brightness=1.3), pixels + 0.2 * 1.3)
    check(coloured(images, contrast=-0.8), pixels * 2 ** (0.5 * -0.8))
    both = coloured(images, brightness=1.3, contrast=-0.8)
    check(both, (pixels + 0.2 * 1.3) * 2 ** (0.5 * -0.8))
    axis = np.ones(3) / math.sqrt(3)
    # The grey axis turned around: I − 2 vvᵀ.
    check(coloured(images, inverted=True), pixels @ (np.eye(3) - 2 * np.outer(axis, axis)).T)
    turn = scipy.spatial.transform.Rotation.from_rotvec(0.4 * math.pi * axis).as_matrix()
    check(coloured(images, hue=0.4), pixels @ turn.T)
    grey = np.outer(axis, axis)
    check(coloured(images, saturation=0.7), pixels @ (grey + (np.eye(3) - grey) * 2**0.7).T)


def test_every_change_of_colour_has_a_coin_of_its_own() -> None:
    """Karras et al. 2020, appendix B: at p = ½ a picture keeps all of its colours once in 2⁵ times, or a little more
    often: half of the inversions are none.
    """
    images = normal(1, 3, 4, 4).expand(4000, 3, 4, 4)
    numbers, bells = (
        unit(4000, augmentation.ADAPTIVE_UNIFORM, seed=1),
        normal(4000, augmentation.ADAPTIVE_NORMAL, seed=2),
    )
    numbers[:, :8] = NO
    changed = augmentation.adaptive(images, numbers, bells, torch.tensor(0.5))
    kept = ((changed - images).abs().amax((1, 2, 3)) < 1e-4).float().mean().item()
    assert kept == pytest.approx(0.5**4 * 0.75, abs=0.012)


def test_grey_pictures_have_no_hue() -> None:
    images = normal(4, 1, 8, 8)
    torch.testing.assert_close(coloured(images, hue=0.4, saturation=0.7), images, rtol=0, atol=1e-5)
    torch.testing.assert_close(coloured(images, inverted=True), -images, rtol=0, atol=1e-5)


# ---- gradients, and what a system makes of it


@pytest.mark.parametrize(
    "change",
    [
        lambda images: augmentation.flip_and_shift(images, unit(2, augmentation.FLIP_AND_SHIFT)),
        lambda images: augmentation.differentiable(images, unit(2, augmentation.DIFFERENTIABLE, seed=5)),
        lambda images: augmentation.adaptive(
            images, unit(2, augmentation.ADAPTIVE_UNIFORM), normal(2, augmentation.ADAPTIVE_NORMAL), torch.tensor(1.0)
        ),
    ],
    ids=["flip_and_shift", "differentiable", "adaptive"],
)
def test_gradients_pass_through_augmentations(change: Callable[[Tensor], Tensor]) -> None:
    images = normal(2, 3, 8, 8).double().requires_grad_()
    pull = normal(2, 3, 8, 8, seed=2).double()

    def value(images: Tensor) -> Tensor:
        return (pull * change(images)).sum()

    (gradient,) = torch.autograd.grad(value(images), images)
    assert gradient.isfinite().all() and (gradient.abs().flatten(1).sum(1) > 1).all()
    # Every change is linear in the picture but for an offset, so that long differences are exact.
    with torch.no_grad():
        for seed in range(8):
            along = normal(2, 3, 8, 8, seed=10 + seed).double()
            slope = (value(images + along) - value(images - along)) / 2
            assert slope.item() == pytest.approx((gradient * along).sum().item(), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("augment", ["diffaugment", "adaptive"])
def test_the_critic_sees_real_and_made_pictures_augmented(augment: str) -> None:
    state = fresh(DCGAN, augment=augment)
    system: Any = state.system
    if augment == "adaptive":
        system.augment_strength.fill_(0.5)
    made, seen = recorded(system.generator), recorded(system.critic)
    batch = Batches(PICTURES, BATCH, SEED)[0]
    critic, generator = state.phases
    critic.loss(batch, drawn(critic), 0)
    loss = generator.loss(batch, drawn(generator), 0)
    order = [(critic, "real", range_of(batch)), (critic, "fake", made[0].said), (generator, "fake", made[1].said)]
    for (phase, which, samples), call in zip(order, seen, strict=True):
        draws = drawn(phase)
        if augment == "adaptive":
            numbers = draws[f"augment_{which}"], draws[f"augment_{which}_normal"]
            truth = augmentation.adaptive(samples, *numbers, torch.tensor(0.5))
        else:
            truth = augmentation.differentiable(samples, draws[f"augment_{which}"])
        torch.testing.assert_close(call.seen, truth, rtol=0, atol=1e-6)
        assert (call.seen - samples).abs().mean() > 0.01
    gradients = torch.autograd.grad(loss.total, list(system.generator.parameters()))
    assert all(gradient.isfinite().all() and gradient.abs().sum() > 0 for gradient in gradients)


def assured(system: Any, logit: float) -> None:
    """Makes the critic say about this number of everything."""
    with torch.no_grad():
        system.critic[-2].bias.fill_(logit)


def test_the_strength_of_augmentation_follows_the_signs_of_real_scores() -> None:
    """By the sign of what they are above the target, 4 · batch / 500000 every four steps."""
    state = fresh(DCGAN, augment="adaptive", augment_target=0.5, lr=1e-5)
    system: Any = state.system
    calls = recorded(system.critic)
    strength, signs, found, truth = 0.0, [], [], []
    step = 4 * BATCH / 500_000
    # Sure for twelve steps, undecided for twelve, and mistaken until nothing is left.
    for number in range(40):
        assured(system, 5.0 if number < 12 else 0.0 if number < 24 else -5.0)
        (logged,) = train(state, number + 1)
        assert logged["dynamics/augment_strength"] == pytest.approx(strength, abs=1e-9)
        signs.append(float(np.sign(calls[3 * number].said.numpy()).mean()))
        if number % 4 == 3:
            strength += step * float(np.sign(np.mean(signs[-4:]) - 0.5))
            strength = min(max(strength, 0.0), 1.0)
        found.append(system.augment_strength.item())
        truth.append(strength)
    assert found == pytest.approx(truth, abs=1e-9)
    assert found[2] == 0 and found[11] == pytest.approx(3 * step) and found[-1] == 0
    assert any(-1 < sign < 1 for sign in signs)


@pytest.mark.parametrize(("loss", "blind"), [("least_squares", 0.5), ("nonsaturating", 0.0), ("hinge", 0.0)])
def test_a_blind_critic_raises_no_augmentation(loss: str, blind: float) -> None:
    """It says of everything what is half-way between real and made: ½ with least squares, which is above 0."""
    state = fresh(DCGAN, augment="adaptive", loss=loss, lr=1e-5)
    system: Any = state.system
    for number in range(8):
        assured(system, blind - 0.01)
        train(state, number + 1)
    assert system.augment_strength.item() == 0
    for number in range(8, 16):
        assured(system, blind + 5)
        train(state, number + 1)
    assert system.augment_strength.item() > 0


def test_the_strength_of_augmentation_stays_below_one() -> None:
    state = fresh(DCGAN, augment="adaptive")
    system: Any = state.system
    system.augment_strength.fill_(1 - 1e-6)
    for number in range(4):
        assured(system, 20.0)
        train(state, number + 1)
    assert system.augment_strength.item() == 1


def test_the_strength_of_augmentation_rises_with_more_critic_steps_too() -> None:
    state = fresh(DCGAN, augment="adaptive", n_critic=3)
    system: Any = state.system
    for number in range(8):
        assured(system, 20.0)
        train(state, number + 1)
    assert system.augment_strength.item() > 0
