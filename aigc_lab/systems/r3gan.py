"""R3GAN (Huang et al. 2024): the relativistic loss with R1 and R2, on residual networks without any normalisation."""

from typing import Literal

from pydantic import Field
from torch import Tensor

from aigc_lab.adversarial_system import PENALTY, Penalty
from aigc_lab.config import Few, Weight, Width
from aigc_lab.image_gan import PictureGAN
from aigc_lab.nets import resnet
from aigc_lab.objectives import adversarial
from aigc_lab.samples import Images
from aigc_lab.shape import Shape


class R3GAN(PictureGAN):
    """The paper's configuration E in small: grouped convolutions in bottlenecks, blocks that start as the identity,
    bilinear resampling, no tanh at the end, 64 normal latents, β₁ = 0. Its γ is set for each dataset and falls during
    training, as its step does; here both are constant.
    """

    class Config(PictureGAN.Config):
        loss: adversarial.Name = "relativistic"
        penalty: Penalty = Field("r1_r2", description=PENALTY)
        penalty_weight: Weight | None = Field(1.0, description="γ; null: the weight of the penalty's paper")
        latent_size: Width = 64
        latent_law: Literal["uniform", "normal"] = "normal"
        width: Width = Field(96, description="channels of the blocks; a multiple of the groups")
        groups: Few = Field(12, description="cardinality of the 3×3 convolutions")
        expansion: Few = Field(2, description="channels inside of a block over those outside")
        beta1: float = Field(0.0, ge=0, lt=1, description="of Adam")
        beta2: float = Field(0.99, ge=0, lt=1, description="of Adam")

    config: Config

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__(config, shape)
        width, groups, expansion = config.width, config.groups, config.expansion
        if width * expansion % groups:
            raise ValueError(f"groups {groups} do not divide the {width * expansion} channels of width × expansion")
        self.generator = resnet.ModernDecoder(config.latent_size, width, shape.size, groups, expansion)
        self.critic = resnet.ModernEncoder(1, width, self.critic_shape, groups, expansion, self.critic_bias)

    def sample(self, latents: Tensor, *, labels: Tensor | None = None) -> Images:
        return Images(((self.generator(latents).float() + 1) / 2).clamp(0, 1))
