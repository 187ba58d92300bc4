"""R3GAN (Huang et al. 2024): the relativistic loss with R1 and R2, on residual networks without any normalisation."""

from dataclasses import replace
from typing import Literal

from pydantic import Field
from torch import Tensor

from aigc_lab.config import Count, Few, Positive, Weight, Width
from aigc_lab.nets import resnet
from aigc_lab.objectives import adversarial
from aigc_lab.samples import Images
from aigc_lab.shape import Shape
from aigc_lab.systems.base import Decay, OptimizerConfig, Phase, cosine, scheduled
from aigc_lab.systems.shared.adversarial import PENALTY, Penalty
from aigc_lab.systems.shared.image_gan import PictureGAN

# Side in pixels, at most -> γ as it begins: the published presets of CIFAR-10 and of FFHQ at 64×64.
_GAMMA = {32: 0.05, 64: 2.0}


class R3GAN(PictureGAN):
    """The paper's configuration E in small: grouped convolutions in bottlenecks, blocks that start as the identity,
    filtered resampling, no tanh at the end, 64 normal latents, β₁ = 0.

    γ, the step and β₂ go along half a cosine over the first `decay_images` images of the critic's real ones, as in the
    authors' code (brownvc/R3GAN, train.py and training/training_loop.py): γ to a tenth, the step from 2·10⁻⁴ to a
    quarter, β₂ from 0.9 to 0.99, over 2·10⁷ images. Their γ begins at 0.05 for CIFAR-10, 0.5 for ImageNet at 32×32, 1
    for it at 64×64, 2 for FFHQ at 64×64 and 150 at 256×256; ImageNet's go over 2·10⁸ images. A shorter training is
    given as many images as it sees: steps × batch.

    Not as there: they augment with a probability that rises to 0.55 (CIFAR-10) or 0.3 (FFHQ), mirror the pictures, and
    average the weights with a half-life that rises to 5·10⁶ images; here `augment` is off, and `training.ema` is one
    number. Their networks have 768 channels in 96 groups.
    """

    class Config(PictureGAN.Config):
        loss: adversarial.Name = "relativistic"
        penalty: Penalty = Field("r1_r2", description=PENALTY)
        penalty_weight: Weight | None = Field(
            None, description="γ as it begins; null: 0.05 up to 32×32 pixels, 2 at 64×64, or the penalty's paper's"
        )
        final_penalty: Positive = Field(0.1, description="γ as it ends, over that of the beginning")
        lr: Positive = Field(2e-4, description="step of both networks' optimisers as it begins")
        final_lr: Positive = Field(0.25, description="the step as it ends, over that of the beginning")
        latent_size: Width = 64
        latent_law: Literal["uniform", "normal"] = "normal"
        width: Width = Field(96, description="channels of the blocks; a multiple of the groups")
        groups: Few = Field(12, description="cardinality of the 3×3 convolutions")
        expansion: Few = Field(2, description="channels inside of a block over those outside")
        beta1: float = Field(0.0, ge=0, lt=1, description="of Adam")
        beta2: float = Field(0.9, ge=0, lt=1, description="of Adam, as it begins")
        final_beta2: float = Field(0.99, ge=0, lt=1, description="of Adam, as it ends")
        decay_images: Count = Field(20_000_000, description="images over which γ, the step and β₂ go to their ends")

    optimizer_only = PictureGAN.optimizer_only | {"final_lr", "final_beta2"}
    loss_only = PictureGAN.loss_only | {"final_penalty"}

    config: Config

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__(config, shape)
        width, groups, expansion = config.width, config.groups, config.expansion
        if width * expansion % groups:
            raise ValueError(f"groups {groups} do not divide the {width * expansion} channels of width × expansion")
        self.generator = resnet.ModernDecoder(self.generator_inputs, width, shape.size, groups, expansion)
        self.critic = resnet.ModernEncoder(1, width, self.critic_inputs, groups, expansion, self.critic_bias)
        self.condition()

    def phases(self, batch_size: int) -> list[Phase]:
        self._decay_steps = self.config.decay_images / batch_size
        return super().phases(batch_size)

    def optimizer(self, lr: float) -> OptimizerConfig:
        decay = Decay(self._decay_steps, lr * self.config.final_lr, self.config.final_beta2)
        return replace(super().optimizer(lr), decay=decay)

    @property
    def _weight(self) -> float:
        if self._penalty.zero_centred != {"real", "fake"} or self.config.penalty_weight is not None:
            return super()._weight
        return next(gamma for side, gamma in _GAMMA.items() if self.shape.size[-1] <= side)

    def _weight_at(self, step: int, loss: Tensor) -> Tensor:
        share = scheduled(step, lambda at: cosine(1, 0, at / self._decay_steps), loss.detach())
        return self._weight * (share + (1 - share) * self.config.final_penalty)

    def sample(self, latents: Tensor, *, labels: Tensor | None = None) -> Images:
        return Images(((self.generated(latents, labels).float() + 1) / 2).clamp(0, 1))
