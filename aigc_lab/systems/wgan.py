"""WGAN (Arjovsky, Chintala & Bottou 2017): the Wasserstein distance, with a critic whose weights are clipped."""

from typing import Literal

from pydantic import Field

from aigc_lab.config import Positive, Times
from aigc_lab.objectives import adversarial
from aigc_lab.optimizers import base as optimizers
from aigc_lab.systems.shared.image_gan import ImageGAN


class WGAN(ImageGAN):
    """Defaults are algorithm 1 of the paper: RMSProp at 5·10⁻⁵, weights within ±0.01, five critic steps, on DCGAN's
    networks with normal latents. RMSProp has no β: `beta1` and `beta2` do nothing here.
    """

    class Config(ImageGAN.Config):
        loss: adversarial.Name = "wasserstein"
        clip: Positive | None = Field(0.01, description="the critic's weights are kept within ± this")
        latent_law: Literal["uniform", "normal"] = "normal"
        lr: Positive = Field(5e-5, description="step of both networks' optimisers")
        optimizer: optimizers.Name = Field("rmsprop", description=optimizers.NAME)
        n_critic: Times = Field(5, description="critic updates for one of the generator")
