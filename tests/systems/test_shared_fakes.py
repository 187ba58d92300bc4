"""`share_fakes`: the generator learns from what it made for the critic's last update, computed anew by hand in torch's
own words and double precision; after 6 steps weights, buffers and losses agree to 10⁻⁹ of a tensor's largest entry.
"""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor, nn

from aigc_lab import noise
from aigc_lab.data.shared.batches import Batches
from aigc_lab.samples import Images, Points, Samples
from aigc_lab.shape import Modality, Shape
from aigc_lab.systems.dcgan import DCGAN
from aigc_lab.systems.dirac import DiracGAN
from aigc_lab.systems.infogan import InfoGAN
from aigc_lab.systems.point_gan import PointGAN
from aigc_lab.systems.shared.fakes import Fakes
from aigc_lab.training.loop import train_one
from aigc_lab.training.state import TrainingState

BATCH, SEED, STEPS, CLOSE = 8, 3, 6, 1e-9
_source = torch.Generator().manual_seed(0)
LABELS = torch.arange(40) % 4
DATA: dict[Modality, Samples] = {
    Modality.POINTS: Points(torch.randn(40, 3, generator=_source).double(), LABELS),
    Modality.IMAGES: Images(torch.rand(40, 1, 16, 16, generator=_source).double(), LABELS),
}
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "points": (PointGAN, {"hidden": 8, "latent_size": 5}),
    "three updates of the critic": (PointGAN, {"hidden": 8, "latent_size": 5, "n_critic": 3}),
    "labels": (PointGAN, {"hidden": 8, "latent_size": 5, "n_critic": 2, "conditional": "concat"}),
    "batch normalisation": (DCGAN, {"width": 4, "latent_size": 5}),
    "simultaneous": (DCGAN, {"width": 4, "latent_size": 5, "update": "simultaneous"}),
    "packs": (DCGAN, {"width": 4, "latent_size": 5, "packing": 2}),
}


@pytest.fixture
def _double(monkeypatch: pytest.MonkeyPatch) -> None:
    single = noise.draw
    monkeypatch.setattr(noise, "draw", lambda *key, **options: single(*key, **options).double())


def fresh(kind: Any, options: dict[str, Any], **knobs: Any) -> TrainingState:
    shape = Shape(kind.modality, tuple(DATA[kind.modality].values.shape[1:]), 4)
    config = kind.Config(**options, **{"share_fakes": True} | knobs)
    state = TrainingState.fresh(kind, config, shape, seed=SEED, batch_size=BATCH, device="cpu")
    state.system.double(), state.average.double()
    return state


def train(state: TrainingState, steps: int = STEPS, **options: Any) -> list[Any]:
    batches = Batches(DATA[type(state.system).modality], BATCH, SEED)
    return list(train_one(state, batches, seed=SEED, steps=steps, every=3, precision="fp32", **options))


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("case", CASES)
def test_the_generator_learns_from_the_fakes_of_the_last_critic(case: str) -> None:
    kind, options = CASES[case]
    state = fresh(kind, options)
    mirror: Any = copy.deepcopy(state.system)
    made: list[int] = []
    state.system.generator.register_forward_hook(lambda *_: made.append(1))  # type: ignore[union-attr]
    curve = train(state)
    n_critic, batches = options.get("n_critic", 1), Batches(DATA[kind.modality], BATCH, SEED)
    assert len(made) == STEPS * n_critic, "one pass for each update of the critic, and none for the generator's"

    rates = {"critic": mirror.critic, "generator": mirror.generator}
    config = state.system.config
    adam = {
        name: torch.optim.Adam(net.parameters(), lr=config.lr, betas=(config.beta1, config.beta2))
        for name, net in rates.items()
    }
    labelled = "conditional" in options
    losses: list[float] = []
    for step in range(STEPS):
        for repeat in range(n_critic):
            batch = batches[step * n_critic + repeat]
            latents = noise.draw(mirror.latents(BATCH), SEED, step, "critic", repeat, "latents")
            labels = (batch.labels,) if labelled else ()
            fakes = mirror.generator(latents, *labels)
            loss = F.softplus(-judged(mirror, mirror.real(batch), *labels)).mean()
            loss = loss + F.softplus(judged(mirror, fakes.detach(), *labels)).mean()
            grads = torch.autograd.grad(loss, list(mirror.critic.parameters()))
            if "update" not in options:
                moved(adam["critic"], grads)
        loss = F.softplus(-judged(mirror, fakes, *labels)).mean()
        losses.append(loss.item())
        if "update" in options:
            theirs = torch.autograd.grad(loss, list(mirror.generator.parameters()))
            moved(adam["critic"], grads)
            moved(adam["generator"], theirs)
        else:
            moved(adam["generator"], torch.autograd.grad(loss, list(mirror.generator.parameters())))
    for key, value in mirror.state_dict().items():
        close(state.system.state_dict()[key], value)
    shown = [progress.scalars["loss/generator/total"] for progress in curve]
    assert shown == pytest.approx([sum(losses[:3]) / 3, sum(losses[3:]) / 3], rel=1e-6)  # they are kept as float32
    apart = fresh(kind, options, share_fakes=False)
    train(apart)
    weight = next(iter(apart.system.parameters()))
    assert (weight - next(iter(state.system.parameters()))).abs().max() > 1e3 * CLOSE, (
        "fresh fakes are another training"
    )


def judged(mirror: Any, samples: Tensor, *labels: Tensor) -> Tensor:
    scores: Tensor = mirror.critic(samples.reshape(-1, *mirror.critic_shape), *labels)
    return scores


