"""SNGAN (Miyato et al. 2018): residual networks, the hinge loss, and a spectrally normalised critic."""

from aigc_lab.systems.shared.residual_gan import ResidualGAN


class SNGAN(ResidualGAN):
    """Defaults are the paper's for CIFAR-10 (section 4 and table 4): 128 normal latents, 256 channels in the generator
    and 128 in the critic, Adam at 2·10⁻⁴ with β = (0, 0.9), five critic steps.
    """
