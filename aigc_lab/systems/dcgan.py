"""DCGAN (Radford, Metz & Chintala 2016): convolutional generator and critic with batch normalisation, 16–64 pixels."""

from aigc_lab.systems.shared.image_gan import ImageGAN


class DCGAN(ImageGAN):
    """Defaults are section 4 of the paper: 100 uniform latents, Adam at 2·10⁻⁴ with β₁ = 0.5, 128 channels at the
    widest picture. `hinge` is the loss of Lim & Ye 2017 on the same networks.
    """
