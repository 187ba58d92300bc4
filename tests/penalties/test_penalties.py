"""Penalties against plain autograd one sample at a time, closed forms of linear critics, and finite differences."""

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from aigc_lab import noise
from aigc_lab.objectives import penalties
from aigc_lab.samples import Points
from aigc_lab.shape import Modality, Shape
from aigc_lab.systems.point_gan import PointGAN
from aigc_lab.training.state import TrainingState

Penalty = Callable[[nn.Module], Tensor]


def normal(*size: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def unit(*size: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def smooth() -> nn.Module:
    """[N, 3] -> [N, 1] in float64, smooth, with gradients of about unit norm."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(3, 5), nn.Softplus(), nn.Linear(5, 1)).double()
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(2)
    return network


def convolutional() -> nn.Module:
    """[N, 2, 6, 6] -> [N, 1] in float32."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.Softplus(), nn.Conv2d(4, 1, 3), nn.Flatten(), nn.Tanh()
        )


class Linear(nn.Module):
    """D(x) = w · x."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight


class Bowl(nn.Module):
    """D(x) = a ‖x‖²/2, whose gradient says where it was taken; or a Σ x⁴/4."""

    def __init__(self, power: int = 2) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.ones((), dtype=torch.float64))
        self._power = power

    def forward(self, x: Tensor) -> Tensor:
        return self.a * x.pow(self._power).flatten(1).sum(1) / self._power


def slope(critic: nn.Module, sample: Tensor) -> Tensor:
    """∇D of one sample without a batch around it, flat, in float64, with a graph behind it."""
    x = sample.detach()[None].requires_grad_()
    (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return gradient.flatten().double()


def between(real: Tensor, fake: Tensor, alpha: Tensor) -> list[Tensor]:
    """One sample after another, with an α of its own."""
    return [real[i] * (1 - alpha[i].item()) + fake[i] * alpha[i].item() for i in range(len(real))]


def one_centred(critic: nn.Module, points: list[Tensor]) -> float:
    """E (‖∇D‖ − 1)² by a loop in numpy."""
    slopes = [slope(critic, point).detach().numpy() for point in points]
    return float(np.mean([(math.sqrt(sum(float(part) ** 2 for part in each)) - 1) ** 2 for each in slopes]))


def by_differences(critic: nn.Module, value: Callable[[nn.Module], float], step: float = 1e-5) -> Tensor:
    """Central differences of a value in each of the critic's parameters."""
    critic = copy.deepcopy(critic)
    at = parameters_to_vector(critic.parameters()).detach()

    def put(index: int, by: float) -> float:
        moved = at.clone()
        moved[index] += by
        vector_to_parameters(moved, critic.parameters())
        return value(critic)

    return torch.tensor([(put(i, step) - put(i, -step)) / (2 * step) for i in range(len(at))], dtype=at.dtype)


def by_autograd(critic: nn.Module, penalty: Penalty) -> Tensor:
    parameters = list(critic.parameters())
    gradients = torch.autograd.grad(penalty(critic), parameters, allow_unused=True)
    # A last bias has no gradient, for it does not change what is penalised.
    return torch.cat(
        [
            torch.zeros_like(p).flatten() if g is None else g.flatten()
            for p, g in zip(parameters, gradients, strict=True)
        ]
    )


REAL, FAKE, ALPHA = normal(6, 3, seed=1), normal(6, 3, seed=2), unit(6, seed=3)
PICTURES, MADE = (normal(5, 2, 6, 6, seed=seed, dtype=torch.float32) for seed in (4, 5))


# ---- the gradient itself


def test_the_input_gradient_is_that_of_each_sample_alone() -> None:
    for critic, samples, exact in ((smooth(), REAL, 1e-12), (convolutional(), PICTURES, 1e-6)):
        gradient = penalties.input_gradient(critic, samples)
        assert gradient.shape == samples.shape and gradient.dtype == samples.dtype
        truth = torch.stack([slope(critic, sample) for sample in samples]).reshape(samples.shape)
        torch.testing.assert_close(gradient.double(), truth, rtol=exact, atol=exact)


def test_the_input_gradient_can_be_taken_again() -> None:
    """Of a Σ x⁴/4 it is a x³, whose derivatives are x³ by a and 3 a x² by x."""
    critic, samples = Bowl(power=4), REAL.clone().requires_grad_()
    gradient = penalties.input_gradient(critic, samples)
    of_a, of_x = torch.autograd.grad(gradient.sum(), [critic.a, samples])
    torch.testing.assert_close(of_a, REAL.pow(3).sum())
    torch.testing.assert_close(of_x, 3 * REAL.square())


def test_the_input_gradient_leaves_every_buffer_as_it_was() -> None:
    critic = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Softplus(), nn.Linear(5, 1)).double().train()
    critic.register_buffer("own", torch.ones(2))
    before = {name: buffer.clone() for name, buffer in critic.named_buffers()}
    assert "1.running_mean" in before and "1.num_batches_tracked" in before
    gradient = penalties.input_gradient(critic, REAL)
    gradient.square().sum().backward()  # type: ignore[no-untyped-call]
    assert all(buffer.equal(before[name]) for name, buffer in critic.named_buffers())
    # It reads the statistics of the batch, as any pass in training mode does.
    x = REAL.clone().requires_grad_()
    (truth,) = torch.autograd.grad(critic(x).sum(), x)
    torch.testing.assert_close(gradient, truth)
    assert not all(buffer.equal(before[name]) for name, buffer in critic.named_buffers())


