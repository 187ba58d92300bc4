"""VAE/GAN (Larsen et al. 2016): a critic's features say how alike two images are, and the decoder is a generator."""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from aigc_lab.config import Positive, Weight, Width
from aigc_lab.nets import images as networks
from aigc_lab.noise import Draw, Noise
from aigc_lab.objectives.adversarial import LOSSES
from aigc_lab.objectives.likelihood import gaussian_nll, standard_normal_kl
from aigc_lab.optimizers import base as optimizers
from aigc_lab.shape import Shape
from aigc_lab.systems import base
from aigc_lab.systems.shared.autoencoder import ImageAutoencoder


class VAEGAN(ImageAutoencoder):
    """Three players, updated at the same point (algorithm 1). The encoder minimises β·KL + ℓ, the decoder γ·ℓ + its
    adversarial loss on reconstructions and on draws of the prior, the critic the cross-entropy of images against both.
    ℓ = −log N(f(x); f(x̃), I) in nats a picture, of the features f before the critic's last layer.

    There is no likelihood of pixels, and so no ELBO. Defaults of the paper: 128 latents, RMSprop at 3·10⁻⁴; β = 1. γ is
    ours, and so is the non-saturating loss (the paper's is `minimax`).
    """

    class Config(ImageAutoencoder.Config):
        latent_size: Width = 128
        beta: Weight = Field(1.0, description="weight of the KL term in the encoder's loss")
        feature_weight: Weight = Field(1e-2, description="weight γ of the features' nats in the decoder's loss")
        loss: Literal["nonsaturating", "minimax"] = Field("nonsaturating", description="of the decoder")
        lr: Positive = Field(3e-4, description="step of all three optimisers")
        optimizer: optimizers.Name = Field("rmsprop", description=optimizers.NAME)

    loss_only = frozenset({"beta", "feature_weight"})
    per_latent = 2
    config: Config

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__(config, shape)
        *body, last = [
            part
            for part in networks.encoder(config.network, 1, config.width, shape.size)
            if config.network == "infogan" or not isinstance(part, nn.Flatten)
        ]
        self.features = nn.Sequential(*body)
        self.verdict = nn.Sequential(last, nn.Flatten())

    def phases(self, batch_size: int) -> list[base.Phase]:
        draws = {name: Draw((batch_size, self.code_size)) for name in ("latents", "prior")}
        encoder = self._phase("encoder", self._encoder_loss, {"latents": draws["latents"]}, [self.encoder])
        decoder = self._phase("decoder", self._decoder_loss, draws, [self.decoder])
        critic = self._phase("critic", self._critic_loss, draws, [self.features, self.verdict])
        return [phase._replace(joint="all") for phase in (encoder, decoder, critic)]

    def samplers(self) -> list[nn.Module]:
        return [self.encoder, self.decoder, *([] if self.fitted is None else [self.fitted])]

    # ---- what the networks say

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of q(z|x), each [N, latent_size], for float images in [0, 1]."""
        mean, log_variance = self._encoded(images).chunk(2, dim=1)
        return mean, log_variance

    def code(self, images: Tensor, normal: Tensor) -> Tensor:
        mean, log_variance = self.encode(images)
        return mean + (0.5 * log_variance).exp() * normal

    def decode(self, latents: Tensor) -> Tensor:
        return (self._signed(latents) + 1) / 2

    def _signed(self, latents: Tensor) -> Tensor:
        """Images in [−1, 1], as the critic gets them."""
        decoded: Tensor = self.decoder(latents).float().tanh()
        return decoded

    def _judged(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The critic's features [N, …] and raw outputs [N] of images in [−1, 1]."""
        features = self.features(images)
        return features.float(), self.verdict(features).float().flatten()

    # ---- the three losses

    def _encoder_loss(self, batch: Any, noise: Noise, step: int) -> base.Loss:
        mean, log_variance = self.encode(batch.unit())
        latents = mean + (0.5 * log_variance).exp() * noise["latents"]
        kl = standard_normal_kl(mean, log_variance).mean()
        nats = self._unlike(self._judged(batch.signed())[0], self._judged(self._signed(latents))[0])
        return base.Loss(self.config.beta * kl + nats, {"kl": kl, "features": nats})

    def _decoder_loss(self, batch: Any, noise: Noise, step: int) -> base.Loss:
        with torch.no_grad():
            latents = self.code(batch.unit(), noise["latents"])
            real, _ = self._judged(batch.signed())
        copied, copy_score = self._judged(self._signed(latents))
        _, score = self._judged(self._signed(noise["prior"]))
        nats, generator = self._unlike(real, copied), LOSSES[self.config.loss].generator
        adversarial = generator(copy_score, copy_score) + generator(score, score)
        total = self.config.feature_weight * nats + adversarial
        return base.Loss(total, {"features": nats, "adversarial": adversarial})

    def _critic_loss(self, batch: Any, noise: Noise, step: int) -> base.Loss:
        with torch.no_grad():
            copies = self._signed(self.code(batch.unit(), noise["latents"]))
            fakes = self._signed(noise["prior"])
        # Separate passes: batch normalisation sees images of one kind.
        real, copy, fake = (self._judged(images)[1] for images in (batch.signed(), copies, fakes))
        total = F.softplus(-real).mean() + F.softplus(copy).mean() + F.softplus(fake).mean()
        scores = {"real_score": real.mean(), "copy_score": copy.mean(), "fake_score": fake.mean()}
        return base.Loss(total, dynamics=scores)

    @staticmethod
    def _unlike(real: Tensor, copied: Tensor) -> Tensor:
        """−log N(f(x); f(x̃), I), the mean over the batch."""
        return gaussian_nll(copied, torch.zeros((), device=copied.device), real).mean()
