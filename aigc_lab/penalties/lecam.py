"""LeCam (Tseng et al. 2021): real scores close to what was said of made samples, and the reverse; weight 0.3."""

from collections.abc import Mapping

import torch
from torch import Tensor

from aigc_lab.nets import joined
from aigc_lab.objectives import penalties
from aigc_lab.penalties.base import CriticTurn, Penalty

# Of the moving averages of the scores (section 3.2).
_DECAY = 0.99


class LeCam(Penalty):
    """E (D(x) − α_F)² + E (D(G(z)) − α_R)², where the anchors α are moving averages of the critic's mean scores,
    from 0 (eq. 3).
    """

    weight = 0.3
    sees_constant = True

    def value(self, turn: CriticTurn) -> Tensor:
        turn.memory["real_seen"].copy_(joined.mean(turn.real_scores.detach().mean()))
        turn.memory["fake_seen"].copy_(joined.mean(turn.fake_scores.detach().mean()))
        # Copies: the anchors move before the backward pass of another phase may need them.
        anchors = turn.memory["real_anchor"].clone(), turn.memory["fake_anchor"].clone()
        return penalties.lecam(turn.real_scores, turn.fake_scores, *anchors)

    def memory(self) -> dict[str, Tensor]:
        return {name: torch.zeros(()) for name in ("real_anchor", "fake_anchor", "real_seen", "fake_seen")}

    def after(self, memory: Mapping[str, Tensor]) -> None:
        for which in ("real", "fake"):
            memory[f"{which}_anchor"].mul_(_DECAY).add_(memory[f"{which}_seen"] * (1 - _DECAY))
