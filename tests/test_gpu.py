"""What only a CUDA device can show: `uv run pytest -m gpu`."""

from pathlib import Path

import pytest
import torch

from aigc_lab import plugins
from aigc_lab.data.digits import Digits
from aigc_lab.data.shared.batches import Batches
from aigc_lab.evaluate import evaluate
from aigc_lab.experiment import experiment
from aigc_lab.shape import Modality
from aigc_lab.systems.base import System
from aigc_lab.training.loop import train_one
from aigc_lab.training.state import TrainingState

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


SYSTEMS = [
    name
    for name in plugins.names("systems")
    if plugins.find(System, name).modality == Modality.IMAGES  # type: ignore[type-abstract]
]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("system", SYSTEMS)
def test_no_step_waits_for_the_device_and_the_bits_repeat(
    system: str, channels_last: bool, precision: str, tmp_path: Path
) -> None:
    loaded = experiment.load_experiment("digits-8x8", [("system", f"{{name: {system}}}", "test")], data_dir=tmp_path)
    plan = loaded.resolve(lambda hole: hole.ends()[0])
    data = plan.dataset.load("train").to("cuda")

    def run() -> list[torch.Tensor]:
        where = {"seed": 0, "batch_size": 64, "device": "cuda", "channels_last": channels_last}
        state = TrainingState.fresh(plan.system_class, plan.system_config, plan.dataset.shape, **where)  # type: ignore[arg-type]
        steps = train_one(state, Batches(data, 64, 0), seed=0, steps=40, every=20, decay=0.9, precision=precision)
        next(steps)  # kernels are chosen and memory is taken in the first interval
        crossings = []
        collect = torch.Tensor.cpu

        def allowed(tensor: torch.Tensor, *args: object, **options: object) -> torch.Tensor:
            torch.cuda.set_sync_debug_mode("default")
            crossings.append(tensor.shape)
            return collect(tensor, *args, **options)  # type: ignore[arg-type]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.Tensor, "cpu", allowed)
            torch.cuda.set_sync_debug_mode("error")
            try:
                next(steps)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        assert len(crossings) == 1
        return [parameter.detach().cpu() for parameter in state.system.parameters()]

    for first, second in zip(run(), run(), strict=True):
        assert torch.equal(first, second)


FEATURE_METRICS = ["fd", "fd_debiased", "kid", "prdc", "improved_precision_recall", "vendi", "ndb", "memorisation"]
COUNTED = ("precision", "recall", "density", "coverage", "improved_precision", "improved_recall")
# Two of 400 vectors on the rim of a ball, or as near to one as to another, may fall to either side.
SLACK = dict.fromkeys(COUNTED, 2 / 400) | {"auth_pct": 0.5, "ndb": 1.0, "jsd": 0.01}


@pytest.mark.parametrize("name", FEATURE_METRICS)
def test_scores_are_those_of_the_host(name: str, tmp_path: Path) -> None:
    """To a ten-thousandth of the interval, or of the value: what convolutions in another order leave."""
    digits = Digits(Digits.Config(), tmp_path)
    made, train = digits.load("train").take(slice(0, 400)), digits.load("train").take(slice(400, None))
    on_host, on_device = (
        evaluate(made, "digits", metrics=[name], features="random", train=train, cache=tmp_path / device, device=device)
        for device in ("cpu", "cuda")
    )
    for ours, theirs in zip(on_host, on_device, strict=True):
        slack = 1e-4 * max(ours.high - ours.low, abs(ours.value)) + SLACK.get(ours.name.removesuffix("_rand"), 0.0)
        for each in ("value", "low", "high", "floor"):
            assert getattr(theirs, each) == pytest.approx(getattr(ours, each), abs=slack), each
