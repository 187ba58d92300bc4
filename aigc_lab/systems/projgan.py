"""The projection critic (Miyato & Koyama 2018): an inner product of features and the class's embedding, on SNGAN."""

from typing import Literal

from pydantic import Field

from aigc_lab.systems.shared.conditional_gan import CONDITIONAL, only
from aigc_lab.systems.shared.residual_gan import ResidualGAN


class ProjectionGAN(ResidualGAN):
    """Defaults are those of the paper, which are SNGAN's: the hinge loss, Adam at 2·10⁻⁴ with β = (0, 0.9), five critic
    steps; the embedding is spectrally normalised, and the generator's batch normalisation has a scale and a shift of
    each class. The networks are SNGAN's for CIFAR-10, smaller than the paper's for ImageNet.
    """

    class Config(ResidualGAN.Config):
        conditional: Literal["projection"] = Field("projection", description=CONDITIONAL)

        _only = only("projection", "projgan", "sngan")
