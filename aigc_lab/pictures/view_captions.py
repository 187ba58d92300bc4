"""Views of a system that are shown beside its samples: their names, and what there is to see in each."""

from collections.abc import Mapping
from typing import NamedTuple


class Caption(NamedTuple):
    """Title of a view, and a sentence or two that say what is seen and what to look for."""

    title: str
    text: str


# By the name of their files, in the order in which they are shown.
CAPTIONS: Mapping[str, Caption] = {
    "reconstructions": Caption(
        "Reconstructions",
        "Held-out real samples, and below each what the decoder makes of its code: what differs is what the code has"
        " lost.",
    ),
    "interpolations": Caption(
        "Interpolations",
        "Samples between two codes of real samples, or between two latents, in equal steps: a smooth way through "
        "likely samples speaks for the code, a jump or a ghost of both ends against it.",
    ),
    "traversals": Caption(
        "Traversals",
        "The code of one real sample with one latent a row moved by so many standard deviations, the most active latent"
        " first (var: how much its mean varies over real samples). What changes along a row is what the latent stands"
        " for; rows that do not change are inactive latents.",
    ),
    "classes": Caption(
        "Samples by class",
        "The same latents for every class, a row of pictures or some sentences each: classes that are alike do not heed"
        " what is asked for, and samples that are alike within a class show that it has collapsed.",
    ),
}
