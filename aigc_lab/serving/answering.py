"""What a served model answers: rows that ask for samples, checked one by one, drawn together, in the wanted form.

| form | answer |
|---|---|
| `array` | the samples of all rows, one after the other: nested lists of numbers in JSON, or sentences |
| `records` | one record a sample: `row`, `seed`, `sample`, and of a conditional system `label` and `class` |
| `png` | the same with `png`, the picture as base64, in place of `sample` |
| `grid` | one record a row: the same of the class that it asks for, `n`, and its pictures or points as one `png` |

A row has `n`, and may have `seed` (0 where no row has one; null, or left out beside rows that have one, draws a new
one, which every form but `array` tells), and for text `temperature`, `top_k`, `top_p` and `prefix`. For a conditional
system it may have `label`, a class by number or name; without it the samples are of all classes in turn. In records
`label` is the number, and `class` the name where classes have names.
"""

import base64
import itertools
import math
import os
import secrets
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, get_args

from aigc_lab.errors import UsageError
from aigc_lab.modalities.base import ModalityKind, OptionType, modality_of
from aigc_lab.serving.request import Form, Request, concatenated

if TYPE_CHECKING:
    import numpy.typing

    from aigc_lab.systems.base import System

    Array = numpy.typing.NDArray[Any]

MOST = "AIGC_LAB_SERVE_MAX_N"
_MOST = 1000
# An answer is made in memory and written as JSON there, which takes some seconds and 90 MB for so many numbers. MLflow
# waits for a minute.
_MOST_NUMBERS = 2_000_000
_MOST_BYTES = 100_000_000
_EXAMPLE = '{"dataframe_records": [{"n": 4, "seed": 0}]}'
# One request after the other: what the network needs for a block is needed once.
_one = threading.Lock()


class Sampler(Protocol):
    """The part of `serving.model.Model` that an answer needs. `Model` itself answers by this module."""

    system: "System"
    name: str

    def numbers_of(self, labels: Sequence[int | str]) -> list[int]:
        """Numbers of classes. Raises `UsageError` for those that it does not know."""

    def blocks(self, requests: Sequence[Request]) -> "Iterator[Array]":
        """The samples of all requests, one after the other, in arrays."""


def most() -> int:
    """The largest number of samples in one answer. Raises `UsageError` where the environment variable is no whole
    number.
    """
    said = os.environ.get(MOST) or str(_MOST)
    if not (said.isascii() and said.isdecimal() and len(said) <= 12 and int(said)):
        raise UsageError(f"{MOST}={said[:40]}: write how many samples an answer may hold, like {_MOST}")
    return int(said)


def check_total(n: int, rows: int = 1) -> None:
    """Raises `UsageError` for more samples, of all rows together, than one answer may hold."""
    if n > most():
        raise UsageError(
            f"n = {n:,}{' in all' * (rows > 1)}: one answer holds at most {most():,} samples; ask several times, or set"
            f" {MOST} where the model is served"
        )


def columns(*, conditional: bool, options: Iterable[str]) -> tuple[str, ...]:
    """The names of the columns that rows may have; `options` are those of sampling."""
    return ("n", "seed", *(("label",) if conditional else ()), *options)


def answer(model: Sampler, rows: Sequence[Mapping[str, Any]], form: str) -> Any:
    """The answer to a request's rows. Raises `UsageError`, one sentence, for rows that cannot be answered."""
    kind = modality_of(model.system)
    _check_form(form, model, kind)
    allowed = columns(conditional=model.system.conditional, options=kind.options)
    # A column that holds nothing but null says so on purpose; the seed is the only one in which that means something.
    requests = [_request(row, allowed, kind.options, model) for row in rows]
    total = sum(request.n for request in requests)
    if not requests:
        raise UsageError(f"no rows: ask for samples like {_EXAMPLE}")
    check_total(total, rows=len(rows))
    _check_size(model, kind, total, form)
    with _one:
        samples = concatenated(model.blocks(requests), total)
    return samples if form == "array" else _records(kind, model.system, requests, samples, form)


def _check_form(form: str, model: Sampler, kind: ModalityKind) -> None:
    if form not in get_args(Form):
        raise UsageError(f"format = {_shown(form)}: choose one of {', '.join(get_args(Form))}")
    if (form == "png" and not kind.is_image) or (form == "grid" and kind.shown_as != "picture"):
        modality = model.system.modality
        raise UsageError(
            f"format = {form}: {model.name} makes {modality}, of which there are no pictures; leave it out"
        )


