"""GANs for images on the residual networks of SNGAN (Miyato et al. 2018)."""

from typing import Literal

from pydantic import Field
from torch import nn

from aigc_lab.config import Times, Width
from aigc_lab.nets import resnet
from aigc_lab.nets.spectral import spectral
from aigc_lab.objectives import adversarial
from aigc_lab.shape import Shape
from aigc_lab.systems.shared.image_gan import PictureGAN


class ResidualGAN(PictureGAN):
    """A picture GAN with a spectrally normalised critic. Defaults are the paper's for CIFAR-10 (section 4 and table 4):
    128 normal latents, 256 channels in the generator and 128 in the critic, Adam at 2·10⁻⁴ with β = (0, 0.9), five
    critic steps, the hinge loss.
    """

    class Config(PictureGAN.Config):
        loss: adversarial.Name = "hinge"
        latent_size: Width = 128
        latent_law: Literal["uniform", "normal"] = "normal"
        width: Width = Field(128, description="channels of the critic; the generator has twice as many")
        spectral_norm: bool = Field(True, description="of the critic's layers")
        beta1: float = Field(0.0, ge=0, lt=1, description="of Adam")
        beta2: float = Field(0.9, ge=0, lt=1, description="of Adam")
        n_critic: Times = Field(5, description="critic updates for one of the generator")

    batch_normalised = True

    config: Config

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__(config, shape)
        self.generator = resnet.Decoder(self.generator_inputs, 2 * config.width, shape.size).append(nn.Tanh())
        self.critic = resnet.Encoder(1, config.width, self.critic_inputs)
        self.condition()
        resnet.initialise(self)
        if config.spectral_norm:
            spectral(self.critic)
