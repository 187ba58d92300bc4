"""Conditional VAE (Sohn et al. 2015): encoder and decoder know the class, and samples are of the class asked for."""

from typing import Any

import torch
from torch import Tensor, nn

from aigc_lab.nets import images as networks
from aigc_lab.nets.classes import beside
from aigc_lab.samples import Images, Samples
from aigc_lab.shape import Shape
from aigc_lab.systems.shared.flow import Flow
from aigc_lab.systems.shared.image_vae import BetaVAE, Code
from aigc_lab.systems.shared.mixture import ClassMixtures
from aigc_lab.systems.shared.samplers import LatentSampler, chosen_labels, given_labels

# A tenth of the codes is held out of a flow's fit: of so many of a class it is one.
_FEWEST = 10


class CVAE(BetaVAE):
    """Minimises E[−log p(x|z, y)] + w·β·Σᵢ max(KLᵢ, λ), a bound of −log p(x|y) in nats a picture, with the keys of
    `vae`. The class y is one-hot: planes beside the picture for q(z|x, y), numbers beside the latents for p(x|z, y).

    The prior is N(0, I) for every class, as in Kingma et al. 2014 (M2); the paper learns p(z|y), which a decoder that
    knows y can make up for. Defaults are those of `vae`.

    Codes of one class need not be spread as those of all are. So `sampler: gmm` fits a mixture to the codes of each
    class, of `mixture` components each, and `flow` one flow whose couplings read the class: a sample's latents are
    drawn given its label.
    """

    conditional = True

    def __init__(self, config: BetaVAE.Config, shape: Shape) -> None:
        super().__init__(config, shape)
        self.classes = _classes(shape)

    def _mixture(self, config: Any) -> LatentSampler:
        return ClassMixtures(_classes(self.shape), config.mixture, self.code_size)

    def _flow(self, config: Any) -> LatentSampler:
        return Flow(config.flow_layers, self.code_size, _classes(self.shape))

    def _encoder(self, config: Any, size: tuple[int, ...]) -> nn.Module:
        channels, *sides = size
        return super()._encoder(config, (channels + _classes(self.shape), *sides))

    def _decoder(self, config: Any, size: tuple[int, ...]) -> nn.Module:
        return networks.decoder(config.network, config.latent_size + _classes(self.shape), config.width, size)

    # ---- the three densities, of a class

    def encode(self, images: Tensor, *, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log variance of q(z|x, y), each [N, code_size], for float images in [0, 1] and labels int64 [N]."""
        return super().encode(self._beside(images, labels))

    def coded(self, images: Tensor, normal: Tensor, *, labels: Tensor | None = None) -> Code:
        """The posterior of images and their labels, drawn from by standard normal numbers [N, code_size]."""
        mean, log_variance = self.encode(images, labels=labels)
        return Code(mean, log_variance, normal, mean + (0.5 * log_variance).exp() * normal)

    def code(self, images: Tensor, normal: Tensor, *, labels: Tensor | None = None) -> Tensor:
        return self.coded(images, normal, labels=labels).latents

    def decode(self, latents: Tensor, *, labels: Tensor | None = None) -> Tensor:
        """The mean of p(x|z, y) as float images, clamped to [0, 1] where the likelihood is Gaussian."""
        return super().decode(self._beside(latents, labels))

    def log_likelihood(self, images: Tensor, latents: Tensor, *, labels: Tensor | None = None) -> Tensor:
        """Log p(x|z, y) in nats a picture [N], for float images in [0, 1]."""
        return super().log_likelihood(images, self._beside(latents, labels))

    def sample(self, latents: Tensor, *, labels: Tensor | None = None) -> Images:
        drawn = latents if self.fitted is None else self.fitted(latents, labels)
        return Images(self.decode(drawn, labels=labels))

    def check_train(self, train: Samples) -> None:
        super().check_train(train)
        if self.fitted is None:
            return
        counts = torch.bincount(given_labels(chosen_labels(train)), minlength=self.classes)
        count, name = int(counts.min()), self.shape.names_of_classes[int(counts.argmin())]
        size, components = self.code_size, self.config.mixture
        if self.flow is not None and count < _FEWEST:
            raise ValueError(
                f"class {name} has {count} codes of train, and a flow given the class needs {_FEWEST} of each: set "
                "sampler to prior"
            )
        if self.mixture is not None and count < (least := max(size + 1, components)):
            raise ValueError(
                f"class {name} has {count} codes of train, and its mixture of {components} components over {size} "
                f"latents needs {least}: take fewer than {count} latents and at most {count} components, or set "
                "sampler to flow or prior"
            )

    def _given(self, batch: Any) -> dict[str, Tensor]:
        return {"labels": batch.labels}

    def _beside(self, inputs: Tensor, labels: Tensor | None) -> Tensor:
        return beside(inputs, given_labels(labels).to(inputs.device), self.classes)


def _classes(shape: Shape) -> int:
    assert shape.classes is not None  # the base refuses data without labels
    return shape.classes
