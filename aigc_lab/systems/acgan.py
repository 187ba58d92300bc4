"""AC-GAN (Odena, Olah & Shlens 2017): the critic also names the class, and the generator is asked to be recognised."""

from typing import Literal

from pydantic import Field

from aigc_lab.systems.shared.conditional_gan import CONDITIONAL, only
from aigc_lab.systems.shared.image_gan import ImageGAN


class ACGAN(ImageGAN):
    """Defaults are those of the paper for CIFAR-10 (its table 2) where they are DCGAN's: 100 latents beside the one-hot
    label, Adam with β₁ = 0.5 at 2·10⁻⁴, of which the paper searches between 10⁻⁴ and 3·10⁻⁴. The networks are DCGAN's,
    without the paper's dropout and activation noise in the critic.
    """

    class Config(ImageGAN.Config):
        conditional: Literal["auxiliary"] = Field("auxiliary", description=CONDITIONAL)

        _only = only("auxiliary", "acgan", "dcgan")
