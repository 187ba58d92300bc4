"""CIFAR-100 (Krizhevsky 2009): 60,000 colour photographs of 32×32 pixels in a hundred classes; the published files."""

from aigc_lab.config import Strict
from aigc_lab.data.shared.published_files import CIFARLike


class CIFAR100(CIFARLike):
    """Files are read from `<data_dir>/cifar-100-python`, and downloaded only when absent. Labels are the fine ones."""

    source = "https://www.cs.toronto.edu/~kriz/cifar.html"
    files = "CIFAR100"
    classes = 100

    class Config(Strict):
        pass
