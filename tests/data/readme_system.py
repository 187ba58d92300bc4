"""A fully connected β-VAE (Higgins et al. 2017) for small pictures."""

from pydantic import Field
from torch import nn

from aigc_lab.config import Strict
from aigc_lab.nets.mlp import mlp
from aigc_lab.noise import Draw
from aigc_lab.objectives.likelihood import bernoulli_nll, standard_normal_kl
from aigc_lab.samples import Images, Modality
from aigc_lab.systems.base import Loss, OptimizerConfig, Phase, System


class BetaVAE(System):
    modality = Modality.IMAGES

    class Config(Strict):  # what an experiment may set and search; unknown keys are refused
        beta: float = Field(1.0, ge=0)
        latent_size: int = Field(16, ge=1)
        hidden: int = Field(400, ge=1)
        lr: float = Field(1e-3, gt=0)

    def __init__(self, config, shape):
        super().__init__(config, shape)
        pixels = shape.size[0] * shape.size[1] * shape.size[2]
        self.encoder = nn.Sequential(nn.Flatten(), mlp(pixels, config.hidden, 1, 2 * config.latent_size))
        self.decoder = nn.Sequential(mlp(config.latent_size, config.hidden, 1, pixels), nn.Unflatten(1, shape.size))

    def phases(self, batch_size):  # the loop draws the noise, steps the optimiser, averages, records
        adam = OptimizerConfig(self.config.lr)
        return [Phase("vae", self.loss, [self.encoder, self.decoder], adam, {"noise": self.latents(batch_size)})]

    def loss(self, batch, noise, step):
        images = batch.unit()
        mean, log_variance = self.encoder(images).chunk(2, dim=1)
        z = mean + (0.5 * log_variance).exp() * noise["noise"]
        kl, nll = standard_normal_kl(mean, log_variance).mean(), bernoulli_nll(self.decoder(z), images).mean()
        return Loss(nll + self.config.beta * kl, {"reconstruction": nll, "kl": kl})

    def samplers(self):  # what sample() uses
        return [self.decoder]

    def latents(self, count):
        return Draw((count, self.config.latent_size))

    def sample(self, latents, *, labels=None):
        return Images(self.decoder(latents).float().sigmoid())
