"""Importance-weighted autoencoder (Burda et al. 2016): a tighter bound from K draws of each image's code."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from aigc_lab.config import Times
from aigc_lab.noise import Draw, Noise
from aigc_lab.shape import Shape
from aigc_lab.systems import base
from aigc_lab.systems.shared.image_vae import Code, ImageVAE

# Latents of an image decoded at a time unless told: the larger K of the paper.
_CHUNK = 50


class IWAE(ImageVAE):
    """Minimises −E log 1/K Σₖ p(x, zₖ)/q(zₖ|x), nats a picture (equation 8). K = 1 is the ELBO, and the bound rises to
    log p(x) with K (theorem 1).

    `chunk` bounds memory: so many latents of an image are decoded at a time, at most 50 unless it is given. If there
    are more, they are decoded again for the gradient, and batch normalisation sees one chunk at a time. Default: K = 5,
    the smaller of the paper's two.
    """

    class Config(ImageVAE.Config):
        importance: Times = Field(5, description="K: latents drawn for each image")
        chunk: Times | None = Field(None, description="latents of an image decoded at a time; null: at most 50")

    config: Config

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__(config, shape)
        self._chunk = config.chunk or _CHUNK
        if config.chunk is not None or config.importance > self._chunk:
            self.unstackable = "chunks are decoded again in the backward pass, which vmap cannot do"

    def _draws(self, batch_size: int) -> dict[str, Draw]:
        return {"latents": Draw((batch_size, self.config.importance, self.code_size))}

    def _loss(self, batch: Any, noise: Noise, step: int) -> base.Loss:
        images = batch.unit()
        mean, log_variance = (each.unsqueeze(1) for each in self.encode(images))
        normal = noise["latents"]
        latents = mean + (0.5 * log_variance).exp() * normal
        likelihood = self._decoded(images, latents)
        ratio = self.log_ratio(Code(mean, log_variance, normal, latents))
        weights = likelihood + ratio
        bound = (torch.logsumexp(weights, 1) - math.log(self.config.importance)).mean()
        parts = {"reconstruction": -likelihood.mean(), "kl": -ratio.mean(), "elbo": weights.mean()}
        return base.Loss(-bound, parts, self._scale())

    def _decoded(self, images: Tensor, latents: Tensor) -> Tensor:
        """Log p(x|z) [N, K] of images [N, C, H, W] at latents [N, K, D]."""
        if self._chunk >= latents.shape[1]:
            return self.block(images, latents)
        # As inputs of the function, or its backward pass would be asked for no gradient of theirs.
        learned = [weight for part in self._vae_modules()[1:] for weight in part.parameters()]
        blocks = [_Recomputed.apply(self, images, part, *learned) for part in torch.split(latents, self._chunk, 1)]
        return torch.cat(blocks, 1)

    def block(self, images: Tensor, latents: Tensor) -> Tensor:
        """Log p(x|z) [N, K], of all at a time."""
        count = latents.shape[1]
        repeated = images.unsqueeze(1).expand(-1, count, -1, -1, -1).flatten(0, 1)
        return self.log_likelihood(repeated, latents.flatten(0, 1)).reshape(-1, count)


class _Recomputed(torch.autograd.Function):
    """`system.block(images, latents)` of which nothing is kept for the backward pass: it is computed again there.

    torch's own checkpoint imports its compiler, which takes seconds, and moves the statistics of batch normalisation a
    second time.
    """

    @staticmethod
    def forward(ctx: Any, system: IWAE, images: Tensor, latents: Tensor, *weights: Tensor) -> Tensor:
        ctx.system = system
        ctx.save_for_backward(images, latents, *weights)
        return system.block(images, latents)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        images, latents, *weights = ctx.saved_tensors
        latents = latents.detach().requires_grad_()
        with torch.enable_grad(), _without_statistics(ctx.system.decoder):
            # A scalar: with gradients of its outputs `torch.autograd.grad` imports the compiler too.
            total = (ctx.system.block(images, latents) * gradients[0]).sum()
        found = torch.autograd.grad(total, [latents, *weights])
        return None, None, *found


@contextmanager
def _without_statistics(network: nn.Module) -> Iterator[None]:
    """Batch normalisation as it was, without moving its running statistics a second time."""
    layers = [part for part in network.modules() if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d)]
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True
