"""FactorVAE (Kim & Mnih 2018): a discriminator estimates the total correlation of the code, and the VAE lowers it."""

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from aigc_lab.config import Depth, Positive, Weight, Width
from aigc_lab.nets import joined
from aigc_lab.noise import Draw, Noise
from aigc_lab.objectives.likelihood import standard_normal_kl
from aigc_lab.shape import Shape
from aigc_lab.systems import base
from aigc_lab.systems.shared.image_vae import Code, ImageVAE


class FactorVAE(ImageVAE):
    """Minimises E[−log p(x|z)] + KL + γ·E[D(z)], nats a picture, where D(z) = log d/(1 − d) estimates log q(z)/∏q(zᵢ)
    (equation 3). D is trained in a phase of its own to tell codes from codes whose latents are permuted over the batch,
    each by itself (algorithms 1 and 2; here both are of one batch).

    Defaults of the paper: D of 6 layers of 1000, its Adam at 10⁻⁴ with β₁ = 0.5, the VAE's at 10⁻⁴; γ = 10 of its range
    from 10 to 40.
    """

    class Config(ImageVAE.Config):
        latent_size: Width = 10
        gamma: Weight = Field(10.0, description="weight of the total correlation")
        hidden: Width = Field(1000, description="width of the discriminator")
        layers: Depth = Field(6, description="of the discriminator")
        lr: Positive = Field(1e-4, description="Adam's step, of the VAE")
        critic_lr: Positive = Field(1e-4, description="step of the discriminator's optimiser")

    optimizer_only = frozenset({"lr", "critic_lr"})
    loss_only = ImageVAE.loss_only | {"gamma"}
    config: Config

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__(config, shape)
        sizes = [self.code_size, *[config.hidden] * config.layers]
        body: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            body += [nn.Linear(inputs, outputs), nn.LeakyReLU(0.2)]
        self.discriminator = nn.Sequential(*body, nn.Linear(config.hidden, 1))

    def phases(self, batch_size: int) -> list[base.Phase]:
        config = self.config
        vae = self._phase("vae", self._loss, self._draws(batch_size), self._vae_modules())
        rule = base.OptimizerConfig.of(config, config.critic_lr, (0.5, 0.9))
        draws = {**self._draws(batch_size), "orders": Draw((batch_size, self.code_size), "unit")}
        return [vae, base.Phase("discriminator", self._discriminator_loss, [self.discriminator], rule, draws)]

    def samplers(self) -> list[nn.Module]:
        return [self.encoder, self.decoder, *([] if self.fitted is None else [self.fitted])]

    def divergence(self, code: Code, noise: Noise, step: int) -> base.Loss:
        kl = standard_normal_kl(code.mean, code.log_variance).mean()
        correlation = self.log_density_ratio(code.latents).mean()
        parts = {"kl": kl, "total_correlation": correlation}
        return base.Loss(kl + self.config.gamma * correlation, parts)

    def log_density_ratio(self, latents: Tensor) -> Tensor:
        """Estimate of log q(z)/∏q(zᵢ) [N] at latents [N, latent_size]."""
        estimate: Tensor = self.discriminator(latents).float().squeeze(1)
        return estimate

    def _discriminator_loss(self, batch: Any, noise: Noise, step: int) -> base.Loss:
        with torch.no_grad():
            code = self.coded(batch.unit(), noise["latents"]).latents
            # Each column in an order of its own: a sample of the product of the latents' own distributions.
            permuted = joined.own(joined.gather(code).gather(0, joined.gather(noise["orders"]).argsort(0)))
        real, other = self.log_density_ratio(code), self.log_density_ratio(permuted)
        return base.Loss(0.5 * (F.softplus(-real).mean() + F.softplus(other).mean()))
