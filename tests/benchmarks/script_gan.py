"""The usual script's GANs as a system: its networks, trained by the loss and the knobs of every GAN here.

For the benchmark alone: the convolutional critic's dropout draws from torch's stream, as the script's does, and not
from the loop's keyed noise, which `aigc-lab check` rightly refuses.
"""

from typing import Any, Literal

from pydantic import Field
from usual_script import LATENT, networks

from aigc_lab.config import Width
from aigc_lab.shape import Shape
from aigc_lab.systems.shared.image_gan import PictureGAN


class ScriptGAN(PictureGAN):
    class Config(PictureGAN.Config):
        network: Literal["mlp", "dcgan"] = "mlp"
        latent_size: Width = LATENT
        latent_law: Literal["uniform", "normal"] = "normal"
        share_fakes: bool = Field(True, description="as the script does")

    config: Any

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__(config, shape)
        self.generator, self.critic = networks(config.network)
