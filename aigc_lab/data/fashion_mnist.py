"""Fashion-MNIST (Xiao, Rasul & Vollgraf 2017): 70,000 pieces of clothing of 28×28 pixels, padded to 32×32."""

from aigc_lab.config import Strict
from aigc_lab.data.shared.published_files import MNISTLike


class FashionMNIST(MNISTLike):
    """Files are read from `<data_dir>/FashionMNIST/raw`, and downloaded only when absent."""

    source = "https://github.com/zalandoresearch/fashion-mnist"
    files = "FashionMNIST"
    names = (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    )

    class Config(Strict):
        pass
