"""A trained model: a system with its weights, ready to sample."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from aigc_lab.errors import UsageError
from aigc_lab.serving import answering, classes
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

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the classes that it draws on demand, in the order of their numbers, which are the names where they
        have no others; None for a system that is not conditional.
        """
        return self.system.shape.names_of_classes if self.system.conditional else None

    def numbers_of(self, labels: Sequence[int | str]) -> list[int]:
        """Numbers of classes that are given by name or by number. Raises `UsageError` for classes that the system does
        not know, and for any where it is not conditional.
        """
        if self.class_names is None:
            raise UsageError(
                f"{self.name} is not conditional: it draws no class on demand; leave the labels out, or train a"
                " conditional system"
            )
        if isinstance(labels, str) or not isinstance(labels, Iterable):
            raise UsageError(f"labels = {labels!r:.60}: write a list of classes, like [{labels!r:.60}]")
        return classes.numbers(labels, self.system.shape, self.name)

    def sample(
        self, n: int, seed: int = 0, labels: Sequence[int | str] | None = None, **drawing: Any
    ) -> "numpy.typing.NDArray[Any]":
        """`n` samples: uint8 [n, H, W, C] of images, float32 [n, D] of points, strings [n] of text.

        The same seed gives the same samples, and the first ones are the same for every `n`. `labels` are the classes of
        a conditional system's samples, by number or name (see `class_names`), taken in turn: `[3, 7]` gives 3, 7, 3, 7,
        …; all classes in turn without them. `drawing` says how text is drawn: `temperature`, `top_k`, `top_p`, and
        `prefix`, the words that every sentence begins with. Raises `UsageError` for a request that cannot be met, and
        for more samples than memory holds; `blocks` takes the same memory for any number.
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
            for _, group in groupby(checked, key=lambda each: repr(each[2])):
                alike = list(group)
                batches = (lots(self.system, each.n, each.seed, labels) for each, labels, _ in alike)
                for samples in draw_lots(self.system, chain.from_iterable(batches), alike[0][2]):
                    yield kind.array(samples)

        return made()

    def answer(self, rows: Sequence[Mapping[str, Any]], form: str = "array") -> Any:
        """The answer of the served model to the rows of a request (see `serving.answering`)."""
        return answering.answer(self, rows, form)

    def _checked(self, request: Request) -> tuple[Request, list[int] | None, dict[str, Any]]:
        """The request, the numbers of its classes, and the options for `System.sample`. Raises `UsageError` for what
        cannot be asked for.
        """
        if request.n < 1:
            raise UsageError(f"n = {request.n}: ask for at least one sample")
        labels = None if request.labels is None else self._in_turn(request.labels, request.n)
        drawing = {key: value for key, value in request.drawing.items() if value is not None}
        return request, labels, self._drawing(drawing)

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

    def _in_turn(self, labels: Sequence[int | str], n: int) -> list[int]:
        """Numbers of the classes of `n` samples. Raises `UsageError` for classes that cannot be asked for, for none,
        and for more than there are samples.
        """
        found = self.numbers_of(labels)
        if not found:
            raise UsageError(f"label missing: {self.name} knows the classes {classes.listed(self.class_names or ())}")
        if len(found) > n:
            raise UsageError(
                f"{len(found)} labels for {n} {'sample' if n == 1 else 'samples'}: each sample takes the next label, so"
                f" the last would not be drawn; ask for at least {len(found)} samples"
            )
        return found
