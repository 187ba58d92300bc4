"""Instance noise (Sønderby et al. 2017): normal noise on all that the critic reads; weight 0.1, its deviation."""

from typing import Any

from torch import Tensor

from aigc_lab.noise import Draw, Noise
from aigc_lab.penalties.base import Penalty


class InstanceNoise(Penalty):
    """The weight is the noise's standard deviation, in the range of the generator's output. No term of the loss."""

    weight = 0.1
    gaussian_noise = True
    tensor_weight = True
    dirac_weight = 1.0

    def sample_noise(self, which: str, count: int, size: tuple[int, ...]) -> dict[str, Draw]:
        return {f"instance_{which}": Draw((count, *size))}

    def changed(self, samples: Tensor, noise: Noise, which: str, weight: Any) -> Tensor:
        changed: Tensor = samples + weight * noise[f"instance_{which}"]
        return changed
