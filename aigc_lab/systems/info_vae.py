"""InfoVAE with MMD (Zhao et al. 2017): codes that say more of their image, held to the prior as a whole."""

from pydantic import Field

from aigc_lab.config import Positive, Real, Weight
from aigc_lab.nets import joined
from aigc_lab.noise import Draw, Noise
from aigc_lab.objectives import mmd
from aigc_lab.objectives.likelihood import standard_normal_kl
from aigc_lab.systems import base
from aigc_lab.systems.shared.image_vae import Code, ImageVAE


class InfoVAE(ImageVAE):
    """Minimises E[−log p(x|z)] + (1 − α)·KL + (α + λ − 1)·MMD²(q(z), p(z)), nats a picture but for MMD. α = 0 and λ = 1
    is the ELBO, α = 1 the MMD-VAE, which holds no single posterior to the prior.

    MMD is taken between the batch's codes and as many draws of the prior, the V-statistic with a Gaussian kernel.
    Defaults are ours: α = 0, and λ = 1000, with which MMD² weighs about as much as the reconstruction.
    """

    class Config(ImageVAE.Config):
        alpha: Real = Field(0.0, le=1, description="weight of the information between image and code")
        mmd_weight: Weight = Field(1000.0, description="weight λ of the divergence of all codes together")
        kernel: mmd.Kernel = Field("rbf", description="of MMD: inverse multiquadratic, Gaussian")
        kernel_scale: Positive | None = Field(None, description="squared distance; null: 2 a latent, as of the prior")

    loss_only = ImageVAE.loss_only | {"alpha", "mmd_weight", "kernel_scale"}
    config: Config

    def _draws(self, batch_size: int) -> dict[str, Draw]:
        return {**super()._draws(batch_size), "prior": Draw((batch_size, self.code_size))}

    def divergence(self, code: Code, noise: Noise, step: int) -> base.Loss:
        config = self.config
        kl = standard_normal_kl(code.mean, code.log_variance).mean()
        scale = 2.0 * self.code_size if config.kernel_scale is None else config.kernel_scale
        distance = mmd.biased(config.kernel, joined.gather(code.latents), joined.gather(noise["prior"]), scale)
        total = (1 - config.alpha) * kl + (config.alpha + config.mmd_weight - 1) * distance
        return base.Loss(total, {"kl": kl, "mmd": distance})
