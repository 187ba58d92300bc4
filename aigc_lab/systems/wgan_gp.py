"""WGAN-GP (Gulrajani et al. 2017): the Wasserstein distance, a critic kept Lipschitz by a penalty on its gradient."""

from typing import Literal

from pydantic import Field

from aigc_lab.config import Positive, Times
from aigc_lab.nets.critics import Norm
from aigc_lab.objectives import adversarial
from aigc_lab.systems.shared.adversarial import PENALTY, Penalty
from aigc_lab.systems.shared.image_gan import ImageGAN


class WGANGP(ImageGAN):
    """Defaults are algorithm 1 of the paper: λ = 10, five critic steps, Adam at 10⁻⁴ with β = (0, 0.9). The critic is
    normalised by layer, for the penalty is on each sample's own gradient, and batches mix them (section 4).
    """

    class Config(ImageGAN.Config):
        loss: adversarial.Name = "wasserstein"
        penalty: Penalty = Field("wgan_gp", description=PENALTY)
        critic_norm: Norm = "layer"
        latent_law: Literal["uniform", "normal"] = "normal"
        lr: Positive = Field(1e-4, description="step of both networks' optimisers")
        beta1: float = Field(0.0, ge=0, lt=1, description="of Adam")
        beta2: float = Field(0.9, ge=0, lt=1, description="of Adam")
        n_critic: Times = Field(5, description="critic updates for one of the generator")
