"""R2 (Mescheder et al. 2018): ½ E ‖∇D(x)‖² at made samples; weight 10."""

from torch import Tensor

from aigc_lab.objectives import penalties
from aigc_lab.penalties.base import CriticTurn, Penalty


class R2(Penalty):
    """The weight is the paper's γ (eq. 10)."""

    weight = 10.0
    zero_centred = frozenset({"fake"})

    def value(self, turn: CriticTurn) -> Tensor:
        return penalties.zero_centred(turn.critic, turn.seen_fake)
