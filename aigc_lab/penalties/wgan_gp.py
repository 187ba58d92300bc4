"""WGAN-GP (Gulrajani et al. 2017): E (‖∇D(x̂)‖ − 1)² between real and made samples; weight 10."""

from torch import Tensor

from aigc_lab.noise import Draw
from aigc_lab.objectives import penalties
from aigc_lab.penalties.base import CriticTurn, Penalty


class WGANGP(Penalty):
    """The gradient at a random place on the line from each real sample to a made one has norm 1 (eq. 3)."""

    weight = 10.0
    dirac_weight = 0.5  # its value is a square without the ½

    def noise(self, count: int, packs: int, critic_shape: tuple[int, ...]) -> dict[str, Draw]:
        return {"alpha": Draw((packs,), "unit")}

    def value(self, turn: CriticTurn) -> Tensor:
        return penalties.wgan_gp(turn.critic, turn.seen_real, turn.seen_fake, turn.noise["alpha"])
