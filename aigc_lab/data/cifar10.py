"""CIFAR-10 (Krizhevsky 2009): 60,000 colour photographs of 32×32 pixels in ten classes; the published files."""

from aigc_lab.config import Strict
from aigc_lab.data.shared.published_files import CIFARLike


class CIFAR10(CIFARLike):
    """Files are read from `<data_dir>/cifar-10-batches-py`, and downloaded only when absent."""

    source = "https://www.cs.toronto.edu/~kriz/cifar.html"
    files = "CIFAR10"
    classes = 10
    names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

    class Config(Strict):
        pass
