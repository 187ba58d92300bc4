"""VAE with the VampPrior (Tomczak & Welling 2018): the prior is the mean posterior of learned pseudo-inputs."""

import math
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from aigc_lab.config import Few
from aigc_lab.nets import images as networks
from aigc_lab.noise import Noise
from aigc_lab.objectives.likelihood import normal_log_density
from aigc_lab.samples import Samples
from aigc_lab.shape import Shape
from aigc_lab.systems import base
from aigc_lab.systems.shared.image_vae import Code, OwnPriorVAE
from aigc_lab.systems.shared.kl_term import ANNEALING, Annealing, weighted
from aigc_lab.systems.shared.mixture import component
from aigc_lab.systems.shared.samplers import refuse_more


class VampVAE(OwnPriorVAE):
    """Minimises E[−log p(x|z)] + w·β·E[log q(z|x) − log p(z)] with p(z) = 1/K Σₖ q(z|uₖ), nats a picture. The KL term
    is that of the drawn code, since it has no closed form.

    The pseudo-inputs uₖ are learned pixels, a sigmoid for the paper's clipping, whose gradient vanishes outside [0, 1].
    The encoder is normalised by layer: with batch normalisation an image's code would depend on the pseudo-inputs
    beside it. Free bits need a closed form and are refused. Defaults of the paper: K = 500, and a warm-up (ours is of
    1000 steps), without which the prior may follow a code that says nothing.
    """

    class Config(OwnPriorVAE.Config):
        annealing: Annealing = Field("linear", description=ANNEALING)
        pseudo_inputs: Few = Field(500, description="K: learned images whose posteriors make the prior")

    prior_extra = 1
    config: Config

    def __init__(self, config: Config, shape: Shape) -> None:
        if config.free_bits:
            raise ValueError("free_bits go by each latent's own KL, which this prior has not")
        super().__init__(config, shape)
        self.pseudo_inputs = nn.Parameter(torch.randn(config.pseudo_inputs, *shape.size))

    def _encoder(self, config: Any, size: tuple[int, ...]) -> nn.Module:
        return networks.encoder(config.network, 2 * config.latent_size, config.width, size, "layer")

    def components(self) -> tuple[Tensor, Tensor]:
        """Means and log variances of the prior's components, each [K, latent_size]."""
        return self.encode(self.pseudo_inputs.sigmoid())

    def log_prior(self, latents: Tensor) -> Tensor:
        """Log p(z) [N] in nats, of latents [N, latent_size]."""
        means, log_variances = self.components()
        each = normal_log_density(latents[:, None], means[None], log_variances[None]).sum(2)
        return torch.logsumexp(each, 1) - math.log(self.config.pseudo_inputs)

    def log_ratio(self, code: Code) -> Tensor:
        return self.log_prior(code.latents) - normal_log_density(code.latents, code.mean, code.log_variance).sum(1)

    def check_train(self, train: Samples) -> None:
        super().check_train(train)
        refuse_more("pseudo_inputs", self.config.pseudo_inputs, "components of the prior", train)

    def divergence(self, code: Code, noise: Noise, step: int) -> base.Loss:
        kl = -self.log_ratio(code).mean()
        return weighted(self.config, kl, kl, step)

    def prior(self, latents: Tensor) -> Tensor:
        """Codes from the posteriors of pseudo-inputs, which the last number of each row picks."""
        means, log_variances = self.components()
        picked = component(latents.new_full((len(means),), 1 / len(means)), latents[:, -1])
        return means[picked] + (0.5 * log_variances[picked]).exp() * latents[:, :-1]
