"""A fully connected GAN for points, with the networks that Metz et al. 2017 use on the ring of Gaussians."""

from typing import Any

from pydantic import Field
from torch import Tensor, nn

from aigc_lab.nets.mlp import mlp
from aigc_lab.noise import Draw
from aigc_lab.samples import Modality, Points, Shape
from aigc_lab.systems import base


class PointGAN(base.AdversarialSystem):
    """Defaults are appendix A of "Unrolled Generative Adversarial Networks" without the unrolling: 256 normal latents,
    a generator of 2 × 128 ReLU, a critic of 1 × 128 ReLU, orthogonal weights of gain 0.8, Adam with β₁ = 0.5 at 10⁻⁴.
    """

    modality = Modality.POINTS

    class Config(base.AdversarialSystem.Config):
        latent_size: int = Field(256, ge=1)
        hidden: int = Field(128, ge=1)
        generator_layers: int = Field(2, ge=1)
        critic_layers: int = Field(1, ge=1)
        gain: float = Field(0.8, gt=0, description="scale of the orthogonal initial weights")
        lr: float = Field(1e-4, gt=0, description="Adam's step, of both networks")

    config: Config

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__(config, shape)
        dimensions = shape.size[0]
        self.generator = mlp(config.latent_size, config.hidden, config.generator_layers, dimensions)
        self.critic = mlp(dimensions, config.hidden, config.critic_layers, 1)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.orthogonal_(module.weight, config.gain)
                nn.init.zeros_(module.bias)

    def real(self, batch: Any) -> Tensor:
        values: Tensor = batch.values
        return values

    def latents(self, count: int) -> Draw:
        return Draw((count, self.config.latent_size))

    def sample(self, latents: Tensor, *, labels: Tensor | None = None) -> Points:
        return Points(self.generator(latents).float())