def test_norms_go_over_all_dimensions_and_are_smooth_at_zero() -> None:
    gradient = normal(4, 2, 3, 3, seed=1)
    truth = torch.tensor([math.sqrt(math.fsum(v * v for v in each.flatten().tolist())) for each in gradient]).double()
    torch.testing.assert_close(penalties.norms(gradient), truth, rtol=1e-6, atol=0)
    at_zero = torch.zeros(2, 3, requires_grad=True)
    (slope,) = torch.autograd.grad(penalties.norms(at_zero).sum(), at_zero)
    assert penalties.norms(at_zero).tolist() == [0, 0] and slope.eq(0).all()


# ---- WGAN-GP


def test_wgan_gp_is_a_loop_over_samples_with_an_alpha_each() -> None:
    critic = smooth()
    value = penalties.wgan_gp(critic, REAL, FAKE, ALPHA)
    assert value.ndim == 0
    assert value.item() == pytest.approx(one_centred(critic, between(REAL, FAKE, ALPHA)), rel=1e-10)
    # One number for the whole batch is another penalty, whichever of the numbers it is.
    for number in ALPHA:
        common = one_centred(critic, between(REAL, FAKE, number.expand(6)))
        assert abs(common - value.item()) > 1e-3 * value.item()


def test_wgan_gp_of_pictures_takes_the_norm_over_all_dimensions() -> None:
    critic, alpha = convolutional(), unit(5, seed=6, dtype=torch.float32)
    points = between(PICTURES, MADE, alpha)
    value = penalties.wgan_gp(critic, PICTURES, MADE, alpha).item()
    assert value == pytest.approx(one_centred(critic, points), rel=1e-5)
    by_channel = torch.stack([slope(critic, point).reshape(2, 36) for point in points]).norm(dim=2)
    assert abs((by_channel - 1).square().mean().item() - value) > 0.01


def test_wgan_gp_lies_between_real_and_made() -> None:
    """α = 0 is at the real samples, α = 1 at the made ones, of a critic whose gradient is where it is."""
    for alpha, where in ((0.0, REAL), (1.0, FAKE), (0.25, 0.75 * REAL + 0.25 * FAKE)):
        value = penalties.wgan_gp(Bowl(), REAL, FAKE, torch.full((6,), alpha, dtype=torch.float64))
        torch.testing.assert_close(value, (where.norm(dim=1) - 1).square().mean())


# ---- what each does to the critic's parameters


@pytest.mark.parametrize(
    ("penalty", "value"),
    [
        (
            lambda critic: penalties.wgan_gp(critic, REAL, FAKE, ALPHA),
            lambda critic: one_centred(critic, between(REAL, FAKE, ALPHA)),
        ),
        (
            lambda critic: penalties.dragan(critic, REAL, ALPHA, unit(6, 3, seed=4)),
            lambda critic: one_centred(critic, around(REAL, ALPHA, unit(6, 3, seed=4))),
        ),
        (
            lambda critic: penalties.zero_centred(critic, REAL),
            lambda critic: float(np.mean([(slope(critic, x).detach().numpy() ** 2).sum() / 2 for x in REAL])),
        ),
    ],
    ids=["wgan_gp", "dragan", "zero_centred"],
)
def test_gradients_of_penalties_are_the_finite_differences(
    penalty: Penalty, value: Callable[[nn.Module], float]
) -> None:
    critic = smooth()
    assert penalty(critic).item() == pytest.approx(value(critic), rel=1e-10)
    gradient, truth = by_autograd(critic, penalty), by_differences(critic, value)
    assert gradient.norm() > 0.1
    torch.testing.assert_close(gradient, truth, rtol=1e-6, atol=1e-8)


