"""DRAGAN (Kodali et al. 2017): E (‖∇D(x̂)‖ − 1)² around the data; weight 10."""

from torch import Tensor

from aigc_lab.noise import Draw
from aigc_lab.objectives import penalties
from aigc_lab.penalties.base import CriticTurn, Penalty


class DRAGAN(Penalty):
    """The gradient at a random place near each real sample has norm 1 (section 2.3, noise as published)."""

    weight = 10.0

    def noise(self, count: int, packs: int, critic_shape: tuple[int, ...]) -> dict[str, Draw]:
        return {"alpha": Draw((packs,), "unit"), "perturbation": Draw((packs, *critic_shape), "unit")}

    def value(self, turn: CriticTurn) -> Tensor:
        return penalties.dragan(turn.critic, turn.seen_real, turn.noise["alpha"], turn.noise["perturbation"])
