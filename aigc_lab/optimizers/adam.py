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
    proportional = True

    def build(self, parameters: list[nn.Parameter], lr: float, *, fast: bool = True) -> torch.optim.Optimizer:
        how: dict[str, Any] = {"lr": lr, "betas": (self.config.beta1, self.config.beta2), "eps": self.config.eps}
        if fast:
            return DirectAdam(parameters, **how)
        return torch.optim.Adam(parameters, **how, foreach=False, fused=False)

    def options(self, lr: float, beta2: float | None) -> dict[str, Any]:
        return super().options(lr, beta2) | ({} if beta2 is None else {"betas": (self.config.beta1, beta2)})


# Torch wraps `step` for hooks and the profiler when it makes the first optimiser of a class; Adam itself may have none.
_torchs_step: Any = torch.optim.Adam.step
if not hasattr(_torchs_step, "hooked"):
    _torchs_step = torch.optim.Optimizer.profile_hook_step(_torchs_step)


class DirectAdam(torch.optim.Adam):
    """Torch's fused Adam, to the same bits, whose `step` hands all weights straight to the kernel.

    What torch does around it (a label for the profiler, hooks, sorting weights by device and type) takes longer than
    the kernel does for small networks: of a GAN of points a tenth of the whole step. It also imports torch's compiler,
    with sympy and triton, which takes seconds. A closure, hooks of this optimiser and a weight without gradient are
    left to torch.
    """

    def __init__(self, parameters: list[nn.Parameter], **options: Any) -> None:
        super().__init__(parameters, **options, fused=True)
        self._alike = len({(each.device, each.dtype) for each in parameters}) == 1

    def step(self, closure: Any = None) -> Any:
        group, *others = self.param_groups
        weights = group["params"]
        memories = [self.state.get(weight, {}) for weight in weights]
        gradients = [weight.grad for weight in weights]
        hooked = self._optimizer_step_pre_hooks or self._optimizer_step_post_hooks
        direct = self._alike and not others and not hooked and closure is None
        if not direct or any(gradient is None for gradient in gradients):
            return _torchs_step(self, closure)
        if not all(memories):
            with torch.no_grad():
                self._init_group(group, *([] for _ in range(6)))  # type: ignore[no-untyped-call]  # as torch's step does
            memories = [self.state[weight] for weight in weights]
        steps = [memory["step"] for memory in memories]
        beta1, beta2 = group["betas"]
        with torch.no_grad():
            torch._foreach_add_(steps, 1)
            torch._fused_adam_(
                weights,
                gradients,
                [memory["exp_avg"] for memory in memories],
                [memory["exp_avg_sq"] for memory in memories],
                [],
                steps,
                lr=group["lr"],
                beta1=beta1,
                beta2=beta2,
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                amsgrad=False,
                maximize=False,
            )
        return None

    step.hooked = True  # type: ignore[attr-defined]  # or torch would wrap it in what it is there to leave out
