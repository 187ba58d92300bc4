"""R3GAN's schedules and resampling are those of the authors' published code, to the bit when resumed, and alike when
stacked.
"""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from few_steps import assert_programs
from torch import Tensor

from aigc_lab import noise
from aigc_lab.data.shared.batches import Batches
from aigc_lab.nets import resnet
from aigc_lab.optimizers.adam import DirectAdam
from aigc_lab.samples import Images
from aigc_lab.shape import Modality, Shape
from aigc_lab.systems.base import cosine
from aigc_lab.systems.r3gan import R3GAN
from aigc_lab.training.captured import as_ever
from aigc_lab.training.checkpoint import restore_state, save_state
from aigc_lab.training.course import Course
from aigc_lab.training.loop import train
from aigc_lab.training.plain import Plain
from aigc_lab.training.stacked import Stacked
from aigc_lab.training.state import Replica, TrainingState

BATCH, STEPS = 4, 12
LOSS = torch.zeros((), dtype=torch.float64)
SMALL: dict[str, Any] = {"width": 4, "groups": 2, "latent_size": 3, "decay_images": BATCH * 8}
PICTURES = Images(torch.randint(0, 256, (24, 1, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8))


def state(side: int = 16, *, seed: int = 0, **options: Any) -> TrainingState:
    shape = Shape(Modality.IMAGES, (1, side, side))
    config = R3GAN.Config(**(SMALL | options))
    return TrainingState.fresh(R3GAN, config, shape, seed=seed, batch_size=BATCH, device="cpu")


def replica(seed: int = 0, **options: Any) -> Replica:
    return Replica(state(seed=seed, **options), Batches(PICTURES, BATCH, seed), seed)


def finish(runs: list[Replica], steps: int = STEPS, course: type[Course] = Plain) -> list[Replica]:
    for _ in train(runs, steps=steps, every=4, decay=0.9, precision="fp32", course=course):
        pass
    return runs


def weights(run: Replica) -> dict[str, Tensor]:
    return {**run.state.system.state_dict(), **{f"ema.{k}": v for k, v in run.state.average.state_dict().items()}}


# ---- resampling

TAPS = torch.tensor([1.0, 3.0, 3.0, 1.0])


@pytest.mark.parametrize("side", [4, 8, 16])
def test_resampling_is_the_published_filter(side: int) -> None:
    """[1, 2, 1] convolved with [1, 1], normalised; four times as large where pixels are put between, zeros around."""
    kernel = torch.outer(TAPS, TAPS) / 64
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    each = kernel.double().expand(3, 1, 4, 4)
    doubled = F.conv_transpose2d(x, 4 * each, stride=2, padding=1, groups=3)
    halved = F.conv2d(x, each, stride=2, padding=1, groups=3)
    torch.testing.assert_close(resnet._Filtered(side)(x), doubled, rtol=0, atol=1e-14)
    torch.testing.assert_close(resnet._Filtered(side, halve=True)(x), halved, rtol=0, atol=1e-14)


def test_both_networks_resample_by_it() -> None:
    parts = [part for part in state(32).system.modules() if isinstance(part, resnet._Filtered)]
    assert sorted(tuple(part.matrix.shape) for part in parts) == [
        *[(4, 8), (8, 4), (8, 16), (16, 8), (16, 32), (32, 16)],
    ]
    assert not any(isinstance(part, torch.nn.AvgPool2d | torch.nn.Upsample) for part in state(32).system.modules())


# ---- schedules


def test_half_a_cosine() -> None:
    assert [cosine(0.05, 0.005, done) for done in (0, 1, 2)] == [0.05, 0.005, 0.005]
    assert cosine(0.9, 0.99, 0.5) == pytest.approx(0.945, rel=1e-12)
    assert cosine(2.0, 0.2, 1 / 3) == pytest.approx(2.0 - 1.8 * 0.25, rel=1e-12)  # cos 60° = ½


@pytest.mark.parametrize(("side", "gamma"), [(16, 0.05), (32, 0.05), (64, 2.0)])
def test_the_defaults_are_the_published_presets(side: int, gamma: float) -> None:
    """CIFAR-10's, and FFHQ's at 64×64: base and final values after 2·10⁷ images, on batches of 512 and 256."""
    config = R3GAN.Config()
    system = R3GAN(config, Shape(Modality.IMAGES, (3, side, side)))
    critic, generator = system.phases(512)
    assert config.decay_images / 512 == 39062.5
    for phase in (critic, generator):
        assert phase.optimizer.at(0) == {"lr": 2e-4, "betas": (0.0, 0.9)}
        end = phase.optimizer.at(10**6)
        assert end["lr"] == pytest.approx(5e-5, rel=1e-12)
        assert end["betas"] == (0.0, pytest.approx(0.99, rel=1e-12))
    assert system._weight_at(0, LOSS) == gamma
    assert system._weight_at(10**6, LOSS) == pytest.approx(gamma / 10, rel=1e-12)


def test_a_gamma_that_is_given_begins_there() -> None:
    system = state(penalty_weight=3.0, final_penalty=0.5).system
    assert isinstance(system, R3GAN)
    assert system._weight_at(0, LOSS) == 3.0
    assert system._weight_at(8, LOSS) == 1.5
    other = state(penalty="r1").system
    assert isinstance(other, R3GAN)
    assert other._weight_at(0, LOSS) == 10.0


def test_the_penalty_is_weighed_by_the_step() -> None:
    """γ/2 (R1 + R2): between two steps the loss differs by it alone."""
    made = state()
    phase = made.phases[0]
    drawn = {name: noise.draw(what, name) for name, what in phase.noise.items()}
    batch = Batches(PICTURES, BATCH, 0)[0]
    for step, gamma in ((0, 0.05), (4, 0.0275), (8, 0.005), (80, 0.005)):
        loss = phase.loss(batch, drawn, step)
        expected = loss.parts["adversarial"] + gamma * loss.parts["penalty"]
        torch.testing.assert_close(loss.total, expected, rtol=1e-6, atol=0)


def test_the_optimisers_follow_the_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Adam is given in every update, against the formula of the published loop."""
    seen: list[tuple[float, float, float]] = []
    step = DirectAdam.step

    def spy(optimizer: DirectAdam, closure: Any = None) -> Any:
        group = optimizer.param_groups[0]
        seen.append((group["lr"], *group["betas"]))
        return step(optimizer, closure)

    monkeypatch.setattr(DirectAdam, "step", spy)
    with as_ever():  # a program would not call it
        finish([replica()])
    for number in range(STEPS):
        images = min(number * BATCH, SMALL["decay_images"])
        decay = 0.5 * (1 + math.cos(math.pi * images / SMALL["decay_images"]))
        expected = (2e-4 + (1 - decay) * (5e-5 - 2e-4), 0.0, 0.9 + (1 - decay) * (0.99 - 0.9))
        for of_phase in seen[2 * number : 2 * number + 2]:
            assert of_phase == pytest.approx(expected, rel=1e-12)
    assert len(seen) == 2 * STEPS


def test_its_schedules_are_those_of_a_program_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """γ, the step and β₂ go on where a step is a program, to the same bits; two numbers of it would not do."""
    assert_programs(replica(), replica(), 2 * STEPS, monkeypatch)


def test_a_run_that_is_stored_and_resumed_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    (straight,) = finish([replica()])
    (first,) = finish([replica()], 5)
    save_state(first.state, tmp_path / "state.safetensors")
    second = replica()
    restore_state(second.state, tmp_path / "state.safetensors")
    finish([second])
    ours, theirs = weights(straight), weights(second)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_replicas_of_other_ends_are_stacked_as_each_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their step sizes and β₂ end elsewhere; in double precision, where the order of sums is worth nothing."""
    ends = [{}, {"final_lr": 0.5}, {"final_beta2": 0.95, "lr": 1e-3}]

    def double(run: Replica) -> Replica:
        run.state.system.double()
        run.state.average.double()
        return run

    single = noise.draw
    monkeypatch.setattr(Tensor, "float", Tensor.double)
    monkeypatch.setattr(noise, "draw", lambda *key, **options: single(*key, **options).double())
    alone = [finish([double(replica(seed, **options))])[0] for seed, options in enumerate(ends)]
    stacked = finish([double(replica(seed, **options)) for seed, options in enumerate(ends)], course=Stacked)
    for one, other in zip(alone, stacked, strict=True):
        theirs = weights(other)
        for name, value in weights(one).items():
            torch.testing.assert_close(theirs[name], value, rtol=0, atol=1e-8 * value.abs().max().item() + 1e-12)
