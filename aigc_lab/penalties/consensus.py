"""Consensus (Mescheder et al. 2017): ½ ‖v‖² of both players' gradients, in the loss of both; weight 10."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from aigc_lab.nets import joined
from aigc_lab.nets.precision import single
from aigc_lab.objectives import penalties
from aigc_lab.penalties.base import CriticTurn, Penalty, Players, Turn


class Consensus(Penalty):
    """Each player's gradient is that of its own loss, at the weights as they are (eq. 13–14)."""

    weight = 10.0
    dirac_weight = 1.0
    both_players = True

    def unstackable(self, system: nn.Module) -> str | None:
        if any(isinstance(part, _BatchNorm) for part in system.modules()):
            # Of torch 2.15: the gradient of the gradient of a normalisation's own weights leaves out what it owes to
            # the batch's mean and spread; 0.4 % of the gradient of a convolution before it.
            return "torch's vmap differentiates batch normalisation twice with an error, as consensus does"
        return None

    def value(self, turn: CriticTurn) -> Tensor:
        return self.generator_value(turn)

    def generator_value(self, turn: Turn) -> Tensor:
        def gradient(player: nn.Module, value: Callable[[Players], Tensor]) -> tuple[Tensor, ...]:
            def loss(weights: Mapping[str, Tensor]) -> Tensor:
                return value(Players(*(_with(each, weights, each is player) for each in networks)))

            return tuple(map(joined.mean, torch.func.grad(loss)(dict(player.named_parameters())).values()))

        networks = (turn.critic, turn.generator)
        with single(turn.real):
            of_critic = gradient(turn.critic, turn.critic_loss)
            of_generator = gradient(turn.generator, turn.generator_loss)
        return penalties.consensus(of_critic, of_generator)


def _with(network: nn.Module, weights: Mapping[str, Tensor], own: bool) -> Any:
    """The network as a function that leaves its buffers alone; with other weights if they are its `own`."""

    def call(x: Tensor) -> Any:
        buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
        return torch.func.functional_call(network, (dict(weights) if own else {}, buffers), (x,))

    return call
