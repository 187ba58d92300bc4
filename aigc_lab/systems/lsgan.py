"""LSGAN (Mao et al. 2017): least squares instead of cross-entropy, on DCGAN's networks."""

from aigc_lab.objectives import adversarial
from aigc_lab.systems.shared.image_gan import ImageGAN


class LSGAN(ImageGAN):
    """A made sample that the critic is sure of, on either side, still has a gradient. Labels 0, 1, 1 (equation 9 of the
    paper), Adam with β₁ = 0.5 at 2·10⁻⁴, one of the paper's two steps.
    """

    class Config(ImageGAN.Config):
        loss: adversarial.Name = "least_squares"
