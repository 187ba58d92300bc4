"""Gradient descent, plain or with momentum (Polyak 1964)."""

import torch
from pydantic import Field
from torch import nn

from aigc_lab.config import Strict
from aigc_lab.optimizers.base import Optimizer, uncompiled


class SGD(Optimizer):
    """With momentum m the update is v ← m v + g, w ← w − lr v. Without, nothing is kept between two updates."""

    class Config(Strict):
        momentum: float = Field(0.0, ge=0, lt=1, description="share of the last update that goes on; 0 for none")

    config: Config
    proportional = True

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.memory = ("momentum_buffer",) if config.momentum else ()

    def build(self, parameters: list[nn.Parameter], lr: float, *, fast: bool = True) -> torch.optim.Optimizer:
        rule = uncompiled(torch.optim.SGD)
        made: torch.optim.Optimizer = rule(parameters, lr=lr, momentum=self.config.momentum, foreach=fast)
        return made
