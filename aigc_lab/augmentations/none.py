"""No augmentation."""

from aigc_lab.augmentations.base import Augmentation


class NoAugmentation(Augmentation):
    """The critic sees the pictures as they are."""

    identity = True
