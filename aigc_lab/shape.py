"""What samples look like, without any of them; nothing here needs torch."""

from dataclasses import dataclass
from typing import Any

from aigc_lab.modality import Modality as Modality  # the two are asked for together
from aigc_lab.text.vocabulary import Vocabulary


@dataclass(frozen=True)
class Shape:
    """What every sample of a dataset looks like: all that a system needs to know to build its networks.

    `size` is (channels, height, width) for images, (dimensions,) for points, and for text (length,): the places of a
    sentence, its `<eos>` included. `classes` is None without labels; text has a `vocabulary`.

    >>> digits = Shape(Modality.IMAGES, (1, 28, 28), classes=10)
    >>> print(digits)
    images 1×28×28
    >>> Shape.load(digits.dump()) == digits
    True
    """

    modality: Modality
    size: tuple[int, ...]
    classes: int | None = None
    vocabulary: Vocabulary | None = None

    def __str__(self) -> str:
        if self.vocabulary is not None:
            return f"text of up to {self.size[0]} tokens, {len(self.vocabulary)} words"
        return f"{self.modality} {'×'.join(map(str, self.size))}"

    def dump(self) -> dict[str, Any]:
        """All of it, as JSON."""
        told: dict[str, Any] = {"modality": self.modality, "size": self.size, "classes": self.classes}
        return told if self.vocabulary is None else told | {"vocabulary": self.vocabulary.dump()}

    @classmethod
    def load(cls, told: dict[str, Any]) -> "Shape":
        """What `dump` returned. Raises `KeyError`, `TypeError` or `ValueError` for anything else."""
        words = None if told.get("vocabulary") is None else Vocabulary.load(told["vocabulary"])
        return cls(Modality(told["modality"]), tuple(told["size"]), told["classes"], words)
