"""GANs for points [N, d]."""

from typing import Any

from torch import Tensor

from aigc_lab.config import Width
from aigc_lab.noise import Draw
from aigc_lab.samples import Points
from aigc_lab.shape import Modality
from aigc_lab.systems.shared.conditional_gan import ConditionalGAN


class PointSystem(ConditionalGAN):
    """An adversarial system whose generator makes points of normal latents."""

    modality = Modality.POINTS

    class Config(ConditionalGAN.Config):
        latent_size: Width = 2

    config: Config

    def real(self, batch: Any) -> Tensor:
        values: Tensor = batch.values
        return values

    def latents(self, count: int) -> Draw:
        return Draw((count, self.config.latent_size))

    def sample(self, latents: Tensor, *, labels: Tensor | None = None) -> Points:
        return Points(self.generated(latents, labels).float())
