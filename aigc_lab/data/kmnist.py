"""Kuzushiji-MNIST (Clanuwat et al. 2018): 70,000 cursive Japanese characters of 28×28 pixels, padded to 32×32."""

from aigc_lab.config import Strict
from aigc_lab.data.shared.published_files import MNISTLike


class KMNIST(MNISTLike):
    """Files are read from `<data_dir>/KMNIST/raw`, and downloaded only when absent."""

    source = "https://github.com/rois-codh/kmnist"
    files = "KMNIST"
    names = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")

    class Config(Strict):
        pass
