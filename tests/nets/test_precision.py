"""bf16 and channels_last: faster, and the same training to their rounding; what must stay in single precision does."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from aigc_lab import plugins
from aigc_lab.api import sweep
from aigc_lab.data.digits import Digits
from aigc_lab.data.ring import Ring
from aigc_lab.data.shared.batches import Batches
from aigc_lab.errors import UsageError
from aigc_lab.experiment.checks import check_experiment
from aigc_lab.experiment.experiment import load_experiment
from aigc_lab.nets.precision import products
from aigc_lab.nets.spectral import SpectralConv2d
from aigc_lab.runs.alike import likeness
from aigc_lab.samples import Images
from aigc_lab.sweeps.estimate import default_plans
from aigc_lab.systems.base import System
from aigc_lab.systems.point_gan import PointGAN
from aigc_lab.training.checkpoint import restore_state, save_state
from aigc_lab.training.course import Course
from aigc_lab.training.loop import train, train_one
from aigc_lab.training.plain import Plain
from aigc_lab.training.stacked import Stacked
from aigc_lab.training.state import Replica, TrainingState

SMALL = {"width": 8, "latent_size": 6, "groups": 4}
DIGITS = Digits(Digits.Config(), Path())
DATA = DIGITS.load("train").take(slice(0, 96))
DIRAC = "3068210c88246180894537df4071a08c81bc626e1fc09bda6cfb5903ab93dc08"
IMAGE_SYSTEMS = ["dcgan", "wgan_gp", "dragan", "began", "sngan", "r3gan", "vae"]


def fresh(name: str, *, channels_last: bool = False, **options: Any) -> TrainingState:
    kind = plugins.find(System, name)  # type: ignore[type-abstract]
    small = {key: value for key, value in SMALL.items() if key in kind.Config.model_fields}
    config = kind.Config(**(small | options))
    where: dict[str, Any] = {"seed": 0, "batch_size": 16, "device": "cpu"}
    return TrainingState.fresh(kind, config, DIGITS.shape, channels_last=channels_last, **where)


def trained(state: TrainingState, steps: int, precision: Any = "fp32") -> dict[str, float]:
    scalars: dict[str, float] = {}
    for end in train_one(state, Batches(DATA, 16, 0), seed=0, steps=steps, every=1, precision=precision):
        scalars = dict(end.scalars)
    return scalars


@pytest.mark.parametrize("name", IMAGE_SYSTEMS)
def test_bf16_is_the_same_training_to_its_rounding(name: str) -> None:
    """After one step the losses are those of fp32 to bf16's 2⁻⁸; weights, statistics and samples stay in fp32."""
    single, half = fresh(name), fresh(name)
    ours, theirs = trained(half, 1, "bf16"), trained(single, 1)
    for key in (key for key in theirs if key.startswith("loss/")):
        assert ours[key] == pytest.approx(theirs[key], rel=0.03, abs=0.01), key
        if not key.endswith("/penalty"):
            assert ours[key] != theirs[key], f"{key}: was anything in bf16?"
    if name == "dragan":  # whose penalty depends on real samples and the first weights alone
        assert ours["loss/critic/penalty"] == theirs["loss/critic/penalty"], "in single precision, to the bit"
    kinds = {value.dtype for value in half.system.state_dict().values() if value.is_floating_point()}
    assert kinds == {torch.float32}
    for (key, one), two in zip(half.system.named_buffers(), single.system.buffers(), strict=True):
        if "running" in key:
            torch.testing.assert_close(one, two, rtol=0.05, atol=0.01)
    assert half.average.generate(4).values.dtype == torch.float32


def test_spectral_norms_stay_in_single_precision() -> None:
    state = fresh("dcgan", critic_norm="spectral")
    trained(state, 3, "bf16")
    layers = [part for part in state.system.modules() if isinstance(part, SpectralConv2d)]
    assert layers
    for layer in layers:
        with torch.autocast("cpu", torch.bfloat16):
            weight = layer.normalised()
        assert weight.dtype == torch.float32
        sigma = torch.linalg.matrix_norm(layer.weight.detach().flatten(1).double(), 2)
        exact = layer.weight.detach().double() / sigma
        # The power iteration is close to the singular value; bf16 would be off by 2⁻⁸ at every number.
        assert (weight.double() / exact).nanmedian().item() == pytest.approx(1, abs=2e-3)
        torch.testing.assert_close(weight, layer.normalised(), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["dcgan", "dragan", "sngan"])
def test_channels_last_is_the_same_training_to_rounding(name: str) -> None:
    plain, other = fresh(name), fresh(name, channels_last=True)
    assert any(
        part.weight.is_contiguous(memory_format=torch.channels_last) and not part.weight.is_contiguous()
        for part in other.system.modules()
        if isinstance(part, nn.Conv2d)
    )
    ours, theirs = trained(other, 2), trained(plain, 2)
    for key in (key for key in theirs if key.startswith("loss/")):
        assert ours[key] == pytest.approx(theirs[key], rel=1e-3, abs=1e-4), key


def test_a_stored_state_goes_on_in_channels_last_to_the_same_bits(tmp_path: Path) -> None:
    """The optimiser's memory must come back in the layout of its weights."""
    straight, first, second = (fresh("dragan", channels_last=True) for _ in range(3))
    trained(straight, 5)
    trained(first, 3)
    save_state(first, tmp_path / "state.safetensors")
    restore_state(second, tmp_path / "state.safetensors")
    trained(second, 5)
    for (key, one), two in zip(straight.system.state_dict().items(), second.system.state_dict().values(), strict=True):
        assert torch.equal(one, two), key


