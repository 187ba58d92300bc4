"""Autoencoders of images: the two networks, and where the latents of samples come from."""

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from aigc_lab import noise
from aigc_lab.config import Depth, Few, Positive, Strict, Width
from aigc_lab.nets import images as networks
from aigc_lab.noise import Draw
from aigc_lab.optimizers import base as optimizers
from aigc_lab.samples import Images, Samples
from aigc_lab.shape import Modality, Shape
from aigc_lab.systems import base
from aigc_lab.systems.shared.flow import Flow
from aigc_lab.systems.shared.mixture import GaussianMixture
from aigc_lab.systems.shared.samplers import (
    BLOCK,
    FLOW_LAYERS,
    MIXTURE,
    SAMPLER,
    SAMPLER_READS,
    LatentSampler,
    Sampler,
    blocks,
    chosen_labels,
    refuse_few,
)


class ImageAutoencoder(base.System):
    """An encoder of images [N, C, H, W] and a decoder of latents [N, code_size].

    A subclass gives the phases, and `code` where its code is drawn. With a `sampler` other than the prior the latents
    of samples are drawn from what is fitted to codes of *train*, a Gaussian mixture or a normalising flow; the ELBO
    stays that of the prior.
    """

    modality = Modality.IMAGES

    class Config(Strict):
        network: networks.Network = "dcgan"
        latent_size: Width = 20
        width: Width = Field(64, description="channels at the widest picture; doubled at every halving")
        sampler: Sampler = Field("prior", description=SAMPLER)
        mixture: Few = Field(10, description=MIXTURE)
        flow_layers: Depth = Field(8, description=FLOW_LAYERS)
        lr: Positive = Field(5e-4, description="Adam's step")
        optimizer: optimizers.Name = Field("adam", description=optimizers.NAME)
        optimizer_options: optimizers.Options = Field({}, description=optimizers.OPTIONS)

    optimizer_only = frozenset({"lr"})
    reads: ClassVar[tuple[base.Read, ...]] = SAMPLER_READS
    #: how many numbers the encoder gives for each latent: its mean and log variance, or itself
    per_latent = 1
    #: numbers that `prior` reads beside one for each latent
    prior_extra = 0

    config: Config

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__(config, shape)
        size = shape.size
        self.encoder: nn.Module = self._encoder(config, size)
        self.decoder: nn.Module = self._decoder(config, size)
        # Neither draws: the networks begin alike whatever the sampler.
        self.mixture = self._mixture(config) if config.sampler == "gmm" else None
        self.flow = self._flow(config) if config.sampler == "flow" else None

    def _encoder(self, config: Config, size: tuple[int, ...]) -> nn.Module:
        return networks.encoder(config.network, self.per_latent * config.latent_size, config.width, size)

    def _decoder(self, config: Config, size: tuple[int, ...]) -> nn.Module:
        return networks.decoder(config.network, config.latent_size, config.width, size)

    def _mixture(self, config: Config) -> LatentSampler:
        return GaussianMixture(config.mixture, self.code_size)

    def _flow(self, config: Config) -> LatentSampler:
        return Flow(config.flow_layers, self.code_size)

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

    def _given(self, batch: Any) -> dict[str, Tensor]:
        """What the networks read of a batch beside its images, by keyword: labels in a conditional one."""
        return {}

    # ---- samples

    @property
    def fitted(self) -> LatentSampler | None:
        """What is fitted to codes of *train*; None where latents come from the prior."""
        return self.flow if self.mixture is None else self.mixture

    def samplers(self) -> list[nn.Module]:
        # All of it: an average decoder beside the raw encoder would be scored as an autoencoder that nobody trained.
        return [self]

    def latents(self, count: int) -> Draw:
        extra = self.prior_extra if self.fitted is None else self.fitted.extra
        return Draw((count, self.code_size + extra))

    def sample(self, latents: Tensor, *, labels: Tensor | None = None) -> Images:
        return Images(self.decode(self.prior(latents) if self.fitted is None else self.fitted(latents)))

    def prior(self, latents: Tensor) -> Tensor:
        """Codes [N, code_size] from the prior, of the draws that `sample` gets."""
        return latents

    def check_train(self, train: Samples) -> None:
        if self.fitted is not None:
            components = None if self.mixture is None else self.config.mixture
            refuse_few(self.code_size, "latents", components, train)

    @torch.no_grad()
    def fit_sampler(self, train: Samples) -> None:
        """Fits the sampler to codes of at most 10,000 images of `train`, a seeded choice."""
        if self.fitted is None:
            return
        device = next(self.parameters()).device
        codes = []
        for number, batch in enumerate(blocks(train, device)):
            normal = noise.draw(Draw((BLOCK, self.code_size)), "sampler", number)[: len(batch)]
            codes.append(self.code(batch.as_inputs(), normal.to(device), **self._given(batch)).cpu())
        self.fitted.fit(torch.cat(codes), chosen_labels(train))

    # ---- training

    def _phase(self, name: str, loss: Any, draws: dict[str, Draw], trains: list[nn.Module] | None = None) -> base.Phase:
        """A phase of the optimiser that the configuration names, which trains the whole system unless told."""
        rule = base.OptimizerConfig.of(self.config, self.config.lr)
        return base.Phase(name, loss, [self] if trains is None else trains, rule, draws)
