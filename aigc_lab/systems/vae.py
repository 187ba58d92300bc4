"""Convolutional variational autoencoder (Kingma & Welling 2014) with β (Higgins et al. 2017), in nats, 16–64 pixels."""

from aigc_lab.systems.shared.image_vae import BetaVAE


class VAE(BetaVAE):
    """Minimises E[−log p(x|z)] + w·β·Σᵢ max(KLᵢ, λ), nats a picture; β = 1 without annealing (w) and free bits (λ) is
    the ELBO of the paper. `likelihood` says what the nats are of.

    Defaults: β and Adam at 5·10⁻⁴ from Higgins et al. 2017; 20 latents from Kingma & Welling 2014.
    """
