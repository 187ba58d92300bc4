"""The GAN for points of PacGAN's synthetic experiments (Lin et al. 2018, section 4.1): the critic has maxout layers."""

from itertools import pairwise

from pydantic import Field
from torch import nn

from aigc_lab.config import Depth, Few, Positive, Width
from aigc_lab.nets.mlp import Maxout
from aigc_lab.shape import Shape
from aigc_lab.systems.shared.point_gan import PointSystem


class MaxoutGAN(PointSystem):
    """Defaults are those of the paper, whose networks come from Dumoulin et al. 2017: two normal latents, a generator
    of 4 × (400, batch normalisation, ReLU), a critic of 3 × maxout(200, 5 pieces) without normalisation, Adam at 10⁻⁴
    with β₁ = 0.8. `packing: 2` is PacGAN2; its batch must be twice as large for as many packs.
    """

    class Config(PointSystem.Config):
        hidden: Width = Field(400, description="width of the generator's layers")
        layers: Depth = Field(4, description="of the generator")
        critic_hidden: Width = Field(200, description="width of the critic's layers")
        critic_layers: Depth = 3
        pieces: Few = Field(5, ge=2, description="linear maps of which maxout takes the largest")
        lr: Positive = Field(1e-4, description="step of both networks' optimisers")
        beta1: float = Field(0.8, ge=0, lt=1, description="of Adam")

    batch_normalised = True

    config: Config

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__(config, shape)
        widths = [self.generator_inputs, *[config.hidden] * config.layers]
        body = [
            layer
            for inputs, outputs in pairwise(widths)
            for layer in (nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU())
        ]
        self.generator = nn.Sequential(*body, nn.Linear(widths[-1], shape.size[0]))
        widths = [self.critic_inputs[0], *[config.critic_hidden] * config.critic_layers]
        maxouts = [Maxout(inputs, outputs, config.pieces) for inputs, outputs in pairwise(widths)]
        self.critic = nn.Sequential(*maxouts, nn.Linear(widths[-1], 1, bias=self.critic_bias))
        self.condition()
