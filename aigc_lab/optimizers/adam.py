"""Adam (Kingma & Ba 2015): steps by the mean of the gradient over the root of its mean square."""

from typing import Any

import torch
from pydantic import Field
from torch import nn

from aigc_lab.config import Positive, Strict
from aigc_lab.optimizers.base import Optimizer


class Adam(Optimizer):
    """Algorithm 1, with both means corrected for their start at 0."""

    class Config(Strict):
        beta1: float = Field(0.9, ge=0, lt=1, description="decay of the mean gradient")
        beta2: float = Field(0.999, ge=0, lt=1, description="decay of the mean square")
        eps: Positive = Field(1e-8, description="added to the root of the mean square")

    config: Config
    memory = ("exp_avg", "exp_avg_sq")
    counters = ("step",)

    def build(self, parameters: list[nn.Parameter], lr: float, *, fast: bool = True) -> torch.optim.Optimizer:
        how = {"fused": True} if fast else {"foreach": False, "fused": False}
        betas = (self.config.beta1, self.config.beta2)
        return torch.optim.Adam(parameters, lr=lr, betas=betas, eps=self.config.eps, **how)

    def options(self, lr: float, beta2: float | None) -> dict[str, Any]:
        return super().options(lr, beta2) | ({} if beta2 is None else {"betas": (self.config.beta1, beta2)})
