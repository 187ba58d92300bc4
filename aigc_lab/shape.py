"""The shape of a dataset's samples: all that a network needs to know of them. Needs no torch."""

from dataclasses import dataclass
from typing import Any

from aigc_lab.modality import Modality as Modality  # systems and datasets import both from here
from aigc_lab.text.vocabulary import Vocabulary


@dataclass(frozen=True)
class Shape:
    """Modality and size of one sample, number and names of classes, and vocabulary of a dataset.

    `size` is (channels, height, width) for images, (dimensions,) for points, and for text (length,): the tokens of a
    sentence, its `<eos>` included. `classes` is None without labels; `class_names` is None where the numbers are the
    names, and without labels; text alone has a `vocabulary`.

    >>> str(Shape(Modality.IMAGES, (1, 28, 28), classes=10))
    'images 1×28×28'
    """

    modality: Modality
    size: tuple[int, ...]
    classes: int | None = None
    vocabulary: Vocabulary | None = None
    class_names: tuple[str, ...] | None = None

    def __str__(self) -> str:
        if self.vocabulary is not None:
            return f"text of up to {self.size[0]} tokens, {len(self.vocabulary)} words"
        return f"{self.modality} {'×'.join(map(str, self.size))}"

    @property
    def names_of_classes(self) -> tuple[str, ...]:
        """The name of each class in the order of their numbers, which are the names where they have no others; empty
        without labels.

        >>> Shape(Modality.IMAGES, (1, 28, 28), classes=3).names_of_classes
        ('0', '1', '2')
        """
        return self.class_names or tuple(map(str, range(self.classes or 0)))

    def dump(self) -> dict[str, Any]:
        """The shape as JSON, as it is stored beside weights."""
        content: dict[str, Any] = {"modality": self.modality, "size": self.size, "classes": self.classes}
        content |= {} if self.vocabulary is None else {"vocabulary": self.vocabulary.dump()}
        return content | ({} if self.class_names is None else {"class_names": self.class_names})

    @classmethod
    def load(cls, content: dict[str, Any]) -> "Shape":
        """The shape that `dump` wrote. Raises `KeyError`, `TypeError` or `ValueError` for anything else."""
        words = None if content.get("vocabulary") is None else Vocabulary.load(content["vocabulary"])
        names = None if content.get("class_names") is None else tuple(content["class_names"])
        return cls(Modality(content["modality"]), tuple(content["size"]), content["classes"], words, names)