def test_the_gradient_of_wgan_gp_reaches_a_convolutional_critic() -> None:
    critic, alpha = convolutional(), unit(5, seed=6, dtype=torch.float32)
    gradient = by_autograd(critic, lambda critic: penalties.wgan_gp(critic, PICTURES, MADE, alpha)).double()
    exact = copy.deepcopy(critic).double()
    points = [point.double() for point in between(PICTURES, MADE, alpha)]
    torch.testing.assert_close(
        gradient, by_differences(exact, lambda critic: one_centred(critic, points)), rtol=1e-4, atol=1e-6
    )


# ---- closed forms


@pytest.mark.parametrize("weight", [[3.0, -4.0, 12.0], [0.3, 0.4, 0.0], [0.6, 0.0, -0.8]])
def test_penalties_of_a_linear_critic(weight: list[float]) -> None:
    """‖∇D‖ is ‖w‖ = 13, ½ and 1 everywhere."""
    critic, size = Linear(torch.tensor(weight, dtype=torch.float64)), math.sqrt(sum(part**2 for part in weight))
    direction = torch.tensor(weight, dtype=torch.float64) / size
    one: list[Penalty] = [
        lambda critic: penalties.wgan_gp(critic, REAL, FAKE, ALPHA),
        lambda critic: penalties.dragan(critic, REAL, ALPHA, unit(6, 3, seed=4)),
    ]
    for penalty in one:
        assert penalty(critic).item() == pytest.approx((size - 1) ** 2, rel=1e-12, abs=1e-30)
        torch.testing.assert_close(by_autograd(critic, penalty), 2 * (size - 1) * direction)
    assert penalties.zero_centred(critic, REAL).item() == pytest.approx(size**2 / 2, rel=1e-12)
    slopes = by_autograd(critic, lambda critic: penalties.zero_centred(critic, REAL))
    torch.testing.assert_close(slopes, size * direction)


def test_penalties_of_a_critic_that_is_flat_are_finite() -> None:
    critic = Linear(torch.zeros(3, dtype=torch.float64))
    cases: list[tuple[Penalty, int]] = [
        (lambda critic: penalties.wgan_gp(critic, REAL, FAKE, ALPHA), 1),
        (lambda critic: penalties.dragan(critic, REAL, ALPHA, unit(6, 3, seed=4)), 1),
        (lambda critic: penalties.zero_centred(critic, REAL), 0),
    ]
    for penalty, value in cases:
        assert penalty(critic).item() == value
        assert by_autograd(critic, penalty).tolist() == [0, 0, 0]


# ---- DRAGAN


def around(real: Tensor, alpha: Tensor, noise: Tensor) -> list[Tensor]:
    """x + α · ½ s · u, one sample after another; s is the deviation of all values of the batch."""
    values = real.numpy()
    deviation = math.sqrt(((values - values.mean()) ** 2).mean())
    return [real[i] + alpha[i].item() * 0.5 * deviation * noise[i] for i in range(len(real))]


@pytest.mark.parametrize("size", [(6, 3), (6, 2, 4, 4)])
def test_dragan_looks_around_the_data(size: tuple[int, ...]) -> None:
    real, noise = 0.3 + 0.4 * normal(*size, seed=7), unit(*size, seed=8)
    value = penalties.dragan(Bowl(), real, ALPHA, noise)
    points = torch.stack(around(real, ALPHA, noise)).flatten(1)
    torch.testing.assert_close(value, (points.norm(dim=1) - 1).square().mean(), rtol=1e-12, atol=0)
    # Sample by sample: the value of one alone, at the deviation of all, is its own (‖x̂‖ − 1)².
    for index in range(6):
        only = torch.zeros(6, dtype=torch.float64)
        only[index] = 1
        moved = penalties.dragan(Bowl(), real, only, noise) - penalties.dragan(Bowl(), real, 0 * only, noise)
        here, there = real[index].flatten(), torch.stack(around(real, only, noise))[index].flatten()
        torch.testing.assert_close(moved, ((there.norm() - 1).square() - (here.norm() - 1).square()) / 6)


# ---- penalties of scores and of vector fields


def test_lecam_and_consistency_by_formula() -> None:
    real, fake = normal(5, 1, seed=1), normal(7, 1, seed=2)
    x, y = real.numpy(), fake.numpy()
    value = penalties.lecam(real, fake, torch.tensor(0.7), torch.tensor(-0.4))
    # Real scores against the anchor of made ones, and the other way around.
    assert value.item() == pytest.approx(((x + 0.4) ** 2).mean() + ((y - 0.7) ** 2).mean(), rel=1e-6)
    changed = normal(5, 1, seed=3)
    assert penalties.consistency(real, changed).item() == pytest.approx(((x - changed.numpy()) ** 2).mean(), rel=1e-12)
    scores = real.clone().requires_grad_()
    (slope,) = torch.autograd.grad(penalties.consistency(scores, changed), scores)
    torch.testing.assert_close(slope, 2 * (real - changed) / 5)


