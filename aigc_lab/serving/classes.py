"""Classes that samples are asked for, by name or by number."""

import csv
import json
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from aigc_lab.errors import UsageError
from aigc_lab.host import shared_files
from aigc_lab.shape import Shape

# Names in one sentence.
_LISTED = 12


def typed(text: str) -> list[str]:
    """The classes of a text like `3,7` or `cat,dog`; a name that holds a comma stands in double quotes.

    >>> typed('3, cat,"salt, pepper"')
    ['3', 'cat', 'salt, pepper']
    """
    try:
        return [part.strip() for part in next(csv.reader([text], skipinitialspace=True))] or [""]
    except csv.Error:  # a line end; no class is called so
        return [text]


def numbers(asked: Iterable[Any], shape: Shape, model: str) -> list[int]:
    """The numbers of classes that are given by name or by number. A text that could be both, like "7" where a class is
    called so, is the name. Raises `UsageError` for a class that the `model` does not know, with those that it knows.

    >>> from aigc_lab.shape import Modality
    >>> numbers(["dog", 0], Shape(Modality.POINTS, (2,), classes=2, class_names=("cat", "dog")), "mine")
    [1, 0]
    """
    places = {name: number for number, name in enumerate(shape.names_of_classes)}
    return [_number(label, places, model, named=shape.class_names is not None) for label in asked]


def stored(weights: Path) -> tuple[str, ...]:
    """Names of the classes that a stored model draws on demand, of the description beside its weights, without loading
    it; empty for a system that is not conditional, and for a file that cannot be read.
    """
    try:
        description = json.loads(shared_files.at_hand(weights.with_suffix(".json")).read_text("utf-8"))
        return Shape.load(description["shape"]).names_of_classes if description.get("conditional") else ()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ()


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are; of many that are their numbers the first and the last.

    >>> listed(["cat", "dog"]), listed([str(number) for number in range(10)])
    ('cat, dog', '0 to 9')
    """
    if len(names) > 2 and list(names) == [str(number) for number in range(len(names))]:
        return f"{names[0]} to {names[-1]}"
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"{', '.join(names[:_LISTED])}{more}"


def _number(label: Any, places: dict[str, int], model: str, *, named: bool) -> int:
    label = label.item() if hasattr(label, "item") and getattr(label, "ndim", 0) == 0 else label
    if isinstance(label, str) and label in places:
        return places[label]
    # A table holds whole numbers as floats where another row has none.
    whole = (isinstance(label, str) and _is_number(label)) or (isinstance(label, float) and label.is_integer())
    number = int(label) if whole else label
    if isinstance(number, int) and not isinstance(number, bool) and 0 <= number < len(places):
        return number
    near = _near(label, places) if named and isinstance(label, str) else ""
    hint = f"did you mean {near}? " if near else ""
    also = f", by name or by number (0 to {len(places) - 1})" if named else ""
    raise UsageError(f"label {_shown(label)}: {hint}{model} knows the classes {listed([*places])}{also}")


def _near(label: str, names: Iterable[str]) -> str:
    """The name that is probably meant; "" where none is near."""
    same = [name for name in names if name.lower() == label.lower()]
    return next(iter(same or get_close_matches(label, names, n=1, cutoff=0.6)), "")


def _is_number(text: str) -> bool:
    return text.isascii() and text.removeprefix("-").isdecimal() and len(text) < 20


def _shown(label: object) -> str:
    return label if isinstance(label, str) and label.isalnum() and len(label) < 60 else f"{label!r:.60}"
