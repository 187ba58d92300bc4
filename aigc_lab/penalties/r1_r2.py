"""R1 + R2 (Mescheder et al. 2018; together Huang et al. 2024): ½ E ‖∇D‖² at real and at made samples; weight 10."""

import torch
from torch import Tensor

from aigc_lab.objectives import penalties
from aigc_lab.penalties.base import CriticTurn, Penalty


class R1R2(Penalty):
    """The sum of both, with one weight γ."""

    weight = 10.0
    zero_centred = frozenset({"real", "fake"})

    def value(self, turn: CriticTurn) -> Tensor:
        both = (penalties.zero_centred(turn.critic, seen) for seen in (turn.seen_real, turn.seen_fake))
        return sum(both, torch.zeros_like(turn.real_scores.mean()))
