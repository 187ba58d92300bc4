"""Request for samples of a model, and its samples as one array."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from aigc_lab.errors import UsageError
from aigc_lab.host.capacity import format_bytes, free_memory

if TYPE_CHECKING:
    import numpy.typing

#: how the served model tells its samples
Form = Literal["array", "records", "png", "grid"]


@dataclass(frozen=True)
class Request:
    """`n` samples of a seed: of these classes, by number or name, taken in turn; for text with options of decoding
    (see `Model.sample`).
    """

    n: int
    seed: int = 0
    labels: Sequence[int | str] | None = None
    drawing: Mapping[str, Any] = field(default_factory=dict)


def concatenated(blocks: "Iterator[numpy.typing.NDArray[Any]]", n: int) -> "numpy.typing.NDArray[Any]":
    """Blocks as one array of `n` samples. Raises `UsageError` after the first block when memory will not hold them."""
    import numpy

    first = next(blocks)
    needed = 2 * first.nbytes * n // len(first)  # the parts, and the whole that they become
    free = free_memory()
    if needed > free:
        raise UsageError(
            f"n = {n:,}: so many samples take {format_bytes(needed)} of memory, and {format_bytes(free)} are free; "
            "ask for fewer, or write them to files: aigc-lab sample"
        )
    return numpy.concatenate([first, *blocks])
