"""MNIST (LeCun et al. 1998): 70,000 handwritten digits of 28×28 pixels, padded to 32×32; the published files."""

from aigc_lab.config import Strict
from aigc_lab.data.shared.published_files import MNISTLike


class MNIST(MNISTLike):
    """Files are read from `<data_dir>/MNIST/raw` as torchvision lays them out, and downloaded only when absent."""

    source = "http://yann.lecun.com/exdb/mnist/"
    files = "MNIST"

    class Config(Strict):
        pass
