"""The kinds of things that samples are."""

from enum import StrEnum


class Modality(StrEnum):
    """What kind of thing a sample is."""

    IMAGES = "images"
    POINTS = "points"
    TEXT = "text"
