"""Hierarchical VAE of two levels, a ladder (Sønderby et al. 2016): the upper code is the prior of the lower one."""

from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from aigc_lab.config import Width
from aigc_lab.nets import images as networks
from aigc_lab.nets.mlp import mlp
from aigc_lab.shape import Shape
from aigc_lab.systems.shared.image_vae import Code, OwnPriorVAE
from aigc_lab.systems.shared.kl_term import ANNEALING, Annealing


class HVAE(OwnPriorVAE):
    """Minimises E[−log p(x|z₁)] + w·β·(KL of z₂ + KL of z₁ given z₂), nats a picture. p(z₁|z₂) is a learned Gaussian,
    and q(z₁|x, z₂) its product with the encoder's Gaussian, weighted by precision.

    A code is (z₂, u) with z₁ = μ(z₂) + σ(z₂)·u, so that its prior is N(0, I). Of u, mean and variance of the posterior
    depend on z₂; `encode` gives them at the mean of z₂, and mutual information is that of a code drawn so. The warm-up
    is the paper's.
    """

    class Config(OwnPriorVAE.Config):
        annealing: Annealing = Field("linear", description=ANNEALING)
        top_size: Width = Field(8, description="latents of the upper level; latent_size are those of the lower")
        hidden: Width = Field(256, description="features between the image and the two levels")

    config: Config

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__(config, shape)
        hidden, top, bottom = config.hidden, config.top_size, config.latent_size
        self.bottom = nn.Linear(hidden, 2 * bottom)
        self.up = mlp(hidden, hidden, 1, 2 * top)
        self.down = mlp(top, hidden, 1, 2 * bottom)

    def _encoder(self, config: Any, size: tuple[int, ...]) -> nn.Module:
        return networks.encoder(config.network, config.hidden, config.width, size)

    @property
    def code_size(self) -> int:
        return self.config.top_size + self.config.latent_size

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of q(z₂, u|x), each [N, top_size + latent_size], those of u at the mean of z₂."""
        code = self.coded(images, images.new_zeros(len(images), self.code_size))
        return code.mean, code.log_variance

    def coded(self, images: Tensor, normal: Tensor) -> Code:
        features = F.leaky_relu(self._encoded(images), 0.2)
        top_normal, bottom_normal = self._levels(normal)
        top_mean, top_variance = self.up(features).float().chunk(2, dim=1)
        top = top_mean + (0.5 * top_variance).exp() * top_normal
        mean, log_variance = self._standardised(features, top)
        bottom = mean + (0.5 * log_variance).exp() * bottom_normal
        return Code(
            torch.cat([top_mean, mean], 1),
            torch.cat([top_variance, log_variance], 1),
            normal,
            torch.cat([top, bottom], 1),
        )

    def _standardised(self, features: Tensor, top: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of q(u|x, z₂), each [N, latent_size]: of the product of two Gaussians, in units of the
        prior's.
        """
        mean, log_variance = self.bottom(features).float().chunk(2, dim=1)
        prior_mean, prior_log_variance = self._below(top)
        # The log of the encoder's precision over the prior's.
        precision = prior_log_variance - log_variance
        away = (mean - prior_mean) * (-0.5 * prior_log_variance).exp()
        return away * precision.sigmoid(), -F.softplus(precision)

    def _below(self, top: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of p(z₁|z₂)."""
        mean, log_variance = self.down(top).float().chunk(2, dim=1)
        return mean, log_variance

    def _levels(self, code: Tensor) -> tuple[Tensor, Tensor]:
        return code[:, : self.config.top_size], code[:, self.config.top_size :]

    def lower(self, latents: Tensor) -> Tensor:
        """z₁ [N, latent_size] of codes (z₂, u)."""
        top, standardised = self._levels(latents)
        mean, log_variance = self._below(top)
        return mean + (0.5 * log_variance).exp() * standardised

    def decode(self, latents: Tensor) -> Tensor:
        return super().decode(self.lower(latents))

    def _nll(self, latents: Tensor, images: Tensor) -> Tensor:
        return super()._nll(self.lower(latents), images)
