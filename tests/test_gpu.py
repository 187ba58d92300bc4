"""What only a CUDA device can show: `uv run pytest -m gpu`."""

from pathlib import Path

import pytest
import torch

from aigc_lab import experiment
from aigc_lab.batches import Batches
from aigc_lab.trainer import State, train_one

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("system", ["dcgan", "vae"])
def test_no_step_waits_for_the_device_and_the_bits_repeat(system: str, precision: str, tmp_path: Path) -> None:
    loaded = experiment.load("digits", [("system", system, "test")], data_dir=tmp_path)
    plan = loaded.resolve(lambda hole: hole.ends()[0])
    data = plan.dataset.load("train").to("cuda")

    def run() -> list[torch.Tensor]:
        state = State.fresh(
            plan.system_class, plan.system_config, plan.dataset.shape, seed=0, batch_size=64, device="cuda"
        )
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
