"""Wasserstein autoencoder with MMD (Tolstikhin et al. 2018, algorithm 2): the codes of all images match the prior."""

from typing import Any

from pydantic import Field

from aigc_lab.config import Positive, Weight
from aigc_lab.nets import joined
from aigc_lab.noise import Draw, Noise
from aigc_lab.objectives import mmd
from aigc_lab.systems import base
from aigc_lab.systems.shared.autoencoder import ImageAutoencoder


class WAEMMD(ImageAutoencoder):
    """Minimises E‖x − G(E(x))‖² + λ·MMD²(E(x), N(0, I)), the squared error summed over pixels in [0, 1]. Up to a
    constant, that error is the nats of a Gaussian likelihood with σ² = ½.

    The encoder is deterministic, so there is no likelihood and no ELBO. MMD is the U-statistic with the inverse
    multiquadratic kernel of scale 2·d (section 4). Defaults of the paper on MNIST: λ = 10, Adam at 10⁻³, 8 latents.
    """

    class Config(ImageAutoencoder.Config):
        latent_size: int = Field(8, ge=1, le=2**16)
        mmd_weight: Weight = Field(10.0, description="weight λ of MMD² beside the squared error of an image")
        kernel: mmd.Kernel = Field("imq", description="of MMD: inverse multiquadratic, Gaussian")
        kernel_scale: Positive | None = Field(None, description="squared distance; null: 2 a latent, as of the prior")
        lr: Positive = Field(1e-3, description="Adam's step")

    loss_only = frozenset({"mmd_weight", "kernel_scale"})
    config: Config

    def phases(self, batch_size: int) -> list[base.Phase]:
        draws = {"prior": Draw((batch_size, self.code_size))}
        return [self._phase("autoencoder", self._loss, draws)]

    def _loss(self, batch: Any, noise: Noise, step: int) -> base.Loss:
        images, config = batch.unit(), self.config
        code = self._encoded(images)
        error = (self.decoder(code).float() - images).square().flatten(1).sum(1).mean()
        scale = 2.0 * self.code_size if config.kernel_scale is None else config.kernel_scale
        distance = mmd.unbiased(config.kernel, joined.gather(code), joined.gather(noise["prior"]), scale)
        return base.Loss(error + config.mmd_weight * distance, {"squared_error": error, "mmd": distance})
