"""Adaptive augmentation (Karras et al. 2020): each change with a probability that follows how sure the critic is."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from aigc_lab.augmentations.base import Augmentation
from aigc_lab.nets import augmentation, joined
from aigc_lab.noise import Draw, Noise
from aigc_lab.objectives import adversarial

# How often the strength is looked at, and after how many images it may have gone from 0 to 1 (section 3.1).
_EVERY, _IMAGES = 4, 500_000


class Adaptive(Augmentation):
    """It goes up while E sign D(x) of real pictures is above `augment_target`, and down while it is below.

    It remembers its strength, E sign D(x) of the last batch (of D(x) − ½ with least squares, whose critic says 1 of
    what is real and 0 of what is made), and their sum and number since a change.
    """

    probability = "augment_strength"

    def check_options(self, config: Any) -> None:
        if adversarial.LOSSES[config.loss].relative:
            raise ValueError(
                f"adaptive augmentation goes by the sign of D(x), which means nothing with the {config.loss} loss, "
                "whose critic may be shifted by any constant; use augment diffaugment with it"
            )

    def noise(self, which: str, count: int) -> dict[str, Draw]:
        return {
            f"augment_{which}": Draw((count, augmentation.ADAPTIVE_UNIFORM), "unit"),
            f"augment_{which}_normal": Draw((count, augmentation.ADAPTIVE_NORMAL)),
        }

    def changed(self, images: Tensor, noise: Noise, which: str, memory: Mapping[str, Tensor]) -> Tensor:
        drawn = noise[f"augment_{which}"], noise[f"augment_{which}_normal"]
        return augmentation.adaptive(images, *drawn, memory["augment_strength"])

    def memory(self) -> dict[str, Tensor]:
        names = ("augment_strength", "augment_sign", "augment_signs", "augment_batches")
        return {name: torch.zeros(()) for name in names}

    def seen(self, real_scores: Tensor, boundary: float, memory: Mapping[str, Tensor]) -> dict[str, Tensor]:
        strength = memory["augment_strength"].clone()
        memory["augment_sign"].copy_(joined.mean((real_scores.detach() - boundary).sign().mean()))
        return {"augment_strength": strength}

    def after(self, memory: Mapping[str, Tensor], config: Any, batch_size: int) -> None:
        signs, batches = memory["augment_signs"], memory["augment_batches"]
        signs.add_(memory["augment_sign"])
        batches.add_(1)
        # A number and not a decision: replicas that are trained as one program do not branch.
        due = (batches == _EVERY).to(signs.dtype)
        surer = (signs / _EVERY - config.augment_target).sign()
        step = batch_size * _EVERY / _IMAGES
        memory["augment_strength"].copy_((memory["augment_strength"] + due * surer * step).clamp(0, 1))
        signs.mul_(1 - due)
        batches.mul_(1 - due)
