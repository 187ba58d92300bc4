"""The planes of quality and diversity on which models of sentences are compared (Caccia et al. 2020)."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Plane:
    """The scores that are drawn against each other. Of diversity less is more diverse; `sign` makes more of the quality
    better.
    """

    diversity: str
    quality: str
    sign: int


#: by n-grams, and by language models
PLANES = (Plane("self_bleu_4", "bleu_4", 1), Plane("lm_reverse", "lm_forward", -1))
SCORES = tuple(name for plane in PLANES for name in (plane.diversity, plane.quality))
#: how the scores are called in a sentence, and what they are measured in
TITLES = {"self_bleu_4": "Self-BLEU-4", "bleu_4": "BLEU-4", "lm_reverse": "reverse LM", "lm_forward": "forward LM"}
UNITS = {"lm_reverse": "nats a word", "lm_forward": "nats a word"}


def axis_title(score: str) -> str:
    """The name of a score with its unit, if it has one.

    >>> [axis_title(score) for score in ("bleu_4", "lm_forward")]
    ['BLEU-4', 'forward LM, nats a word']
    """
    return ", ".join(filter(None, (TITLES[score], UNITS.get(score))))
