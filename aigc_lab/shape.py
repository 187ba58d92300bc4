"""The shape of a dataset's samples: all that a network needs to know of them. Needs no torch."""

from dataclasses import dataclass
from typing import Any

from aigc_lab.modality import Modality as Modality  # systems and datasets import both from here
from aigc_lab.text.vocabulary import Vocabulary


@dataclass(frozen=True)
class Shape:
    """Modality and size of one sample, number of classes and vocabulary of a dataset.

    `size` is (channels, height, width) for images, (dimensions,) for points, and for text (length,): the tokens of a
    sentence, its `<eos>` included. `classes` is None without labels; text alone has a `vocabulary`.

    >>> str(Shape(Modality.IMAGES, (1, 28, 28), classes=10))
    'images 1×28×28'
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
        """The shape as JSON, as it is stored beside weights."""
        content: dict[str, Any] = {"modality": self.modality, "size": self.size, "classes": self.classes}
        return content if self.vocabulary is None else content | {"vocabulary": self.vocabulary.dump()}

    @classmethod
    def load(cls, content: dict[str, Any]) -> "Shape":
        """The shape that `dump` wrote. Raises `KeyError`, `TypeError` or `ValueError` for anything else."""
        words = None if content.get("vocabulary") is None else Vocabulary.load(content["vocabulary"])
        return cls(Modality(content["modality"]), tuple(content["size"]), content["classes"], words)
