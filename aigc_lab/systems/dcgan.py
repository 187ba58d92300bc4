"""DCGAN (Radford, Metz & Chintala 2016): convolutional generator and critic with batch normalisation, 16–64 pixels."""

from typing import Any, Literal

from pydantic import Field
from torch import Tensor, nn

from aigc_lab.nets.dcgan import Decoder, Encoder, initialise
from aigc_lab.noise import Draw
from aigc_lab.samples import Images, Modality, Shape
from aigc_lab.systems import base


class DCGAN(base.AdversarialSystem):
    """Defaults are section 4 of the paper: 100 uniform latents, Adam at 2·10⁻⁴ with β₁ = 0.5, 128 channels at the
    widest picture. `hinge` is the loss of Lim & Ye 2017 on the same networks.
    """

    modality = Modality.IMAGES

    class Config(base.AdversarialSystem.Config):
        latent_size: int = Field(100, ge=1)
        latent_law: Literal["uniform", "normal"] = "uniform"
        width: int = Field(128, ge=1, description="channels at the widest picture; doubled at every halving")

    config: Config

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__(config, shape)
        self.generator = Decoder(config.latent_size, config.width, shape.size).append(nn.Tanh())
        self.critic = Encoder(1, config.width, shape.size)
        initialise(self)

    def real(self, batch: Any) -> Tensor:
        signed: Tensor = batch.signed()
        return signed

    def latents(self, count: int) -> Draw:
        return Draw((count, self.config.latent_size), self.config.latent_law)

    def sample(self, latents: Tensor, *, labels: Tensor | None = None) -> Images:
        return Images((self.generator(latents).float() + 1) / 2)
