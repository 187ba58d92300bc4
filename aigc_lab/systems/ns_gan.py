"""The non-saturating GAN (Goodfellow et al. 2014), on the networks of "Are GANs Created Equal?" (Lucic et al. 2018)."""

from pydantic import Field

from aigc_lab.config import Positive, Width
from aigc_lab.nets.images import Network
from aigc_lab.systems.shared.image_gan import ImageGAN


class NonSaturatingGAN(ImageGAN):
    """The generator maximises log D(G(z)). The networks are the study's, InfoGAN's, with 64 channels and 64 uniform
    latents; the steps are those of InfoGAN (Chen et al. 2016, appendix C): Adam with β₁ = 0.5 at 10⁻³ for the generator
    and 2·10⁻⁴ for the critic.
    """

    class Config(ImageGAN.Config):
        network: Network = "infogan"
        width: Width = Field(64, description="channels at the widest picture")
        latent_size: Width = 64
        lr: Positive = Field(1e-3, description="step of the generator's optimiser")
        critic_lr_ratio: Positive = Field(0.2, description="the critic's step over the generator's (TTUR)")
