"""MNIST in black and white, for likelihoods in nats: every pixel drawn once (Salakhutdinov & Murray 2008), or cut."""

from pydantic import Field

from aigc_lab.config import Strict
from aigc_lab.data.shared.binarised import HOW, How, binarised
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
        how: How = Field("static", description=HOW)

    def _read(self, train: bool) -> Images:
        grey = super()._read(train)
        key = "binarised_mnist", "train" if train else "test"
        return Images(binarised(grey.values, self.config.how, *key), grey.labels)
