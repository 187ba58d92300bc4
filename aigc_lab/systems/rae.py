"""Regularised autoencoder (Ghosh et al. 2020): a deterministic code, and a mixture fitted to it to sample from."""

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from aigc_lab.config import Weight
from aigc_lab.nets.precision import single
from aigc_lab.noise import Draw, Noise
from aigc_lab.systems import base
from aigc_lab.systems.shared.autoencoder import ImageAutoencoder
from aigc_lab.systems.shared.samplers import SAMPLER, Sampler


class RAE(ImageAutoencoder):
    """Minimises E‖x − D(z)‖² + β·½E‖z‖² + λ·R(D) with z = E(x), the squared error summed over pixels in [0, 1]. Up to a
    constant, that error is the nats of a Gaussian likelihood with σ² = ½.

    R is ‖θ_D‖² (`l2`), E‖∂D/∂z‖² in the Frobenius norm, estimated by one random direction of an image (`gradient`), or
    nothing. There is no prior, likelihood or ELBO: `sampler: gmm` is the paper's, and its ten components. β and λ are
    ours.
    """

    class Config(ImageAutoencoder.Config):
        sampler: Sampler = Field("gmm", description=SAMPLER)
        code_weight: Weight = Field(1e-2, description="weight β of half the code's squared length")
        regulariser: Literal["l2", "gradient", "none"] = Field("l2", description="of the decoder")
        regulariser_weight: Weight = Field(1e-4, description="weight λ of the regulariser")

    reads = (*ImageAutoencoder.reads, base.Read("regulariser_weight", "regulariser", ("l2", "gradient")))
    loss_only = frozenset({"code_weight", "regulariser_weight"})
    config: Config

    def phases(self, batch_size: int) -> list[base.Phase]:
        drawn = {"directions": Draw((batch_size, *self.shape.size))} if self.config.regulariser == "gradient" else {}
        return [self._phase("autoencoder", self._loss, drawn)]

    def _loss(self, batch: Any, noise: Noise, step: int) -> base.Loss:
        images, config = batch.unit(), self.config
        code = self._encoded(images)
        error = (self.decoder(code).float() - images).square().flatten(1).sum(1).mean()
        length = 0.5 * code.square().sum(1).mean()
        total, parts = error + config.code_weight * length, {"squared_error": error, "code": length}
        if config.regulariser != "none":
            parts["regulariser"] = self._regulariser(code, noise)
            total = total + config.regulariser_weight * parts["regulariser"]
        return base.Loss(total, parts)

    def _regulariser(self, code: Tensor, noise: Noise) -> Tensor:
        if self.config.regulariser == "gradient":
            return squared_jacobian(self.decoder, code, noise["directions"]).mean()
        return torch.stack([weight.float().square().sum() for weight in self.decoder.parameters()]).sum()


def squared_jacobian(decoder: Any, latents: Tensor, directions: Tensor) -> Tensor:
    """‖vᵀ ∂D/∂z‖² [N] at latents [N, D] for standard normal directions v, shaped like the decoder's outputs: its mean
    over v is the squared Frobenius norm of the Jacobian. The decoder's buffers are left alone.
    """

    def projected(z: Tensor) -> Tensor:
        buffers = {name: buffer.clone() for name, buffer in decoder.named_buffers()}
        outputs: Tensor = torch.func.functional_call(decoder, buffers, (z,))
        return (outputs.float() * directions).sum()

    with single(latents):
        gradient: Tensor = torch.func.grad(projected)(latents.float())
        return gradient.square().sum(1)
