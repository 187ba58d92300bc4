"""RMSProp (Tieleman & Hinton 2012): steps by the gradient over the root of its mean square."""

import torch
from pydantic import Field
from torch import nn

from aigc_lab.config import Positive, Strict
from aigc_lab.optimizers.base import Optimizer, uncompiled


class RMSProp(Optimizer):
    """Without momentum, and without subtracting the mean gradient."""

    class Config(Strict):
        decay: float = Field(0.99, ge=0, lt=1, description="of the mean square")
        eps: Positive = Field(1e-8, description="added to the root of the mean square")

    config: Config
    memory = ("square_avg",)
    counters = ("step",)
    proportional = True

    def build(self, parameters: list[nn.Parameter], lr: float, *, fast: bool = True) -> torch.optim.Optimizer:
        rule, config = uncompiled(torch.optim.RMSprop), self.config
        made: torch.optim.Optimizer = rule(parameters, lr=lr, alpha=config.decay, eps=config.eps, foreach=fast)
        return made
