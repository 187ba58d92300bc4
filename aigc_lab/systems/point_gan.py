"""A fully connected GAN for points, with the networks that Metz et al. 2017 use on the ring of Gaussians."""

from pydantic import Field
from torch import nn

from aigc_lab.config import Depth, Positive, Width
from aigc_lab.nets.mlp import mlp
from aigc_lab.nets.spectral import spectral
from aigc_lab.shape import Shape
from aigc_lab.systems.shared.point_gan import PointSystem


class PointGAN(PointSystem):
    """Defaults are appendix A of "Unrolled Generative Adversarial Networks" without the unrolling: 256 normal latents,
    a generator of 2 × 128 ReLU, a critic of 1 × 128 ReLU, orthogonal weights of gain 0.8, Adam with β₁ = 0.5 at 10⁻⁴.
    """

    class Config(PointSystem.Config):
        latent_size: Width = 256
        hidden: Width = 128
        generator_layers: Depth = 2
        critic_layers: Depth = 1
        gain: Positive = Field(0.8, description="scale of the orthogonal initial weights")
        spectral_norm: bool = Field(False, description="of the critic's layers")
        lr: Positive = Field(1e-4, description="step of both networks' optimisers")

    config: Config

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__(config, shape)
        self.generator = mlp(self.generator_inputs, config.hidden, config.generator_layers, shape.size[0])
        self.critic = mlp(self.critic_inputs[0], config.hidden, config.critic_layers, 1, self.critic_bias)
        self.condition()
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.orthogonal_(module.weight, config.gain)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if config.spectral_norm:
            spectral(self.critic)
