"""The verdict on collapse of samples that a user gives, beside real ones that he gives."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from aigc_lab.data.base import Modes
from aigc_lab.errors import UsageError
from aigc_lab.extractors.base import Extractor
from aigc_lab.modalities.shared.inputs import numbered
from aigc_lab.scoring.collapse_judge import EXAMPLES, Pictures, chosen_bins, judged
from aigc_lab.scoring.null_cache import remembered
from aigc_lab.text.corpus import Corpus
from aigc_lab.verdicts.asked import asked, with_asked
from aigc_lab.verdicts.collapse import Judge
from aigc_lab.verdicts.conclusion import CollapseVerdict
from aigc_lab.verdicts.sentences import Sentences
from aigc_lab.verdicts.states import MISSING


@dataclass(frozen=True)
class RealSet:
    """Real samples that others are judged beside: `vectors` [m, d], an `identity` for signatures, and how each is
    `called`. What else is known of them: classes `labels` [m] with `names`, `modes`, `sentences`, numbers `alike` [m]
    that equal samples share, `pictures`, and the extractor that vectors are `by`. `asked` [n] are the classes that the
    generated samples were asked for as, by the same numbers.
    """

    vectors: Tensor
    identity: str
    called: Callable[[int], str]
    labels: Tensor | None = None
    names: Sequence[str] | None = None
    modes: Modes | None = None
    sentences: Sentences | None = None
    alike: Tensor | None = None
    pictures: Pictures | None = None
    asked: Tensor | None = None
    by: Extractor | None = None


def known_sentences(reference: Corpus, train: Corpus | None) -> Sentences:
    """The real sentences that others are judged beside. Raises `UsageError` for too few."""
    try:
        return Sentences(reference, train)
    except ValueError as error:
        raise UsageError(f"reference: {error}") from None


def classes_of(labels: Sequence[int] | Sequence[str] | Tensor) -> tuple[Tensor, Sequence[str] | None]:
    """Classes as int64 numbers [n], and their names if they have any. Raises `UsageError` for labels that are neither
    whole numbers nor names.
    """
    if not isinstance(labels, Tensor) and len(labels) and isinstance(labels[0], str):
        return numbered([str(each) for each in labels])
    try:
        classes = torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"labels: are neither whole numbers nor names ({error})") from None
    if classes.ndim != 1 or classes.is_floating_point() or classes.is_complex():
        raise UsageError(f"labels: are {list(classes.shape)} {classes.dtype}, not one whole number or name a sample")
    return classes.long(), None


def verdict_on(vectors: Tensor, generated: object, real: RealSet, cache: Path | None) -> CollapseVerdict:
    """The verdict on generated samples and their vectors [n, d]. Each missing bin has `examples`: what the user calls
    the real samples nearest to its mean. Nulls of the real samples are kept in `cache`.

    Raises `UsageError` for samples that cannot be judged.
    """
    count = min(len(vectors), len(real.vectors) // 2)
    try:
        bins, kind = chosen_bins(
            real.vectors, count, modes=real.modes, labels=real.labels, names=real.names, by=real.by
        )
        fresh = Judge(real.vectors, bins, f"{real.identity}|by:{kind}", alike=real.alike)
        with remembered(fresh, cache) as judge:
            verdict = judged(judge, vectors, real.sentences, generated, real.pictures)
            if real.asked is not None:
                verdict = with_asked(verdict, asked(judge, vectors, real.asked))
        for row in verdict.bins:
            places = judge.examples(row["name"], EXAMPLES).tolist() if row["state"] == MISSING else []
            row["examples"] = [real.called(place) for place in places]
        return verdict
    except ValueError as error:
        raise UsageError(str(error)) from None
