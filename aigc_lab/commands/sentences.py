"""What `aigc-lab evaluate` and `judge` do where a file of sentences is named. Files alone need no torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aigc_lab.errors import UsageError
from aigc_lab.scoring import text


def rows(
    generated: str,
    reference: str | None,
    train: str | None,
    *,
    seed: int,
    device: str,
    home: Path | None,
    samples: int | None,
    **options: Any,
) -> list[dict[str, Any]]:
    """The scores as rows. What is no file may be a dataset, or a run or model that is asked for sentences."""
    if reference is None:
        raise UsageError(f"--reference: what shall {generated} be compared with? Name a text file or a dataset")

    def given(source: str) -> str | Sequence[str]:
        return sentences(source, samples, seed=seed, device=device, home=home)

    made, real, trained = given(generated), given(reference), None if train is None else given(train)
    return [vars(score) for score in text.scores(made, real, train=trained, samples=samples, **options)]


def sentences(
    source: str, samples: int | None = None, *, seed: int = 0, device: str, home: Path | None
) -> str | Sequence[str]:
    """The name of a file as it is, or the sentences of a dataset, a run or a model."""
    if Path(source).expanduser().exists():
        return source
    from aigc_lab.commands.evaluate import sentences_of

    return sentences_of(source, samples, seed=seed, device=device, home=home)
