"""GANs for images: networks by name, and the normalisation of the critic."""

from typing import Any, Literal

from pydantic import Field
from torch import Tensor, nn

from aigc_lab.config import Width
from aigc_lab.nets import images
from aigc_lab.nets.critics import Norm
from aigc_lab.nets.dcgan import initialise
from aigc_lab.nets.spectral import spectral
from aigc_lab.noise import Draw
from aigc_lab.samples import Images
from aigc_lab.shape import Modality, Shape
from aigc_lab.systems.shared.conditional_gan import ConditionalGAN


class PictureGAN(ConditionalGAN):
    """An adversarial system whose generator makes pictures in [−1, 1] of normal or uniform latents."""

    modality = Modality.IMAGES

    class Config(ConditionalGAN.Config):
        latent_size: Width = 100
        latent_law: Literal["uniform", "normal"] = "uniform"

    config: Config

    def real(self, batch: Any) -> Tensor:
        signed: Tensor = batch.signed()
        return signed

    def latents(self, count: int) -> Draw:
        return Draw((count, self.config.latent_size), self.config.latent_law)

    def sample(self, latents: Tensor, *, labels: Tensor | None = None) -> Images:
        return Images((self.generated(latents, labels).float() + 1) / 2)


class ImageGAN(PictureGAN):
    """A picture GAN on the networks of DCGAN or InfoGAN, for all systems that differ in their loss alone."""

    class Config(PictureGAN.Config):
        network: images.Network = "dcgan"
        width: Width = Field(128, description="channels at the widest picture; doubled at every halving")
        critic_norm: Norm = "batch"
        minibatch_std: bool = Field(False, description="the critic sees how much a batch varies")

    batch_normalised = True

    config: Config

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__(config, shape)
        network, width = config.network, config.width
        self.generator = images.decoder(network, self.generator_inputs, width, shape.size).append(nn.Tanh())
        self.critic = images.encoder(
            network, 1, width, self.critic_inputs, config.critic_norm, config.minibatch_std, self.critic_bias
        )
        self.condition()
        initialise(self)
        if config.critic_norm == "spectral":
            spectral(self.critic)
