"""DRAGAN (Kodali et al. 2017): the non-saturating GAN with a critic whose gradient has norm 1 around the data."""

from pydantic import Field

from aigc_lab.config import Positive
from aigc_lab.systems.shared.adversarial import PENALTY, Penalty
from aigc_lab.systems.shared.image_gan import ImageGAN


class DRAGAN(ImageGAN):
    """Defaults are those of the authors' published code: λ = 10, Adam at 10⁻⁴ with β = (0.5, 0.9), on DCGAN's networks
    with batch normalisation.
    """

    class Config(ImageGAN.Config):
        penalty: Penalty = Field("dragan", description=PENALTY)
        lr: Positive = Field(1e-4, description="step of both networks' optimisers")
        beta2: float = Field(0.9, ge=0, lt=1, description="of Adam")
