"""`aigc-lab evaluate` and `judge` on sentences, from Python as well. Files alone are scored without torch."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aigc_lab.errors import UsageError
from aigc_lab.host.settings import Settings
from aigc_lab.scoring.given_sentences import as_text, judge_sentences, scores
from aigc_lab.statistics.score import Scores
from aigc_lab.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from aigc_lab.samples import Text
    from aigc_lab.verdicts.conclusion import CollapseVerdict


def sentence_scores(
    generated: str | Sequence[str],
    reference: str | Sequence[str] | None,
    *,
    train: str | Sequence[str] | None,
    seed: int,
    device: str,
    home: Path | None,
    samples: int | None,
    features: str | None = None,
    metrics: Sequence[str] | None = None,
    protocol: str | None = None,
    tokenizer: Tokenizer = "words",
) -> Scores:
    """The scores. Each source is a file, sentences, a dataset, or a run or model that sentences are drawn from.

    With `features` (an extractor of sentences, like `minilm`) the metrics that read them are scored too:
    `embedding_fd`, unless `metrics` name others.
    """
    if reference is None:
        what = generated if isinstance(generated, str) else "these sentences"
        raise UsageError(f"--reference: what shall {what} be compared with? Name a text file or a dataset")
    sources, settings = (generated, reference, train), Settings.load(home)
    fake, real, trained = sentence_sets(sources, settings, samples, seed=seed, device=device)
    plain: dict[str, Any] = {"train": trained, "samples": samples, "tokenizer": tokenizer}
    if features is None:
        return scores(fake, real, metrics=metrics, protocol=protocol, **plain)
    reading, others = _by_features(metrics, protocol)
    results = Scores() if others == [] else scores(fake, real, metrics=others, **plain)
    embedded = _embedded(as_text(fake, real, tokenizer, samples), reading, features, settings, device)
    return Scores([*results, *embedded], {**results.left_out, **embedded.left_out}, results.describing)


def _by_features(metrics: Sequence[str] | None, protocol: str | None) -> tuple[list[str], list[str] | None]:
    """Names of the metrics that read features, and of the others (None: the usual ones)."""
    from aigc_lab.scoring.metric_choice import metric_reads_features

    if protocol is not None:
        raise UsageError("--features: a protocol says itself which features it reads; name embedding_fd with --metrics")
    if metrics is None:
        return ["embedding_fd"], None
    reading = [name for name in metrics if metric_reads_features(name)]
    if not reading:
        raise UsageError(f"--features: {', '.join(metrics)} read none; embedding_fd does")
    return reading, [name for name in metrics if name not in reading]


def _embedded(
    sets: tuple[Text, Text], metrics: Sequence[str], features: str, settings: Settings, device: str
) -> Scores:
    """Scores of generated and real sentences by the vectors of an extractor."""
    from aigc_lab.evaluate import evaluate
    from aigc_lab.host import environment
    from aigc_lab.host.weights import WeightsPolicy

    return evaluate(
        *sets,
        metrics=metrics,
        features=features,
        weights=WeightsPolicy(settings.weights_dir),
        device=environment.device(device),
        cache=settings.shared_cache,
        data_dir=settings.data_dir,
        say=lambda text: print(text, file=sys.stderr),
    )


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
    fake, real = sentence_sets((generated, reference), Settings.load(home), device=device)
    return judge_sentences(fake, real, labels, cache=cache, tokenizer=tokenizer, **options)


def sentence_sets(
    sources: Sequence[str | Sequence[str] | None],
    settings: Settings,
    samples: int | None = None,
    *,
    seed: int = 0,
    device: str,
) -> list[Any]:
    """Names of files and sentences as they are, and the sentences of datasets, runs and models. A home is opened only
    for these.
    """
    names = {source for source in sources if isinstance(source, str) and not Path(source).expanduser().exists()}
    if not names:
        return list(sources)
    from aigc_lab.commands.evaluate import sentences_of
    from aigc_lab.registry.home import OpenedHome

    with OpenedHome(settings) as opened:
        return [
            sentences_of(source, samples, opened, seed=seed, device=device)
            if isinstance(source, str) and source in names
            else source
            for source in sources
        ]
