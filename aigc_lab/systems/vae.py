"""Convolutional variational autoencoder (Kingma & Welling 2014) with β (Higgins et al. 2017), in nats, 16–64 pixels."""

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from aigc_lab.config import Positive, Strict, Weight, Width
from aigc_lab.nets import images as networks
from aigc_lab.noise import Draw, Noise
from aigc_lab.objectives.likelihood import bernoulli_nll, gaussian_nll, standard_normal_kl
from aigc_lab.optimizers import base as optimizers
from aigc_lab.samples import Images
from aigc_lab.shape import Modality, Shape
from aigc_lab.systems import base


class VAE(base.System):
    """Minimises E[−log p(x|z)] + β·KL(q(z|x) ‖ p(z)), nats per picture; β = 1 is the ELBO of the paper.

    The Gaussian likelihood learns one σ for all pixels (Rybkin et al. 2021, σ-VAE: it keeps β = 1 meaningful on
    continuous data). Defaults: β and Adam at 5·10⁻⁴ from Higgins et al. 2017; 20 latents from Kingma & Welling 2014.

    Which likelihood says what its nats mean. Bernoulli: a probability of black and white pictures; of grey ones, whose
    values stand as if they were probabilities, a cross-entropy that no normalised density has, and that even a perfect
    copy does not bring to zero. Gaussian: a density on [0, 1], above 1 where σ is small, so that its nats may be of
    either sign. Neither compares with the other.
    """

    modality = Modality.IMAGES

    class Config(Strict):
        likelihood: Literal["bernoulli", "gaussian"] = "bernoulli"
        network: networks.Network = "dcgan"
        beta: Weight = Field(1.0, description="weight of the KL term")
        latent_size: Width = 20
        width: Width = Field(64, description="channels at the widest picture; doubled at every halving")
        lr: Positive = Field(5e-4, description="Adam's step")
        optimizer: optimizers.Name = Field("adam", description=optimizers.NAME)
        optimizer_options: optimizers.Options = Field({}, description=optimizers.OPTIONS)

    optimizer_only = frozenset({"lr"})

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__(config, shape)
        network, width, size = config.network, config.width, shape.size
        self.encoder = networks.encoder(network, 2 * config.latent_size, width, size)
        self.decoder = networks.decoder(network, config.latent_size, width, size)
        self.likelihood = config.likelihood
        self.log_sigma = nn.Parameter(torch.tensor(-1.5)) if config.likelihood == "gaussian" else None

    def phases(self, batch_size: int) -> list[base.Phase]:
        # The whole system is trained: the learned σ belongs to neither network.
        return [
            base.Phase(
                "vae",
                self._loss,
                [self],
                base.OptimizerConfig.of(self.config, self.config.lr),
                {"latents": self.latents(batch_size)},
            )
        ]

    def _loss(self, batch: Any, noise: Noise, step: int) -> base.Loss:
        images = batch.unit()
        mean, log_variance = self.encode(images)
        reconstruction = self._nll(mean + (0.5 * log_variance).exp() * noise["latents"], images).mean()
        kl = standard_normal_kl(mean, log_variance).mean()
        return base.Loss(reconstruction + self.config.beta * kl, {"reconstruction": reconstruction, "kl": kl})

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of q(z|x), each [N, latent_size], for float images in [0, 1]."""
        # The pyramid wants zero-centred input, as DCGAN's critic gets it.
        mean, log_variance = self.encoder(images * 2 - 1).float().chunk(2, dim=1)
        return mean, log_variance

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

    def samplers(self) -> list[nn.Module]:
        # All of it: an average decoder beside the raw encoder would be scored as an autoencoder that nobody trained.
        return [self]

    def latents(self, count: int) -> Draw:
        return Draw((count, self.config.latent_size))

    def sample(self, latents: Tensor, *, labels: Tensor | None = None) -> Images:
        return Images(self.decode(latents))
