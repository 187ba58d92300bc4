"""`aigc-lab evaluate` and `judge` on files of sentences. Files alone are scored without torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aigc_lab.errors import UsageError
from aigc_lab.host.settings import Settings
from aigc_lab.registry.home import OpenedHome
from aigc_lab.scoring import text


def sentence_scores(
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
    """The scores as rows. Each source is a file, a dataset, or a run or model that sentences are drawn from."""
    if reference is None:
        raise UsageError(f"--reference: what shall {generated} be compared with? Name a text file or a dataset")
    with OpenedHome(Settings.load(home)) as opened:
        made, real, trained = (
            None if source is None else sentences(source, opened, samples, seed=seed, device=device)
            for source in (generated, reference, train)
        )
    assert made is not None and real is not None
    return [vars(score) for score in text.scores(made, real, train=trained, samples=samples, **options)]


def sentences(
    source: str, opened: OpenedHome, samples: int | None = None, *, seed: int = 0, device: str
) -> str | Sequence[str]:
    """The name of a file as it is, or the sentences of a dataset, a run or a model."""
    if Path(source).expanduser().exists():
        return source
    from aigc_lab.commands.evaluate import sentences_of

    return sentences_of(source, samples, opened, seed=seed, device=device)