def test_consensus_is_half_the_squared_norm() -> None:
    critic, generator = (normal(3, 2, seed=1), normal(2, seed=2)), (normal(4, seed=3),)
    truth = math.fsum(v * v for part in (*critic, *generator) for v in part.flatten().tolist()) / 2
    assert penalties.consensus(critic, generator).item() == pytest.approx(truth, rel=1e-12)


# ---- precision


def test_penalties_are_in_single_precision_under_autocast() -> None:
    critic, alpha = convolutional(), unit(5, seed=6, dtype=torch.float32)
    noise = unit(5, 2, 6, 6, seed=7, dtype=torch.float32)
    scores, others = (normal(5, 1, seed=seed, dtype=torch.float32) for seed in (8, 9))
    cases: list[Penalty] = [
        lambda critic: penalties.wgan_gp(critic, PICTURES, MADE, alpha),
        lambda critic: penalties.dragan(critic, PICTURES, alpha, noise),
        lambda critic: penalties.zero_centred(critic, PICTURES),
        lambda critic: penalties.lecam(scores, others, torch.tensor(0.3), torch.tensor(-0.2)),
        lambda critic: penalties.consistency(scores, others),
        lambda critic: penalties.consensus((scores,), (others,)),
    ]
    for penalty in cases:
        truth = penalty(critic)
        with torch.autocast("cpu", torch.bfloat16):
            # bf16 is what the networks would run in.
            assert critic(PICTURES).dtype == torch.bfloat16
            value = penalty(critic)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, truth, rtol=1e-6, atol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        gradient = by_autograd(critic, cases[0])
    torch.testing.assert_close(gradient, by_autograd(critic, cases[0]), rtol=1e-6, atol=1e-6)


def test_a_sample_in_bf16_has_a_gradient_in_single_precision() -> None:
    """What a generator makes under autocast."""
    critic = convolutional()
    gradient = penalties.input_gradient(critic, MADE.bfloat16())
    assert gradient.dtype == torch.float32
    torch.testing.assert_close(gradient, penalties.input_gradient(critic, MADE.bfloat16().float()))


# ---- what a system makes of them


def own_gradients(critic: Any, packs: Tensor) -> Tensor:
    """The norm of each pack's gradient of its own output, one after another by plain autograd."""
    found = []
    for pack in packs:
        x = pack[None].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(critic(x).sum(), x)
        found.append(gradient.flatten().norm())
    return torch.stack(found)


@pytest.mark.parametrize("weight", [None, 0.7])
@pytest.mark.parametrize("penalty", ["wgan_gp", "dragan", "r1", "r2", "r1_r2"])
def test_a_system_penalises_what_its_critic_reads(penalty: Any, weight: float | None) -> None:
    """Real and made samples in their places, packed, with the weight of the paper unless another is given."""
    config = PointGAN.Config(penalty=penalty, penalty_weight=weight, packing=2, latent_size=4, hidden=8, gain=2.0)
    shape = Shape(Modality.POINTS, (2,))
    state = TrainingState.fresh(PointGAN, config, shape, seed=0, batch_size=8, device="cpu")
    system: Any = state.system
    phase = next(phase for phase in state.phases if phase.name == "critic")
    drawn = {name: noise.draw(what, 3, name) for name, what in phase.noise.items()}
    real = normal(8, 2, seed=5).float()
    loss = phase.loss(Points(real), drawn, 0)
    packs, made = real.reshape(4, 4), system.generator(drawn["latents"]).detach().reshape(4, 4)
    critic = system.critic
    paper = 10.0

    def half_square(at: Tensor) -> Tensor:
        return 0.5 * own_gradients(critic, at).square().mean()

    match penalty:
        case "wgan_gp":
            alpha = drawn["alpha"][:, None]
            truth = (own_gradients(critic, (1 - alpha) * packs + alpha * made) - 1).square().mean()
        case "dragan":
            near = packs + drawn["alpha"][:, None] * 0.5 * packs.std(correction=0) * drawn["perturbation"]
            truth = (own_gradients(critic, near) - 1).square().mean()
        case "r1":
            truth = half_square(packs)
        case "r2":
            truth = half_square(made)
        case _:
            truth = half_square(packs) + half_square(made)
    torch.testing.assert_close(loss.parts["penalty"], truth, rtol=1e-5, atol=1e-7)
    total = loss.parts["adversarial"] + (paper if weight is None else weight) * truth
    torch.testing.assert_close(loss.total, total, rtol=1e-5, atol=1e-7)
    assert (half_square(packs) - half_square(made)).abs() > 1e-4, "to swap the two must be seen"
