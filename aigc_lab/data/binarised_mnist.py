"""MNIST in black and white, for likelihoods in nats: every pixel drawn once (Salakhutdinov & Murray 2008), or cut."""

from typing import Literal

import torch
from pydantic import Field

from aigc_lab import noise
from aigc_lab.config import Strict
from aigc_lab.data.shared.published_files import MNISTLike
from aigc_lab.samples import Images


class BinarisedMNIST(MNISTLike):
    """Images of pixels 0 or 255, 1×32×32.

    `static`: a pixel is white with the probability of its grey level, drawn once with our own keyed noise, so
    likelihoods are comparable to published ones in distribution and not image by image. `threshold`: a pixel is white
    from a grey level of one half. Drawing anew for every batch gives no fixed set of samples and is not offered.

    The border that pads 28×28 to 32×32 is always black: nats an image beyond those of the literature's 784 pixels are
    what a model has not learned of the border.
    """

    source = "http://yann.lecun.com/exdb/mnist/"
    files = "MNIST"

    class Config(Strict):
        how: Literal["static", "threshold"] = Field("static", description="how grey becomes black or white")

    def _read(self, train: bool) -> Images:
        grey = super()._read(train)
        if self.config.how == "threshold":
            white = grey.values >= 128
        else:
            source = noise.generator("binarised_mnist", "train" if train else "test")
            # An integer below 255: a pixel of 0 is never white, one of 255 always.
            white = torch.randint(255, grey.values.shape, generator=source, dtype=torch.uint8) < grey.values
        return Images(white.to(torch.uint8) * 255, grey.labels)