def test_samples_of_both_layouts_are_alike() -> None:
    plain, other = fresh("dcgan").average.generate(8), fresh("dcgan", channels_last=True).average.generate(8)
    assert isinstance(plain, Images)
    torch.testing.assert_close(plain.values, other.values, rtol=1e-4, atol=1e-5)


def test_stacked_runs_have_no_layout_of_their_own(tmp_path: Path) -> None:
    changes = [("training.stacked", "true", "--set"), ("training.channels_last", "true", "--set")]
    experiment = load_experiment("dirac", changes, data_dir=tmp_path)
    with pytest.raises(UsageError, match=r"channels_last does nothing for stacked runs"):
        check_experiment(experiment)


# ---- products of float32 matrices


def test_products_are_as_precise_as_asked_within_and_as_before_after() -> None:
    torch.set_float32_matmul_precision("high")
    try:
        with products("medium"):
            assert torch.get_float32_matmul_precision() == "medium"
        assert torch.get_float32_matmul_precision() == "high"
        with pytest.raises(ZeroDivisionError), products("medium"):
            raise ZeroDivisionError
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The setting at each product of a fully connected layer, as it happens."""
    settings: list[str] = []
    forward = nn.Linear.forward

    def watched(self: nn.Linear, values: torch.Tensor) -> torch.Tensor:
        settings.append(torch.get_float32_matmul_precision())
        return forward(self, values)

    monkeypatch.setattr(nn.Linear, "forward", watched)
    return settings


def points(seed: int = 0, hidden: int = 8) -> Replica:
    ring = Ring(Ring.Config(points=200), Path())
    config = PointGAN.Config(hidden=hidden)
    state = TrainingState.fresh(PointGAN, config, ring.shape, seed=seed, batch_size=16, device="cpu")
    return Replica(state, Batches(ring.load("train"), 16, seed), seed)


@pytest.mark.parametrize("course", [Plain, Stacked])
def test_a_step_has_its_products_and_what_lies_between_steps_the_processs_own(
    course: type[Course], seen: list[str]
) -> None:
    replicas = [points(0), points(1)]
    for _ in train(replicas, steps=4, every=2, precision="fp32", matmul_precision="medium", course=course):
        assert seen and set(seen) == {"medium"}
        seen.clear()
        replicas[0].state.average.generate(4)
        assert seen and set(seen) == {"highest"}
        seen.clear()


def test_products_at_medium_are_the_same_training_to_bf16s_rounding() -> None:
    """On a processor without bf16 they are those of ever, to the bit."""
    ends = []
    for precision in ("highest", "medium"):
        one = points(hidden=64)
        steps = {"steps": 1, "every": 1, "precision": "fp32", "matmul_precision": precision}
        (progress,) = train_one(one.state, one.batches, seed=0, **steps)
        ends.append((dict(progress.scalars), one.state.system))
    (exact, _), (rounded, system) = ends
    losses = [key for key in exact if key.startswith("loss/")]
    assert losses
    for key in losses:
        assert rounded[key] == pytest.approx(exact[key], rel=0.03, abs=0.01), key
    differ = any(rounded[key] != exact[key] for key in exact)
    assert differ == torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert {weight.dtype for weight in system.parameters()} == {torch.float32}


RUN: dict[str, Any] = {
    "name": "products",
    "data": {"name": "ring", "points": 300},
    "system": {"name": "point_gan", "hidden": 8},
    "training": {
        "steps": 4,
        "batch_size": 8,
        "log_every": 2,
        "evaluate_every": 2,
        "threads": 1,
        "matmul_precision": "medium",
    },
    "evaluation": {"name": "points", "samples": 200},
    "objective": {"minimize": "rkl"},
    "search": {"sampler": "grid", "trials": 1, "seeds": 1},
}


@pytest.mark.usefixtures("without_mlflow")
def test_a_run_is_trained_so_and_scored_as_ever(
    tmp_path: Path, seen: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the process had: it has it again after the run."""
    trained: list[str] = []
    step = Plain.step

    def watched(self: Plain, end: int | None = None) -> None:
        before = len(seen)
        step(self, end)
        trained.extend(seen[before:])
        del seen[before:]

    monkeypatch.setattr(Plain, "step", watched)
    torch.set_float32_matmul_precision("high")
    try:
        sweep(RUN | {"execution": {"executor": "inline"}}, home=tmp_path / "home")
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert trained and set(trained) == {"medium"}
    assert seen and set(seen) == {"highest"}, "of samples and scores"


def test_an_unknown_precision_of_products_is_refused_with_those_there_are(tmp_path: Path) -> None:
    experiment = load_experiment("ring", [("training.matmul_precision", "low", "--set")], data_dir=tmp_path)
    with pytest.raises(UsageError, match=r"training\.matmul_precision.*'highest', 'high' or 'medium'"):
        check_experiment(experiment)


def test_products_are_a_part_of_what_a_run_is_only_where_they_are_named(tmp_path: Path) -> None:
    """The digest of the shipped file is of before the key was there."""
    plain, other = (
        load_experiment("dirac", [("training.matmul_precision", name, "--set")] if name else [], data_dir=tmp_path)
        for name in (None, "medium")
    )
    assert plain.digest == DIRAC != other.digest
    one, two = (next(default_plans(each)) for each in (plain, other))
    assert likeness(one) != likeness(two), "they are no one program"
