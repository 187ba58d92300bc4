"""A fixed convolutional network with random weights: features of any images, without labels and without a download."""

from torch import Tensor, nn

from aigc_lab import noise
from aigc_lab.extractors import base

DIMENSIONS = 64


class Random(base.Extractor):
    """Features [N, 64]: the channel means of three stages of 3×3 convolutions with He's weights (2015), keyed and never
    trained. Grey images become RGB.

    Random features respond to texture, colour and brightness, not to content: use `fd_rand` to rank runs on one dataset
    if nothing better can be had; its unit has no meaning beyond that. Naeem et al. (2020) found random embeddings
    usable where pretrained ones do not fit the data.

    Measured on 3,000 MNIST digits of the train split against 3,000 of the holdout: unchanged 0.0014; without 1, 3, 5
    and 9 of the ten classes 0.0046, 0.0107, 0.0149 and 0.091; with noise of σ 0.02, 0.1 and 0.4 (white is 1) 0.0084,
    0.18 and 1.8; uniform noise 9.9.
    """

    short = "rand"
    untrained = True
    dimensions = DIMENSIONS

    def __init__(self) -> None:
        self.network = nn.Sequential(
            nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU(), nn.Conv2d(64, 64, 3, 2, 1),
            nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )  # fmt: skip
        for index, module in enumerate(self.network):
            if isinstance(module, nn.Conv2d):
                fan = module.weight[0].numel()
                size = tuple(module.weight.shape)
                module.weight.data = noise.draw(noise.Draw(size), "random features", index) * (2 / fan) ** 0.5
                module.bias.data = noise.draw(noise.Draw(size[:1]), "random features", index, "bias") * 0.1  # type: ignore[union-attr]
        self.identity = f"rand:{base.digest(self.network)}"

    def __call__(self, images: Tensor) -> tuple[Tensor, None]:
        vectors: Tensor = self.network(base.as_rgb(images).float() / 127.5 - 1)
        return vectors, None
