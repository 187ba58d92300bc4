"""The names of the kinds of samples; `aigc_lab.modalities` has an object for each."""

import re
from enum import StrEnum


class Modality(StrEnum):
    """The name of a kind of samples: one of those that ship, or any other that a user's file defines.

    >>> Modality("images") is Modality.IMAGES
    True
    >>> Modality("waveform")
    <Modality.WAVEFORM: 'waveform'>
    >>> [str(modality) for modality in Modality]
    ['images', 'points', 'text']
    """

    IMAGES = "images"
    POINTS = "points"
    TEXT = "text"

    @classmethod
    def _missing_(cls, value: object) -> "Modality | None":
        """A member for a name that the package does not know, the same one each time. None, of which `enum` makes a
        `ValueError`, for what is no name of lower-case letters, digits and _.
        """
        if not isinstance(value, str) or not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", value):
            return None
        member = str.__new__(cls, value)
        member._name_, member._value_ = value.upper(), value
        # As `enum.Flag` keeps its combinations: found again by value, and not a member that iteration goes over.
        known: Modality = cls._value2member_map_.setdefault(value, member)  # type: ignore[assignment]
        return known
