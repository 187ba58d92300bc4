"""Autoencoders of images: the two networks, and where the latents of samples come from."""

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from aigc_lab import noise
from aigc_lab.config import Few, Positive, Strict, Width
from aigc_lab.nets import images as networks
from aigc_lab.noise import Draw
from aigc_lab.optimizers import base as optimizers
from aigc_lab.samples import Images, Samples
from aigc_lab.shape import Modality, Shape
from aigc_lab.systems import base
from aigc_lab.systems.shared.mixture import CODES, SAMPLER, GaussianMixture

# Real samples that are encoded at a time, which is part of their draws' key.
_BLOCK = 500


class ImageAutoencoder(base.System):
    """An encoder of images [N, C, H, W] and a decoder of latents [N, code_size].

    A subclass gives the phases, and `posterior` where its code is drawn. With `sampler: gmm` the latents of samples are
    drawn from a Gaussian mixture that is fitted to codes of *train*; the ELBO stays that of the prior.
    """

    modality = Modality.IMAGES

    class Config(Strict):
        network: networks.Network = "dcgan"
        latent_size: Width = 20
        width: Width = Field(64, description="channels at the widest picture; doubled at every halving")
        sampler: Literal["prior", "gmm"] = Field("prior", description=SAMPLER)
        mixture: Few = Field(10, description="components of the fitted mixture")
        lr: Positive = Field(5e-4, description="Adam's step")
        optimizer: optimizers.Name = Field("adam", description=optimizers.NAME)
        optimizer_options: optimizers.Options = Field({}, description=optimizers.OPTIONS)

    optimizer_only = frozenset({"lr"})
    #: how many numbers the encoder gives for each latent: its mean and log variance, or itself
    per_latent = 1

    config: Config

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__(config, shape)
        network, width, size = config.network, config.width, shape.size
        self.encoder: nn.Module = self._encoder(config, size)
        self.decoder: nn.Module = networks.decoder(network, config.latent_size, width, size)
        self.mixture = GaussianMixture(config.mixture, self.code_size) if config.sampler == "gmm" else None

    def _encoder(self, config: Config, size: tuple[int, ...]) -> nn.Module:
        return networks.encoder(config.network, self.per_latent * config.latent_size, config.width, size)

    @property
    def code_size(self) -> int:
        """Number of latents of an image."""
        return self.config.latent_size

    # ---- the code of an image

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The code [N, code_size] of float images in [0, 1], and its log variance: −∞, a point."""
        code = self._encoded(images)
        return code, torch.full_like(code, -torch.inf)

    def _encoded(self, images: Tensor) -> Tensor:
        # The pyramid wants zero-centred input, as DCGAN's critic gets it.
        encoded: Tensor = self.encoder(images * 2 - 1).float()
        return encoded

    def decode(self, latents: Tensor) -> Tensor:
        """Images as floats in [0, 1], of latents [N, code_size]."""
        decoded: Tensor = self.decoder(latents).float()
        return decoded.clamp(0, 1)

    def code(self, images: Tensor, normal: Tensor) -> Tensor:
        """A code [N, code_size] of each image, drawn by standard normal numbers [N, code_size] where it is drawn."""
        return self.encode(images)[0]

    # ---- samples

    def samplers(self) -> list[nn.Module]:
        # All of it: an average decoder beside the raw encoder would be scored as an autoencoder that nobody trained.
        return [self]

    def latents(self, count: int) -> Draw:
        return Draw((count, self.code_size + (self.mixture is not None)))

    def sample(self, latents: Tensor, *, labels: Tensor | None = None) -> Images:
        return Images(self.decode(self.prior(latents) if self.mixture is None else self.mixture(latents)))

    def prior(self, latents: Tensor) -> Tensor:
        """Codes [N, code_size] from the prior, of the draws that `sample` gets."""
        return latents

    @torch.no_grad()
    def fit_sampler(self, train: Samples) -> None:
        """Fits the mixture to codes of at most 10,000 images of `train`, a seeded choice."""
        if self.mixture is None:
            return
        device = next(self.parameters()).device
        chosen = torch.randperm(len(train), generator=noise.generator("sampler"))[:CODES]
        codes = []
        for number, rows in enumerate(torch.split(chosen, _BLOCK)):
            images = train.take(rows.to(train.values.device)).to(device).as_inputs()
            normal = noise.draw(Draw((_BLOCK, self.code_size)), "sampler", number)[: len(rows)]
            codes.append(self.code(images, normal.to(device)).cpu())
        self.mixture.fit(torch.cat(codes))

    # ---- training

    def _phase(self, name: str, loss: Any, draws: dict[str, Draw], trains: list[nn.Module] | None = None) -> base.Phase:
        """A phase of the optimiser that the configuration names, which trains the whole system unless told."""
        rule = base.OptimizerConfig.of(self.config, self.config.lr)
        return base.Phase(name, loss, [self] if trains is None else trains, rule, draws)
