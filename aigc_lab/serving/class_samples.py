"""Classes of the samples that a conditional model draws: which they are in turn, in words, and in one picture."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from aigc_lab.errors import UsageError
from aigc_lab.modalities.base import ModalityKind
from aigc_lab.modalities.shared import blocks as stored
from aigc_lab.serving import classes
from aigc_lab.serving.model import Model
from aigc_lab.serving.request import Request, concatenated

if TYPE_CHECKING:
    from aigc_lab.pictures.drawing import Pixels

#: what asks for every class, unless one is called so
ALL = "all"
# Classes in a picture, and samples of each where these are images.
_ROWS, _COLUMNS = 100, 16


def noted(asked: Sequence[str] | None) -> list[int | str] | str | None:
    """Classes as the note has them: numbers as numbers."""
    if asked == [ALL]:
        return ALL
    return None if asked is None else [int(each) if each.isdecimal() and len(each) < 20 else each for each in asked]


def turn(model: Model, asked: Sequence[str] | None, n: int) -> list[int] | None:
    """Numbers of the classes that samples are of in turn: those that are asked for, or all that `n` samples reach; None
    where the model draws no class on demand, and none is asked for. Raises `UsageError` for classes that it does not
    know.
    """
    names = model.class_names
    if asked == [ALL] and ALL not in (names or ()):
        asked = None if names is not None else asked
    if asked is not None:
        if len(asked) > 1 and ALL in asked and names is not None and ALL not in names:
            others = ",".join(each for each in asked if each != ALL)
            raise UsageError(
                f"--labels {','.join(asked)}: {ALL} is every class already; write --labels {ALL}, or "
                f"{f'--labels {others}' if others else 'classes by name or number'}"
            )
        return model.numbers_of(asked)
    return None if names is None else list(range(min(len(names), n)))


def by_class(model: Model, kind: ModalityKind, request: Request) -> "Pixels | None":
    """Samples of each class of a request, of the same latents, in one picture: the first samples of its seed."""
    if kind.shown_as != "picture" or request.labels is None or model.class_names is None:
        return None
    labels = list(dict.fromkeys(map(int, request.labels)))
    most = stored.most_shown(4 * math.prod(model.system.shape.size))
    labels = labels[: min(most, _ROWS)]
    columns = min(-(-request.n // len(labels)), _COLUMNS if kind.is_image else most, max(1, most // len(labels)))
    rows = [replace(request, n=columns, labels=[label]) for label in labels]
    samples = kind.of_array(concatenated(model.blocks(rows), columns * len(labels)))
    return kind.picture_by_class(samples, [model.class_names[label] for label in labels])


def told(names: Sequence[str], asked: Sequence[str] | None, model: Model) -> str:
    """Words on the classes that samples are of in turn; "" where the model draws none on demand."""
    if not names:
        return ""
    known, alone = model.class_names or (), len(set(names)) == 1
    every = asked is None or (asked == [ALL] and ALL not in known)
    few = f" (the first of {len(known)}; more need more samples)" if every and len(names) < len(known) else ""
    return f", {'class' if alone else 'classes'} {classes.listed(list(dict.fromkeys(names)))}{few}"
