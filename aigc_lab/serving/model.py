"""`load(name).sample(n)`: a trained model in a few words."""

from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from aigc_lab.errors import UsageError

if TYPE_CHECKING:
    import numpy
    import numpy.typing

    from aigc_lab.systems.base import System
    from aigc_lab.trust import Allowed


def load(model: str, *, home: Path | str | None = None, device: str = "cpu", trust_code: bool = False) -> "Model":
    """A trained model, ready to sample.

    `model` is what `aigc-lab sample` takes: a promoted model (`digits`, `digits@champion`, `models:/digits/3`), a run,
    a sweep (its best run), or the path of a .safetensors file. Raises `UsageError` when there is no such thing, and for
    one that needs code which came from elsewhere, unless that is trusted or `trust_code` says that it is.
    """
    from aigc_lab import trust
    from aigc_lab.serving.finding import find
    from aigc_lab.settings import Settings

    with trust.accepting(trust_code):
        return find(model, Settings.load(None if home is None else Path(home))).load(device)


class Model:
    """A system with its weights, in evaluation mode."""

    def __init__(self, system: "System", name: str) -> None:
        self.system = system
        self.name = name

    @classmethod
    def of_file(cls, path: Path, device: str = "cpu", allowed: "Allowed | None" = None) -> Self:
        """The model of a .safetensors file with its .json beside it. Code that lies there too is run, if `allowed` lets
        it pass.
        """
        from aigc_lab import plugins
        from aigc_lab.checkpoint import load_system

        system = load_system(path, device, allowed)
        return cls(system, plugins.name_of(type(system)))

    def sample(
        self, n: int, seed: int = 0, labels: Sequence[int] | None = None, **drawing: Any
    ) -> "numpy.typing.NDArray[Any]":
        """`n` samples: uint8 [n, H, W, C] of images, float32 [n, D] of points, strings [n] of text.

        The same seed gives the same samples, and more of them begin with the same ones. `labels` are the classes of a
        conditional system's samples, taken in turn: `[3, 7]` gives 3, 7, 3, 7, … How text is drawn, `drawing` says:
        `temperature`, `top_k`, `top_p`, and `prefix`, the words that every sentence begins with.
        """
        import torch

        from aigc_lab.samples import Text
        from aigc_lab.shape import Modality

        if n < 1:
            raise UsageError(f"n = {n}: ask for at least one sample")
        classes = self._classes(n, labels)
        options = self._drawing({key: value for key, value in drawing.items() if value is not None})
        known = None if classes is None else torch.tensor(classes)
        made = self.system.generate(n, "sample", seed, labels=known, **options)
        if isinstance(made, Text):
            import numpy

            return numpy.array(made.sentences())
        values = made.canonical().values
        if made.modality == Modality.IMAGES:
            values = values.permute(0, 2, 3, 1)
        found: numpy.typing.NDArray[Any] = values.contiguous().numpy()
        return found

    def _drawing(self, given: dict[str, Any]) -> dict[str, Any]:
        """What `generate` is told of how text is drawn."""
        from aigc_lab.decoding import Sampling
        from aigc_lab.language_system import LanguageSystem
        from aigc_lab.text.tokenizer import tokenize

        if not given:
            return {}
        if not isinstance(self.system, LanguageSystem):
            raise UsageError(f"{', '.join(given)}: {self.name} makes {self.system.modality}; these are for text")
        try:
            prefix = given.pop("prefix", "")
            words = tokenize(prefix, self.system.vocabulary.tokenizer)  # type: ignore[arg-type]
            return {"sampling": Sampling(prefix=self.system.prefix(words), **given)}
        except ValueError as error:
            raise UsageError(str(error)) from None

    def _classes(self, n: int, labels: Sequence[int] | None) -> list[int] | None:
        """The class of each sample; None for a system that knows no classes."""
        count = self.system.shape.classes
        if not self.system.conditional or count is None:
            if labels is not None:
                raise UsageError(f"{self.name} is not conditional: it draws no class on demand; leave the labels out")
            return None
        if labels is None:
            return None  # all in turn
        wrong = [label for label in labels if not 0 <= label < count]
        if wrong or not labels:
            raise UsageError(
                f"label {wrong[0] if wrong else 'missing'}: {self.name} knows the classes 0 to {count - 1}"
            )
        return list(islice(cycle(labels), n))