def _check_size(model: Sampler, kind: ModalityKind, total: int, form: str) -> None:
    """Raises `UsageError` for an answer that is too large to be built in memory."""
    each = math.prod(model.system.shape.size)
    limit, what = (_MOST_BYTES, "bytes of pixels") if form in ("png", "grid") else (_MOST_NUMBERS, "numbers")
    if total * each > limit:
        smaller = ", or for format png" if what == "numbers" and kind.is_image else ""
        raise UsageError(
            f"n = {total:,}: of {each:,} {what} each, they are more than the {limit:,} that one answer may hold;"
            f" ask for at most {max(1, limit // each):,} at once{smaller}"
        )


# ---- what a row asks for


def _request(
    row: Mapping[str, Any], allowed: tuple[str, ...], options: Mapping[str, OptionType], model: Sampler
) -> Request:
    for name in row:
        if name not in allowed:
            raise UsageError(f"unknown column {_shown(name)}; this model takes {', '.join(allowed)}")
    if _missing(row.get("n")):
        raise UsageError(f"n is missing: say in each row how many samples it asks for, like {_EXAMPLE}")
    n = _whole("n", row["n"])
    if n < 1:
        raise UsageError(f"n = {n}: ask for at least one sample")
    seed = row.get("seed", 0)
    labels = [row["label"]] if not _missing(row.get("label")) else None
    drawing = {name: _option(name, row[name], options[name]) for name in options if not _missing(row.get(name))}
    return Request(
        n,
        secrets.randbelow(2**32) if _missing(seed) else _whole("seed", seed),
        None if labels is None else model.numbers_of(labels),
        drawing,
    )


def _option(name: str, value: Any, kind: OptionType) -> Any:
    """The value of an option of sampling. Raises `UsageError` for one of another type."""
    if kind == "words":
        if not isinstance(value, str):
            raise UsageError(f"{name} = {_shown(value)}: write the words that sentences begin with")
        return value
    if kind == "whole":
        return _whole(name, value)
    value = _plain(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"{name} = {_shown(value)}: write a number, like 0.8")
    return float(value)


def _whole(name: str, value: Any) -> int:
    """A whole number of 64 bits. Floats up to 2⁵³ are taken too: a table holds whole numbers as floats where another
    row has none. Raises `UsageError`.
    """
    value = _plain(value)
    if isinstance(value, float) and value.is_integer() and abs(value) <= 2**53:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not -(2**63) <= value < 2**63:
        raise UsageError(f"{name} = {_shown(value)}: write a whole number, like {_EXAMPLE}")
    return value


def _plain(value: Any) -> Any:
    """A NumPy scalar as a number of Python; anything else as it is."""
    return value.item() if hasattr(value, "dtype") and getattr(value, "ndim", 1) == 0 else value


def _missing(value: Any) -> bool:
    """Whether a value is null or NaN, as JSON and tables write nothing."""
    return (
        value is None or type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and value != value)
    )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


# ---- how it is told


def _records(
    kind: ModalityKind, system: "System", requests: Sequence[Request], samples: "Array", form: str
) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    first = 0
    for number, request in enumerate(requests):
        facts: dict[str, Any] = {"row": number, "seed": request.seed}
        classes = _classes(system, request.labels)
        part = samples[first : first + request.n]
        first += request.n
        if form == "grid":
            one = classes[0] if len(classes) == 1 else {}
            records.append({**facts, **one, "n": request.n, "png": _encoded(kind.picture_of(part))})
        else:
            turn = itertools.cycle(classes)
            records += [{**facts, **each, **_record(sample, form)} for each, sample in zip(turn, part, strict=False)]
    return records


def _classes(system: "System", labels: Sequence[int | str] | None) -> list[dict[str, Any]]:
    """What records say of the classes that samples are of in turn: their numbers, and their names if they have any."""
    if not system.conditional:
        return [{}]
    names, numbers = system.shape.class_names, range(system.shape.classes or 0) if labels is None else labels
    return [{"label": number, **({"class": names[int(number)]} if names else {})} for number in numbers]


def _record(sample: Any, form: str) -> dict[str, Any]:
    if form == "png":
        return {"png": _encoded(sample[..., 0] if sample.shape[2] == 1 else sample)}
    return {"sample": sample.tolist() if hasattr(sample, "tolist") else str(sample)}


def _encoded(pixels: "Array") -> str:
    from aigc_lab.pictures import drawing

    return base64.b64encode(drawing.png(pixels)).decode("ascii")
