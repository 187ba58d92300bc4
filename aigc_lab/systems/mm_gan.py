"""The minimax GAN (Goodfellow et al. 2014), on the networks of "Are GANs Created Equal?" (Lucic et al. 2018)."""

from pydantic import Field

from aigc_lab.image_gan import ImageGAN
from aigc_lab.nets.images import Network
from aigc_lab.objectives import adversarial


class MinimaxGAN(ImageGAN):
    """Both players play for one value, so that a generator far behind its critic hardly learns. Defaults are the
    study's: InfoGAN's networks of 64 channels, 64 uniform latents, Adam at 10⁻⁴ with β₁ = 0.5 where it searches.
    """

    class Config(ImageGAN.Config):
        loss: adversarial.Name = "minimax"
        network: Network = "infogan"
        width: int = Field(64, ge=1, description="channels at the widest picture")
        latent_size: int = Field(64, ge=1)
        lr: float = Field(1e-4, gt=0, description="step of both networks' optimisers")
