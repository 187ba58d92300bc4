"""pytorch-fid's Inception v3 (Szegedy et al. 2015, TensorFlow's weights of 2015-12-05), laid out to be run fast.

The layers, their order and the preprocessing are those of `pytorch_fid.inception`. Two things are changed, which move
the last digits only: batch normalisation is folded into the convolutions, and tensors lie channels last in memory.
"""

from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from pytorch_fid import inception as pytorch_fid
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models import inception_v3
from torchvision.models.inception import BasicConv2d

CLASSES = 1008
#: channels after the first and the second maximum pool, before the auxiliary classifier, and at the end
DIMENSIONS = tuple(pytorch_fid.InceptionV3.BLOCK_INDEX_BY_DIM)


def shapes() -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor in the published file that is read.

    torchvision's network has them all: pytorch-fid changes what some blocks compute, and none of their weights.
    """
    with torch.device("meta"):
        network = inception_v3(num_classes=CLASSES, aux_logits=False, init_weights=False)
    counters = ".num_batches_tracked"  # of training; not all copies of the file hold them
    return {name: tuple(each.shape) for name, each in network.state_dict().items() if not name.endswith(counters)}


class Inception(nn.Module):
    """Images [N, 1 or 3, H, W] of 0 to 255 -> (features [N, dimensions], logits [N, 1008] of 2048 features, else None).

    The resize to 299×299 is pytorch-fid's: bilinear, corners not aligned, no smoothing. The logits have no bias, as the
    first implementation of the Inception score read them; pytorch-fid's module ends before them.
    """

    def __init__(self, weights: Mapping[str, Tensor], dimensions: int) -> None:
        """From the tensors of `shapes`, all of them there; `dimensions` is one of `DIMENSIONS`."""
        super().__init__()
        self.blocks = _folded(_pytorch_fids(weights, dimensions))
        self.fc = nn.Parameter(weights["fc.weight"].float()) if dimensions == 2048 else None
        self.to(memory_format=torch.channels_last).eval().requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        unit = (images.float() / 255).expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
        (maps,) = self.blocks(unit)
        vectors = maps.mean((2, 3))
        return vectors, None if self.fc is None else F.linear(vectors, self.fc)


def _pytorch_fids(weights: Mapping[str, Tensor], dimensions: int) -> nn.Module:
    """`pytorch_fid.inception.InceptionV3` of these weights. Its own constructor downloads them without asking."""
    blank = {name: each.to("meta") for name, each in weights.items()}
    with torch.device("meta"):  # no room is taken, and no random number
        network = _seeing(pytorch_fid.fid_inception_v3, load_state_dict_from_url=lambda url, progress: blank)()
    network.load_state_dict(weights, assign=True)
    extractor: nn.Module = pytorch_fid.InceptionV3.__new__(pytorch_fid.InceptionV3)
    block = pytorch_fid.InceptionV3.BLOCK_INDEX_BY_DIM[dimensions]
    _seeing(pytorch_fid.InceptionV3.__init__, fid_inception_v3=lambda: network)(extractor, [block])
    return extractor


def _seeing(function: Callable[..., Any], **others: object) -> Callable[..., Any]:
    """A function of pytorch-fid that sees `others` among the globals of its module, which is itself left alone."""
    assert isinstance(function, FunctionType)
    seen = vars(pytorch_fid) | others
    return FunctionType(function.__code__, seen, function.__name__, function.__defaults__, function.__closure__)


def _folded(network: nn.Module) -> nn.Module:
    """The network with each batch normalisation inside the convolution before it; computed in float64."""
    network.double().eval()
    for module in network.modules():
        if isinstance(module, BasicConv2d):
            module.conv = fuse_conv_bn_eval(module.conv, module.bn)
            module.bn = nn.Identity()
    return network.float()
