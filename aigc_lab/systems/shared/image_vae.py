"""Variational autoencoders of images: a Gaussian posterior, a likelihood in nats, and a loss of two terms."""

import math
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from aigc_lab.config import Positive
from aigc_lab.noise import Draw, Noise
from aigc_lab.objectives.likelihood import bernoulli_nll, gaussian_nll, standard_normal_log_ratio
from aigc_lab.samples import Samples
from aigc_lab.shape import Shape
from aigc_lab.systems import base
from aigc_lab.systems.shared.autoencoder import ImageAutoencoder
from aigc_lab.systems.shared.kl_term import KL_NUMBERS, KL_READS, KLConfig, kl_term


class Code(NamedTuple):
    """Posterior of a batch, mean and log variance, and its draw `latents` by the standard normal numbers `normal`: each
    [N, code_size].
    """

    mean: Tensor
    log_variance: Tensor
    normal: Tensor
    latents: Tensor


class ImageVAE(ImageAutoencoder):
    """A loss E[−log p(x|z)] + divergence, nats a picture; a subclass gives the `divergence`.

    The Gaussian likelihood learns one σ for all pixels (Rybkin et al. 2021, σ-VAE: it keeps β = 1 meaningful on
    continuous data), unless `sigma` says it.

    Which likelihood says what its nats mean. Bernoulli: a probability of black and white pictures; of grey ones, whose
    values stand as if they were probabilities, a cross-entropy that no normalised density has, and that even a perfect
    copy does not bring to zero. Gaussian: a density on [0, 1], above 1 where σ is small, so that its nats may be of
    either sign. Neither compares with the other.
    """

    class Config(ImageAutoencoder.Config):
        likelihood: Literal["bernoulli", "gaussian"] = "bernoulli"
        sigma: Positive | None = Field(None, description="of the Gaussian likelihood; null: one is learned")

        @model_validator(mode="after")
        def _has_sigma(self) -> Any:
            if self.sigma is not None and self.likelihood != "gaussian":
                raise ValueError(f"sigma is of the Gaussian likelihood, and likelihood is {self.likelihood}")
            return self

    # σ is a buffer, of which each replica has its own.
    loss_only = frozenset({"sigma"})
    per_latent = 2
    config: Config
    log_sigma: Tensor | None

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__(config, shape)
        self.likelihood = config.likelihood
        if config.likelihood != "gaussian":
            self.log_sigma = None
        elif config.sigma is None:
            self.log_sigma = nn.Parameter(torch.tensor(-1.5))
        else:
            self.register_buffer("log_sigma", torch.tensor(math.log(config.sigma)))

    # ---- the three densities

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of q(z|x), each [N, code_size], for float images in [0, 1]."""
        mean, log_variance = self._encoded(images).chunk(2, dim=1)
        return mean, log_variance

    def coded(self, images: Tensor, normal: Tensor) -> Code:
        """The posterior of float images in [0, 1], drawn from by standard normal numbers [N, code_size]."""
        mean, log_variance = self.encode(images)
        return Code(mean, log_variance, normal, mean + (0.5 * log_variance).exp() * normal)

    def code(self, images: Tensor, normal: Tensor) -> Tensor:
        return self.coded(images, normal).latents

    def log_ratio(self, code: Code) -> Tensor:
        """Log p(z) − log q(z|x) [N] in nats, at the latents."""
        return standard_normal_log_ratio(code.latents, code.normal, code.log_variance)

    def decode(self, latents: Tensor) -> Tensor:
        """The mean of p(x|z) as float images, clamped to [0, 1] where the likelihood is Gaussian."""
        decoded: Tensor = self.decoder(latents).float()
        return decoded.sigmoid() if self.log_sigma is None else decoded.clamp(0, 1)

    def log_likelihood(self, images: Tensor, latents: Tensor) -> Tensor:
        """Log p(x|z) in nats a picture [N], for float images in [0, 1]."""
        return -self._nll(latents, images)

    def _nll(self, latents: Tensor, images: Tensor) -> Tensor:
        decoded = self.decoder(latents).float()
        if self.log_sigma is None:
            return bernoulli_nll(decoded, images)
        return gaussian_nll(decoded, self.log_sigma, images)

    # ---- the loss

    def check_train(self, train: Samples) -> None:
        super().check_train(train)
        if self.config.likelihood != "bernoulli" or not train.values.is_floating_point():
            return
        low, high = train.values.min().item(), train.values.max().item()
        if not 0 <= low <= high <= 1:
            raise ValueError(
                f"likelihood bernoulli is of pixels in [0, 1], and those of train go from {low:.3g} to {high:.3g}: "
                "scale them, or set likelihood to gaussian"
            )

    def phases(self, batch_size: int) -> list[base.Phase]:
        # The whole system is trained: the learned σ belongs to neither network.
        return [self._phase("vae", self._loss, self._draws(batch_size))]

    def _vae_modules(self) -> list[nn.Module]:
        """What the loss trains in a system that has other players: both networks, and the learned σ."""
        learned = [self.log_sigma] if isinstance(self.log_sigma, nn.Parameter) else []
        return [self.encoder, self.decoder, nn.ParameterList(learned)]

    def _draws(self, batch_size: int) -> dict[str, Draw]:
        return {"latents": Draw((batch_size, self.code_size))}

    def _loss(self, batch: Any, noise: Noise, step: int) -> base.Loss:
        images, given = batch.unit(), self._given(batch)
        code = self.coded(images, noise["latents"], **given)
        reconstruction = -self.log_likelihood(images, code.latents, **given).mean()
        divergence = self.divergence(code, noise, step)
        parts = {"reconstruction": reconstruction, **divergence.parts}
        return base.Loss(reconstruction + divergence.total, parts, self._scale() | dict(divergence.dynamics))

    def divergence(self, code: Code, noise: Noise, step: int) -> base.Loss:
        """What is added to the reconstruction's nats, with the parts that explain it."""
        raise NotImplementedError

    def _scale(self) -> dict[str, Tensor]:
        """The learned σ, which says what a squared error weighs: it is multiplied by 1/2σ²."""
        # A stack calls this with other tensors in the place of parameters, so what is learned is asked of the keys.
        if self.log_sigma is None or self.config.sigma is not None:
            return {}
        return {"sigma": self.log_sigma.detach().exp()}


class BetaVAE(ImageVAE):
    """An image VAE whose divergence is the weighted KL term: β, annealing, free bits."""

    class Config(ImageVAE.Config, KLConfig):
        pass

    loss_only = ImageVAE.loss_only | KL_NUMBERS
    reads = (*ImageVAE.reads, *KL_READS)
    config: Config

    def divergence(self, code: Code, noise: Noise, step: int) -> base.Loss:
        return kl_term(self.config, code.mean, code.log_variance, step)


class OwnPriorVAE(BetaVAE):
    """A β-VAE whose prior is not N(0, I), or whose posterior is no diagonal Gaussian: metrics draw its codes by it."""

    def draw_posterior(self, images: Tensor, normal: Tensor) -> tuple[Tensor, Tensor]:
        """Latents [N, code_size] of float images in [0, 1] by standard normal numbers of that shape, and log p(z) −
        log q(z|x) [N] there.
        """
        code = self.coded(images, normal)
        return code.latents, self.log_ratio(code)
