"""DRAGAN (Kodali et al. 2017): the non-saturating GAN with a critic whose gradient has norm 1 around the data."""

from pydantic import Field

from aigc_lab.adversarial_system import Penalty
from aigc_lab.image_gan import ImageGAN


class DRAGAN(ImageGAN):
    """Defaults are those of the paper: λ = 10 on DCGAN's networks, Adam at 2·10⁻⁴ with β₁ = 0.5."""

    class Config(ImageGAN.Config):
        penalty: Penalty = Field("dragan", description="what keeps the critic smooth")
