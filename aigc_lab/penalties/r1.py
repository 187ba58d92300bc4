"""R1 (Mescheder et al. 2018): ½ E ‖∇D(x)‖² at real samples; weight 10."""

from torch import Tensor

from aigc_lab.objectives import penalties
from aigc_lab.penalties.base import CriticTurn, Penalty


class R1(Penalty):
    """The weight is the paper's γ (eq. 9)."""

    weight = 10.0
    zero_centred = frozenset({"real"})
    dirac_weight = 1.0

    def value(self, turn: CriticTurn) -> Tensor:
        return penalties.zero_centred(turn.critic, turn.seen_real)
