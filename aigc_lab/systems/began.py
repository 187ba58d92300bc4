"""BEGAN (Berthelot, Schumm & Metz 2017): the critic is an autoencoder, and a control keeps the players in balance."""

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from aigc_lab.config import Positive, Strict, Width
from aigc_lab.nets import began as nets
from aigc_lab.nets import images
from aigc_lab.noise import Draw, Noise
from aigc_lab.objectives import began
from aigc_lab.optimizers import base as optimizers
from aigc_lab.samples import Images
from aigc_lab.shape import Modality, Shape
from aigc_lab.systems.base import Loss, OptimizerConfig, Phase, System


class BEGAN(System):
    """Defaults are section 4 of the paper: 64 uniform latents, λ = 0.001, Adam at 10⁻⁴, of which the paper searches
    between 5·10⁻⁵ and 10⁻⁴; γ = 0.5, the middle of what it shows. `dynamics/convergence` is the paper's measure.
    """

    modality = Modality.IMAGES
    optimizer_only = frozenset({"lr", "beta1"})
    loss_only = frozenset({"gamma", "control"})

    class Config(Strict):
        network: Literal["began", "dcgan", "infogan"] = "began"
        latent_size: Width = Field(64, description="of the generator, and of the critic's code")
        width: Width = Field(64, description="channels at the widest picture")
        gamma: float = Field(0.5, ge=0, le=1, description="E L(G(z)) over E L(x) at rest: more is more diverse")
        control: Positive = Field(1e-3, description="step λ of the balance k")
        lr: Positive = Field(1e-4, description="Adam's step, of both networks")
        beta1: float = Field(0.5, ge=0, lt=1, description="of Adam")
        optimizer: optimizers.Name = Field("adam", description=optimizers.NAME)
        optimizer_options: optimizers.Options = Field({}, description=optimizers.OPTIONS)

    k: Tensor
    next_k: Tensor

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__(config, shape)
        latent, width, size, network = config.latent_size, config.width, shape.size, config.network
        if network == "began":
            self.generator: nn.Sequential = nets.Decoder(latent, width, size)
            self.critic = nn.Sequential(nets.Encoder(latent, width, size), nets.Decoder(latent, width, size))
        else:
            self.generator = images.decoder(network, latent, width, size)
            # InfoGAN's decoder begins with a batch normalisation behind a linear layer, which takes a bias away.
            code = images.encoder(network, latent, width, size, bias=network == "dcgan")
            self.critic = nn.Sequential(code, images.decoder(network, latent, width, size))
        self.register_buffer("k", torch.zeros(()))
        self.register_buffer("next_k", torch.zeros(()))

    def phases(self, batch_size: int) -> list[Phase]:
        noise, optimizer = (
            {"latents": self.latents(batch_size)},
            OptimizerConfig.of(self.config, self.config.lr, (self.config.beta1, 0.999)),
        )
        return [
            Phase("critic", self._critic_loss, [self.critic], optimizer, noise, after=self._control),
            Phase("generator", self._generator_loss, [self.generator], optimizer, noise),
        ]

    def _critic_loss(self, batch: Any, noise: Noise, step: int) -> Loss:
        with torch.no_grad():
            fakes = self.generator(noise["latents"])
        real, fake = (began.reconstruction(seen, self.critic(seen).float()) for seen in (batch.signed(), fakes.float()))
        k = self.k.clone()
        with torch.no_grad():
            next_k, convergence = began.control(real, fake, k, gamma=self.config.gamma, step=self.config.control)
            self.next_k.copy_(next_k)
        parts = {"real": real.mean(), "fake": fake.mean()}
        return Loss(began.critic(real, fake, k), parts, {"k": k, "convergence": convergence})

    def _control(self, step: int) -> None:
        self.k.copy_(self.next_k)

    def _generator_loss(self, batch: Any, noise: Noise, step: int) -> Loss:
        fakes = self.generator(noise["latents"]).float()
        return Loss(began.reconstruction(fakes, self.critic(fakes).float()).mean())

    def samplers(self) -> list[nn.Module]:
        return [self.generator]

    def latents(self, count: int) -> Draw:
        return Draw((count, self.config.latent_size), "uniform")

    def sample(self, latents: Tensor, *, labels: Tensor | None = None) -> Images:
        # The networks of the paper end without a bound.
        return Images(((self.generator(latents).float() + 1) / 2).clamp(0, 1))