def moved(adam: torch.optim.Optimizer, gradients: tuple[Tensor, ...]) -> None:
    for weight, gradient in zip(adam.param_groups[0]["params"], gradients, strict=True):
        weight.grad = gradient
    adam.step()


def close(ours: Tensor, theirs: Tensor) -> None:
    assert (ours - theirs).abs().max() <= CLOSE * theirs.abs().max().clamp_min(1)


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize(("kind", "options"), [*CASES.values(), (InfoGAN, {"width": 4})])
def test_fakes_that_are_made_again_change_nothing(
    kind: Any, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without what the critic's turn left, as in a stack: the same numbers, and the same running statistics."""
    one, two = fresh(kind, options), fresh(kind, options)
    curve = train(one)
    monkeypatch.setattr("aigc_lab.systems.shared.fakes.Fakes.take", lambda *_: None)
    for kept, again in zip(curve, train(two), strict=True):
        assert kept.scalars == pytest.approx(again.scalars, rel=1e-6)
    for ours, theirs in zip(one.system.state_dict().values(), two.system.state_dict().values(), strict=True):
        close(ours, theirs)


@pytest.mark.parametrize("penalty", ["consensus", "wgan_gp", "instance_noise", "consistency"])
def test_it_goes_with_every_penalty_and_copies_between_two_turns(penalty: str) -> None:
    state = fresh(DCGAN, {"width": 4, "latent_size": 5, "penalty": penalty})
    state.system.float(), state.average.float()
    critic, generator = state.phases
    batch = Images(DATA[Modality.IMAGES].values[:BATCH].float())
    draws = {name: noise.draw(what, 0, name) for name, what in {**critic.noise, **generator.noise}.items()}
    first = critic.loss(batch, draws, 0).total
    copied = copy.deepcopy(state.system)
    losses = [phase.loss(batch, draws, 0).total for phase in (generator, copied.phases(BATCH)[1])]
    torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-6)
    assert first.isfinite() and losses[0].isfinite()


def test_what_it_draws_is_drawn_again_in_a_resumed_run() -> None:
    config: dict[str, Any] = {"width": 4, "latent_size": 5, "n_critic": 2}
    straight, broken = (fresh(DCGAN, config) for _ in range(2))
    for state in (straight, broken):
        state.system.float(), state.average.float()
    single = Images(DATA[Modality.IMAGES].values.float(), LABELS)
    options: dict[str, Any] = {"seed": SEED, "every": 3, "precision": "fp32"}
    batches = Batches(single, BATCH, SEED)
    list(train_one(straight, batches, steps=STEPS, **options))
    list(train_one(broken, batches, steps=STEPS, interrupted=lambda: broken.step == 4, **options))
    other: nn.Module = copy.deepcopy(broken.system)
    list(train_one(broken, batches, steps=STEPS, **options))
    for ours, theirs in zip(straight.system.parameters(), broken.system.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert any((a != b).any() for a, b in zip(other.parameters(), broken.system.parameters(), strict=True))


ONE_PASS: list[tuple[Any, dict[str, Any]]] = [
    (PointGAN, {"packing": 2, "loss": "hinge"}),
    (PointGAN, {"conditional": "concat", "packing": 2}),
    (PointGAN, {"conditional": "auxiliary", "spectral_norm": True}),
    (PointGAN, {"loss": "relativistic", "penalty": "r1_r2", "n_critic": 2}),
    (DCGAN, {"width": 4, "critic_norm": "layer", "penalty": "wgan_gp", "conditional": "projection"}),
]


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize(("kind", "options"), ONE_PASS)
def test_one_pass_of_the_critic_is_two(kind: Any, options: dict[str, Any]) -> None:
    small = {"latent_size": 5} | ({"hidden": 8} if kind is PointGAN else {})
    one, two = (fresh(kind, small | options, one_pass=one_pass, share_fakes=False) for one_pass in (True, False))
    passes: list[int] = []
    first = next(part for part in one.system.critic.modules() if isinstance(part, nn.Linear | nn.Conv2d))  # type: ignore[union-attr]
    first.register_forward_pre_hook(lambda _, given: passes.append(len(given[0])))
    train(one, 1)
    assert 2 * BATCH // options.get("packing", 1) in passes
    train(two, 1)
    for mine, theirs in zip(train(one), train(two), strict=True):
        assert mine.scalars == pytest.approx(theirs.scalars, rel=1e-6)
    for key, value in two.system.state_dict().items():
        close(one.system.state_dict()[key], value)


@pytest.mark.parametrize("options", [{}, {"critic_norm": "none", "minibatch_std": True}])
def test_one_pass_is_refused_where_it_would_mix_a_batch(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="one_pass would give the critic's batch statistics a mixture"):
        fresh(DCGAN, {"width": 4, "latent_size": 5}, one_pass=True, **options)


def test_a_game_whose_generator_moves_first_has_no_fakes_to_share() -> None:
    with pytest.raises(ValueError, match="its generator moves first"):
        DiracGAN(DiracGAN.Config(share_fakes=True), Shape(Modality.POINTS, (1,)))
    with pytest.raises(ValidationError):
        PointGAN.Config(share_fakes="some")


def test_fakes_are_taken_once_and_for_their_own_latents() -> None:
    fakes, latents, made = Fakes(), torch.zeros(2), torch.ones(2)
    fakes.keep(latents, made)
    assert fakes.take(torch.zeros(2)) is None
    assert fakes.take(latents) is made
    assert fakes.take(latents) is None
