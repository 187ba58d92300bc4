"""A fully connected β-VAE (Higgins et al. 2017) for small pictures."""
from torch import nn
from aigc_lab.config import Strict
from aigc_lab.nets.mlp import mlp
from aigc_lab.noise import Draw
from aigc_lab.objectives.likelihood import bernoulli_nll, standard_normal_kl
from aigc_lab.samples import Images, Modality
from aigc_lab.systems.base import Loss, OptimizerConfig, Phase, System

class BetaVAE(System):
    modality = Modality.IMAGES
    class Config(Strict):  # what an experiment may set or search
        beta: float = 1.0
        latent_size: int = 16
        hidden: int = 400
        lr: float = 1e-3

    def __init__(self, config, shape):
        super().__init__(config, shape)
        pixels = shape.size[0] * shape.size[1] * shape.size[2]
        self.encoder = nn.Sequential(nn.Flatten(), mlp(pixels, config.hidden, 1, 2 * config.latent_size))
        self.decoder = nn.Sequential(mlp(config.latent_size, config.hidden, 1, pixels), nn.Unflatten(1, shape.size))

    def phases(self, batch_size):  # the loop draws the noise, steps Adam, averages and records
        return [Phase("vae", self.loss, [self], OptimizerConfig(self.config.lr), {"z": self.latents(batch_size)})]

    def loss(self, batch, noise, step):
        mean, log_variance = self.encoder(batch.unit()).chunk(2, dim=1)
        decoded = self.decoder(mean + (0.5 * log_variance).exp() * noise["z"])
        nll, kl = bernoulli_nll(decoded, batch.unit()).mean(), standard_normal_kl(mean, log_variance).mean()
        return Loss(nll + self.config.beta * kl, {"reconstruction": nll, "kl": kl})

    def samplers(self):  # what sample() calls
        return [self.decoder]

    def latents(self, count):  # what sample() starts from
        return Draw((count, self.config.latent_size))

    def sample(self, latents, *, labels=None):
        return Images(self.decoder(latents).float().sigmoid())
