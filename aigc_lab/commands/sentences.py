"""`aigc-lab evaluate` and `judge` on sentences, from Python as well. Files alone are scored without torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aigc_lab.errors import UsageError
from aigc_lab.host.settings import Settings
from aigc_lab.registry.home import OpenedHome
from aigc_lab.scoring.given_sentences import judge_sentences, scores
from aigc_lab.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from aigc_lab.verdicts.conclusion import CollapseVerdict


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
        fake, real, trained = (
            None if source is None else sentences(source, opened, samples, seed=seed, device=device)
            for source in (generated, reference, train)
        )
    assert fake is not None and real is not None
    return [vars(score) for score in scores(fake, real, train=trained, samples=samples, **options)]


def collapse(
    generated: str | Sequence[str],
    reference: str | Sequence[str],
    labels: Sequence[int] | Sequence[str] | None,
    *,
    device: str = "cpu",
    home: Path | None = None,
    cache: Path | None = None,
    tokenizer: Tokenizer = "words",
    **options: Any,
) -> CollapseVerdict:
    """The verdict on whether sentences have collapsed beside real ones, by vectors made of the reference's own words,
    in clusters of these or in the classes `labels`. Each set is a file, one sentence a line, a dataset, a run or model
    that sentences are drawn from on `device`, or the sentences themselves.

    Runs and models are those of `home`. Nulls of the reference are kept in `cache`. Raises `UsageError` for what cannot
    be judged, and for `options` that are about pictures.
    """
    with OpenedHome(Settings.load(home)) as opened:
        fake, real = (sentences(source, opened, device=device) for source in (generated, reference))
    return judge_sentences(fake, real, labels, cache=cache, tokenizer=tokenizer, **options)


def sentences(
    source: str | Sequence[str], opened: OpenedHome, samples: int | None = None, *, seed: int = 0, device: str
) -> str | Sequence[str]:
    """The name of a file and sentences as they are, or the sentences of a dataset, a run or a model."""
    if not isinstance(source, str) or Path(source).expanduser().exists():
        return source
    from aigc_lab.commands.evaluate import sentences_of

    return sentences_of(source, samples, opened, seed=seed, device=device)
