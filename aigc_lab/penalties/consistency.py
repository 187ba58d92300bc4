"""Consistency (Zhang et al. 2020): the critic says the same of a picture mirrored and moved; weight 10."""

from typing import Any

from torch import Tensor

from aigc_lab import plugins
from aigc_lab.augmentations.base import Augmentation
from aigc_lab.nets import augmentation
from aigc_lab.nets.precision import halved, single
from aigc_lab.noise import Draw
from aigc_lab.objectives import penalties
from aigc_lab.penalties.base import CriticTurn, Penalty
from aigc_lab.shape import Modality, Shape


class Consistency(Penalty):
    """E (D(x) − D(T(x)))² of real pictures, T a mirror image half of the time and a move of up to 4 of 32 pixels each
    way (section 3.1, eq. 4).
    """

    weight = 10.0

    def check_options(self, config: Any) -> None:
        if not plugins.find(Augmentation, config.augment).identity:
            raise ValueError("penalty consistency changes pictures by itself: leave out augment, or the penalty")

    def check_shape(self, shape: Shape) -> None:
        if shape.modality != Modality.IMAGES:
            raise ValueError(f"penalty: consistency compares mirrored and moved pictures, not {shape.modality}")

    def noise(self, count: int, packs: int, critic_shape: tuple[int, ...]) -> dict[str, Draw]:
        return {"changes": Draw((count, augmentation.FLIP_AND_SHIFT), "unit")}

    def value(self, turn: CriticTurn) -> Tensor:
        half = halved(turn.seen_real)
        with single(turn.seen_real):
            of_changed = turn.critic(turn.pack(augmentation.flip_and_shift(turn.real, turn.noise["changes"])))
            # In single precision both, or the difference would be of roundings.
            of_real = turn.critic(turn.seen_real) if half else turn.real_scores
        return penalties.consistency(of_real, of_changed)
