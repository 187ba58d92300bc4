"""Boundary equilibrium (Berthelot et al. 2017): a critic that is an autoencoder, and its control of the two players."""

from torch import Tensor

from aigc_lab.nets import joined


def reconstruction(images: Tensor, reconstructed: Tensor) -> Tensor:
    """L(v) = |v − D(v)|, the mean over pixels, of each image [N] (eq. 1 with η = 1)."""
    return (images - reconstructed).abs().flatten(1).mean(1)


def critic(real: Tensor, fake: Tensor, k: Tensor) -> Tensor:
    """E L(x) − k · E L(G(z)) (section 3.4)."""
    return real.mean() - k * fake.mean()


def control(real: Tensor, fake: Tensor, k: Tensor, *, gamma: float, step: float) -> tuple[Tensor, Tensor]:
    """The next k in [0, 1], k + λ (γ E L(x) − E L(G(z))), and the measure of convergence (section 3.4 and 3.4.1)."""
    of_real, of_fake = joined.mean(real.mean()), joined.mean(fake.mean())
    balance = gamma * of_real - of_fake
    return (k + step * balance).clamp(0, 1), of_real + balance.abs()
