"""The conditional GAN (Mirza & Osindero 2014): both networks read the label beside their input, on DCGAN's networks."""

from typing import Literal

from pydantic import Field

from aigc_lab.systems.shared.conditional_gan import CONDITIONAL, only
from aigc_lab.systems.shared.image_gan import ImageGAN


class CGAN(ImageGAN):
    """The one-hot label is appended to the latents, and as planes to the pictures. Defaults are DCGAN's; the paper has
    fully connected networks.
    """

    class Config(ImageGAN.Config):
        conditional: Literal["concat"] = Field("concat", description=CONDITIONAL)

        _only = only("concat", "cgan", "dcgan")
