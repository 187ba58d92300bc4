"""Grey images in black and white, for likelihoods in nats."""

from typing import Literal

import torch
from torch import Tensor

from aigc_lab import noise

How = Literal["static", "threshold"]
#: what is said of a knob of that type
HOW = "how grey becomes black or white"


def binarised(grey: Tensor, how: How, *key: noise.Key) -> Tensor:
    """Images of pixels 0 or 255, uint8, of grey ones. `static`: a pixel is white with the probability of its grey
    level, drawn once by the key (Salakhutdinov & Murray 2008). `threshold`: it is from a grey level of one half.
    """
    if how == "threshold":
        white = grey >= 128
    else:
        # An integer below 255: a pixel of 0 is never white, one of 255 always.
        white = torch.randint(255, grey.shape, generator=noise.generator(*key), dtype=torch.uint8) < grey
    return white.to(torch.uint8) * 255
