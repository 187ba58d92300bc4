"""Changes of pictures that a critic sees, one file each, real and made pictures alike (Karras et al. 2020, section 2).

The changes of those that ship are pure functions in `nets/augmentation.py`; a file here says which of them is meant,
what it draws, and how its strength moves. An experiment names one as `augment: adaptive`, or a file: `./mine.py`.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator
from torch import Tensor

from aigc_lab import plugins
from aigc_lab.noise import Draw, Noise
from aigc_lab.shape import Modality, Shape

#: a key of a `Config` that names an augmentation: one that ships or is installed, or a file that ends in .py
Name = Annotated[str, plugins.Named("augmentations"), AfterValidator(plugins.Named("augmentations").check)]


class Augmentation:
    """An augmentation without state of its own: all that it depends on is in its arguments (see `Penalty`).

    A subclass overrides `noise` and `changed`; one whose strength moves has a `memory` too.

    >>> class Brightness(Augmentation):
    ...     def noise(self, which: str, count: int) -> dict[str, Draw]:
    ...         return {f"augment_{which}": Draw((count, 1, 1, 1))}
    ...
    ...     def changed(self, images: Tensor, noise: Noise, which: str, memory: Mapping[str, Tensor]) -> Tensor:
    ...         return images + 0.1 * noise[f"augment_{which}"]
    """

    #: the name of the number in its `memory` by which each change is applied with this probability; at 0 it changes
    #: nothing. None for one that always changes
    probability: ClassVar[str | None] = None
    #: whether it leaves every sample as it is; it then goes with samples of any shape
    identity: ClassVar[bool] = False
    #: the kind of samples that it changes
    modality: ClassVar[str] = Modality.IMAGES

    def check_options(self, config: Any) -> None:
        """Raises `ValueError` for a system's `Config` that it does not go with."""

    def check_shape(self, shape: Shape) -> None:
        """Raises `ValueError` for samples that it cannot change: those that are not of its `modality`."""
        if shape.modality != self.modality and not self.identity:
            raise ValueError(f"augment: {plugins.name_of(type(self))} changes {self.modality}, not {shape.modality}")

    def noise(self, which: str, count: int) -> dict[str, Draw]:
        """What `changed` draws for `count` pictures, by name; `which` of them, "real" or "fake", is in the names."""
        return {}

    def changed(self, images: Tensor, noise: Noise, which: str, memory: Mapping[str, Tensor]) -> Tensor:
        """The pictures [N, C, H, W] in [−1, 1], or what else `check_shape` lets through [N, …], changed; gradients pass
        through it, and through their gradients.
        """
        return images

    # ---- what it remembers

    def memory(self) -> dict[str, Tensor]:
        """Name -> the first value of each tensor that it remembers; they become buffers of the system, and are stored
        with it.
        """
        return {}

    def seen(self, real_scores: Tensor, boundary: float, memory: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Updates the memory in place by the critic's scores of real pictures, and returns the scalars to be logged, by
        name. A score above `boundary` takes a picture for real.
        """
        return {}

    def after(self, memory: Mapping[str, Tensor], config: Any, batch_size: int) -> None:
        """Moves what it remembers, in place, after each update of the critic; asked for with a `memory` only."""
