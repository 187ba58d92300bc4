"""A trained model: a system with its weights, ready to sample."""

import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from aigc_lab.errors import UsageError
from aigc_lab.serving import answering
from aigc_lab.serving.request import Request, concatenated

if TYPE_CHECKING:
    import numpy.typing

    from aigc_lab.host.trust import Allowed
    from aigc_lab.systems.base import System


# MLflow's scoring server says by this variable, which is private to it, that it is one.
_SERVED = "_MLFLOW_IS_IN_SERVING_ENVIRONMENT"


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
        from aigc_lab.training.checkpoint import load_system

        system = load_system(path, device, allowed)
        return cls(system, plugins.name_of(type(system)))

    def sample(
        self, n: int, seed: int = 0, labels: Sequence[int] | None = None, **drawing: Any
    ) -> "numpy.typing.NDArray[Any]":
        """`n` samples: uint8 [n, H, W, C] of images, float32 [n, D] of points, strings [n] of text.

        The same seed gives the same samples, and the first ones are the same for every `n`. `labels` are the classes of
        a conditional system's samples, taken in turn: `[3, 7]` gives 3, 7, 3, 7, … `drawing` says how text is drawn:
        `temperature`, `top_k`, `top_p`, and `prefix`, the words that every sentence begins with. Raises `UsageError`
        for a request that cannot be met, and for more samples than memory holds; `blocks` takes the same memory for any
        number.
        """
        if os.environ.get(_SERVED) == "true":  # models promoted before `answer` was there come this way
            answering.check_total(n)
        return concatenated(self.blocks([Request(n, seed, labels, drawing)]), n)

    def blocks(self, requests: Sequence[Request]) -> "Iterator[numpy.typing.NDArray[Any]]":
        """The samples of all requests, one after the other, in arrays of some hundred each. Those of several requests
        are drawn together, and are what `sample` gives for each alone. All requests are checked before the first is
        drawn.
        """
        from aigc_lab.modalities.base import modality_of
        from aigc_lab.serving.batching import draw_lots, lots

        checked = [self._checked(request) for request in requests]
        kind = modality_of(self.system)

        def made() -> "Iterator[numpy.typing.NDArray[Any]]":
            # Those that draw in the same way can share a block.
            for _, alike in groupby(checked, key=lambda pair: repr(pair[1])):
                pairs = list(alike)
                batches = (lots(self.system, each.n, each.seed, each.labels) for each, _ in pairs)
                for samples in draw_lots(self.system, chain.from_iterable(batches), pairs[0][1]):
                    yield kind.array(samples)

        return made()

    def answer(self, rows: Sequence[Mapping[str, Any]], form: str = "array") -> Any:
        """The answer of the served model to the rows of a request (see `serving.answering`)."""
        return answering.answer(self, rows, form)

    def _checked(self, request: Request) -> tuple[Request, dict[str, Any]]:
        """The request and the options for `System.sample`. Raises `UsageError` for what cannot be asked for."""
        if request.n < 1:
            raise UsageError(f"n = {request.n}: ask for at least one sample")
        self._check_labels(request.labels)
        return request, self._drawing({key: value for key, value in request.drawing.items() if value is not None})

    def _drawing(self, given: dict[str, Any]) -> dict[str, Any]:
        """Options of sampling as the system takes them. Raises `UsageError` for any where it draws no text."""
        from aigc_lab.nets.decoding import Sampling
        from aigc_lab.systems.shared.language import LanguageSystem
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

    def _check_labels(self, labels: Sequence[int] | None) -> None:
        """Raises `UsageError` for classes that the system does not know, and for any where it knows none."""
        if labels is None:
            return
        count = self.system.shape.classes
        if not self.system.conditional or count is None:
            raise UsageError(f"{self.name} is not conditional: it draws no class on demand; leave the labels out")
        wrong = [label for label in labels if not 0 <= label < count]
        if wrong or not labels:
            raise UsageError(
                f"label {wrong[0] if wrong else 'missing'}: {self.name} knows the classes 0 to {count - 1}"
            )
